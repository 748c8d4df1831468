//! The network device (virtio 1.2, section 5.1) over a passed TUN or TAP descriptor, without
//! offloads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use nix::sys::epoll::EpollFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;

use super::{Device, QUEUE_SIZE, Rings};
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
    buffer: Vec<u8>,
}

impl NetworkDevice {
    /// `file` must be non-blocking.
    pub(crate) fn new(network: Network, file: File, poll: Poll) -> Self {
        Self {
            network,
            file,
            poll,
            interest: EpollFlags::empty(),
            answers: VecDeque::new(),
            buffer: vec![0; HEADER_BYTES + FRAME_BYTES_MAX],
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
        let packet = match self.network.packets {
            Packets::Ethernet => frame,
            Packets::Ip => match [frame[12], frame[13]] {
                IPV4 => &frame[ETHERNET_BYTES..],
                ARP => {
                    if let Some(answer) = answer_arp(frame).filter(|_| self.answers.len() < 16) {
                        self.answers.push_back(answer);
                    }
                    return;
                }
                _ => return,
            },
        };
        // The descriptor refuses a malformed packet, or is full: the packet is lost.
        drop((&self.file).write(packet));
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
            self.buffer[..HEADER_BYTES].fill(0);
            // The number of buffers that the frame takes.
            self.buffer[10] = 1;
            let bytes = &self.buffer[..HEADER_BYTES + length];
            let writer = chain.writer::<()>(rings.memory());
            let is_written = writer.is_ok_and(|mut writer| writer.write_all(bytes).is_ok());
            let written = if is_written { u32::try_from(bytes.len()).unwrap_or(0) } else { 0 };
            rings.give(RECEIVE, head, written);
        }
    }

    /// Puts the next frame for the guest into the buffer. Returns its length.
    fn next_frame(&mut self) -> Option<usize> {
        if let Some(answer) = self.answers.pop_front() {
            self.buffer[HEADER_BYTES..HEADER_BYTES + answer.len()].copy_from_slice(&answer);
            return Some(answer.len());
        }
        let prefix = match self.network.packets {
            Packets::Ethernet => 0,
            Packets::Ip => ETHERNET_BYTES,
        };
        loop {
            let count = match (&self.file).read(&mut self.buffer[HEADER_BYTES + prefix..]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            if count == 0 {
                return None;
            }
            if prefix > 0 {
                let version = self.buffer[HEADER_BYTES + prefix] >> 4;
                if version != 4 {
                    continue;
                }
                let header = &mut self.buffer[HEADER_BYTES..HEADER_BYTES + prefix];
                header[..6].copy_from_slice(&self.network.mac);
                header[6..12].copy_from_slice(&GATEWAY_MAC);
                header[12..].copy_from_slice(&IPV4);
            }
            return Some(prefix + count);
        }
    }
}

impl Device for NetworkDevice {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC
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
const ETHERNET_BYTES: usize = 14;
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
}
