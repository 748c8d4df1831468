//! The network device (virtio 1.2, section 5.1) over a passed TUN or TAP descriptor. It offers
//! large segments and unfinished checksums where the descriptor carries their header.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use nix::sys::epoll::EpollFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_MAC, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
};

use super::{CHAINS_MAX, Device, QUEUE_SIZE, Rings};
use crate::config::{Network, Packets};
use crate::poll::Poll;

/// The device.
#[derive(Debug)]
pub(crate) struct NetworkDevice {
    network: Network,
    file: File,
    poll: Poll,
    interest: EpollFlags,
    /// Answers to ARP requests that wait for the guest's buffers.
    answers: VecDeque<[u8; ARP_FRAME_BYTES]>,
    /// The features that the driver has accepted.
    accepted: u64,
    /// A frame behind the device's header.
    buffer: Vec<u8>,
}

impl NetworkDevice {
    /// `file` must be non-blocking.
    pub(crate) fn new(network: Network, file: File, poll: Poll) -> Self {
        let frame = match network.packets {
            Packets::Ethernet | Packets::Ip => FRAME_BYTES_MAX,
            Packets::IpWithHeader => ETHERNET_BYTES + usize::from(u16::MAX),
        };
        Self {
            network,
            file,
            poll,
            interest: EpollFlags::empty(),
            answers: VecDeque::new(),
            accepted: 0,
            buffer: vec![0; HEADER_BYTES + frame],
        }
    }

    fn watch(&mut self, interest: EpollFlags) {
        self.poll.set(self.file.as_fd(), 0, self.interest, interest);
        self.interest = interest;
    }

    /// Sends the guest's frames. A frame that the host does not take at once is lost, as on a wire.
    fn transmit(&mut self, rings: &mut Rings<'_>) {
        while let Some(chain) = rings.next(TRANSMIT) {
            let head = chain.head_index();
            if let Ok(mut reader) = chain.reader::<()>(rings.memory()) {
                let length = reader.available_bytes();
                if (HEADER_BYTES + ETHERNET_BYTES..=self.buffer.len()).contains(&length)
                    && reader.read_exact(&mut self.buffer[..length]).is_ok()
                {
                    self.send(length);
                }
            }
            rings.give(TRANSMIT, head, 0);
        }
    }

    /// Sends the frame that lies in the buffer behind the device's header.
    fn send(&mut self, length: usize) {
        let frame = &self.buffer[HEADER_BYTES..length];
        let kind = [frame[12], frame[13]];
        if self.network.packets != Packets::Ethernet && kind != IPV4 {
            let answer = answer_arp(frame).filter(|_| kind == ARP && self.answers.len() < 16);
            return self.answers.extend(answer);
        }
        if self.network.packets == Packets::IpWithHeader {
            let header = moved(&self.buffer, |field| field.saturating_sub(ETHERNET_BYTES_16));
            self.buffer[PACKET - HOST_HEADER_BYTES..PACKET].copy_from_slice(&header);
        }
        // The descriptor refuses a malformed packet, or is full: the packet is lost.
        drop((&self.file).write(&self.buffer[self.start()..length]));
    }

    /// Returns where the content of the descriptor lies in the buffer, so that a packet lies behind
    /// the headers of the device and of Ethernet.
    fn start(&self) -> usize {
        match self.network.packets {
            Packets::Ethernet => HEADER_BYTES,
            Packets::Ip => PACKET,
            Packets::IpWithHeader => PACKET - HOST_HEADER_BYTES,
        }
    }

    /// Fills the guest's buffers with answers and with packets of the host.
    fn receive(&mut self, rings: &mut Rings<'_>) {
        loop {
            let Some(chain) = rings.next(RECEIVE) else {
                return self.watch(EpollFlags::empty());
            };
            let head = chain.head_index();
            let Some(length) = self.next_frame() else {
                rings.put_back(RECEIVE);
                return self.watch(EpollFlags::EPOLLIN);
            };
            // The number of buffers that the frame takes.
            self.buffer[10..HEADER_BYTES].copy_from_slice(&[1, 0]);
            let bytes = &self.buffer[..HEADER_BYTES + length];
            let writer = chain.writer::<()>(rings.memory());
            let is_written = writer.is_ok_and(|mut writer| writer.write_all(bytes).is_ok());
            let written = if is_written { u32::try_from(bytes.len()).unwrap_or(0) } else { 0 };
            rings.give(RECEIVE, head, written);
        }
    }

    /// Puts the next frame for the guest into the buffer, with a header but for the number of
    /// buffers. Returns the frame's length. Takes a bounded number of frames that are not for it.
    fn next_frame(&mut self) -> Option<usize> {
        self.buffer[..HEADER_BYTES].fill(0);
        if let Some(answer) = self.answers.pop_front() {
            self.buffer[HEADER_BYTES..HEADER_BYTES + answer.len()].copy_from_slice(&answer);
            return Some(answer.len());
        }
        for _ in 0..CHAINS_MAX {
            let start = self.start();
            let count = match (&self.file).read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.ok().filter(|count| *count > 0)?,
            };
            let end = start + count;
            if self.network.packets == Packets::Ethernet {
                return Some(count);
            }
            let has_packet = end > PACKET && self.buffer[PACKET] >> 4 == 4;
            if has_packet && self.take_header() {
                let header = &mut self.buffer[HEADER_BYTES..PACKET];
                header[..6].copy_from_slice(&self.network.mac);
                header[6..12].copy_from_slice(&GATEWAY_MAC);
                header[12..].copy_from_slice(&IPV4);
                return Some(end - HEADER_BYTES);
            }
        }
        None
    }

    /// Moves the header of the descriptor's packet, if it has one, to the start of the buffer.
    /// Returns whether the driver can take such a packet.
    fn take_header(&mut self) -> bool {
        if self.network.packets != Packets::IpWithHeader {
            return true;
        }
        let header = moved(&self.buffer[PACKET - HOST_HEADER_BYTES..], |field| {
            field.saturating_add(ETHERNET_BYTES_16)
        });
        self.buffer[..HOST_HEADER_BYTES].copy_from_slice(&header);
        let accepts = |feature: u32| self.accepted & 1 << feature != 0;
        let needs_checksum = u32::from(header[0]) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
        let is_taken = match u32::from(header[1]) {
            VIRTIO_NET_HDR_GSO_NONE => true,
            VIRTIO_NET_HDR_GSO_TCPV4 => accepts(VIRTIO_NET_F_GUEST_TSO4),
            _ => false,
        };
        is_taken && (!needs_checksum || accepts(VIRTIO_NET_F_GUEST_CSUM))
    }
}

impl Device for NetworkDevice {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let with_header = match self.network.packets {
            Packets::Ethernet | Packets::Ip => 0,
            Packets::IpWithHeader => {
                1 << VIRTIO_NET_F_CSUM
                    | 1 << VIRTIO_NET_F_GUEST_CSUM
                    | 1 << VIRTIO_NET_F_GUEST_TSO4
                    | 1 << VIRTIO_NET_F_HOST_TSO4
            }
        };
        1 << VIRTIO_NET_F_MAC | with_header
    }

    fn activate(&mut self, features: u64) {
        self.accepted = features;
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.network.mac
    }

    fn notify(&mut self, queue: usize, rings: &mut Rings<'_>) {
        if queue == TRANSMIT {
            self.transmit(rings);
        }
        self.receive(rings);
    }

    fn ready(&mut self, _token: u32, rings: &mut Rings<'_>) {
        self.receive(rings);
    }

    fn reset(&mut self) {
        self.answers.clear();
        self.watch(EpollFlags::empty());
    }
}

/// Returns a header of the host with its two places in the packet (the headers' length, and the
/// start of the checksum) changed: those of the guest count from the start of the frame.
fn moved(header: &[u8], change: impl Fn(u16) -> u16) -> [u8; HOST_HEADER_BYTES] {
    let mut moved = [0; HOST_HEADER_BYTES];
    moved.copy_from_slice(&header[..HOST_HEADER_BYTES]);
    for at in [2, 6] {
        let field = u16::from_le_bytes([moved[at], moved[at + 1]]);
        // Zero says that there is none.
        let field = if field == 0 { 0 } else { change(field) };
        moved[at..at + 2].copy_from_slice(&field.to_le_bytes());
    }
    moved
}

/// Answers an ARP request for any address but the sender's own (RFC 826): all addresses are behind
/// the one gateway.
fn answer_arp(frame: &[u8]) -> Option<[u8; ARP_FRAME_BYTES]> {
    let request: &[u8; ARP_FRAME_BYTES] = frame.first_chunk()?;
    let (sender_mac, sender) = (&request[22..28], &request[28..32]);
    let target = &request[38..42];
    let is_request = request[14..22] == [0, 1, 8, 0, 6, 4, 0, 1];
    // A sender without an address asks whether the target is taken (RFC 5227).
    if !is_request || sender == target || sender == [0; 4] {
        return None;
    }
    let mut answer = [0; ARP_FRAME_BYTES];
    answer[..6].copy_from_slice(sender_mac);
    answer[6..12].copy_from_slice(&GATEWAY_MAC);
    answer[12..14].copy_from_slice(&ARP);
    answer[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    answer[22..28].copy_from_slice(&GATEWAY_MAC);
    answer[28..32].copy_from_slice(target);
    answer[32..38].copy_from_slice(sender_mac);
    answer[38..42].copy_from_slice(sender);
    Some(answer)
}

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const HEADER_BYTES: usize = 12;
/// `virtio_net_hdr` as TUN devices have it: without the number of buffers.
const HOST_HEADER_BYTES: usize = 10;
const ETHERNET_BYTES: usize = 14;
const ETHERNET_BYTES_16: u16 = 14;
/// Where an IP packet lies in the buffer.
const PACKET: usize = HEADER_BYTES + ETHERNET_BYTES;
const ARP_FRAME_BYTES: usize = 42;
/// Frames without offloads have at most 1,514 bytes, and a tag of four.
const FRAME_BYTES_MAX: usize = 1518;
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
/// The hardware address of everything outside of the guest.
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 9]);
        frame.extend(ARP);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([2, 0, 0, 0, 0, 9]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    #[test]
    fn an_arp_request_is_answered_with_the_gateways_address() {
        let answer = answer_arp(&request([10, 0, 0, 2], [10, 0, 0, 1])).unwrap();
        assert_eq!(answer[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(answer[20..22], [0, 2]);
        assert_eq!(answer[22..28], GATEWAY_MAC);
        assert_eq!(answer[28..32], [10, 0, 0, 1]);
        assert_eq!(answer[38..42], [10, 0, 0, 2]);
    }

    #[test]
    fn probes_announcements_and_short_frames_are_not_answered() {
        assert!(answer_arp(&request([0; 4], [10, 0, 0, 2])).is_none());
        assert!(answer_arp(&request([10, 0, 0, 2], [10, 0, 0, 2])).is_none());
        assert!(answer_arp(&request([10, 0, 0, 2], [10, 0, 0, 1])[..41]).is_none());
    }

    /// A frame that needs a feature which the driver has not accepted is dropped. So is a frame
    /// that is no IP packet.
    #[test]
    fn segments_and_checksums_reach_drivers_that_take_them_alone() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let network = Network::new([2, 0, 0, 0, 0, 9], Packets::IpWithHeader);
        let poll = crate::poll::Readiness::new().unwrap().of_device(0);
        let file = File::from(std::os::fd::OwnedFd::from(theirs));
        let mut device = NetworkDevice::new(network, file, poll);
        let all = device.features();
        for (flags, segments, is_able, is_taken) in [
            (0, 0, false, true),
            (1, 0, false, false),
            (0, 1, false, false),
            (1, 1, true, true),
            (1, 0, true, true),
            // UDP segments, which were not offered.
            (1, 3, true, false),
        ] {
            device.activate(if is_able { all } else { 0 });
            let frame = [flags, segments, 0, 0, 0, 0, 0, 0, 0, 0, 0x45];
            for packet in [&frame[..9], &frame[..10], &[0; 11], &frame] {
                ours.send(packet).unwrap();
            }
            let frame = device.next_frame();
            assert_eq!(frame, is_taken.then_some(15), "{flags} {segments} {is_able}");
        }
    }
}
