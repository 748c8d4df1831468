//! Joins consecutive TCP packets of one connection into one frame, so that the kernel processes
//! them once. Pure.

use crate::checksum::{fold, pseudo, sum, tcp_is_right};
use crate::linux::tun::HEADER;
use crate::offload::{PSH, tcp_header};
use crate::tcp::{TcpHeaders, tcp_headers};

/// Joins packets, and keeps the frame that is not complete yet. Packets leave in the order of their
/// arrival.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    /// The frame: space for the virtio header, the first packet's headers, then payloads.
    frame: Vec<u8>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    headers: TcpHeaders,
    /// The payload of the first packet, in bytes. Following ones have the same, the last one may
    /// have less.
    size: usize,
    next_sequence: u32,
    packets: usize,
    /// No packet may follow: the last one was shorter or had the push flag.
    closed: bool,
}

impl Coalescer {
    /// Adds a packet. Passes the frames that it completes to `deliver`.
    pub(crate) fn add(&mut self, packet: &[u8], mut deliver: impl FnMut(&[u8])) {
        if let Some(headers) = joinable(packet) {
            if self.join(packet, headers) {
                return;
            }
            self.flush(&mut deliver);
            self.begin(packet, headers);
        } else {
            self.flush(&mut deliver);
            self.frame.clear();
            self.frame.resize(HEADER, 0);
            self.frame.extend_from_slice(packet);
            deliver(&self.frame);
        }
    }

    /// Passes an incomplete frame to `deliver`.
    pub(crate) fn flush(&mut self, mut deliver: impl FnMut(&[u8])) {
        let Some(run) = self.run.take() else { return };
        if run.packets > 1 {
            let size = u16::try_from(run.size).unwrap_or(u16::MAX);
            let (header, packet) = self.frame.split_at_mut(HEADER);
            header.copy_from_slice(&tcp_header(run.headers, size));
            let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].fill(0);
            let ip = run.headers.ip;
            let checksum = !fold(sum(&packet[..ip]));
            packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
            let content = u16::try_from(packet.len() - ip).unwrap_or(u16::MAX);
            let partial = fold(pseudo(packet, content));
            packet[ip + 16..ip + 18].copy_from_slice(&partial.to_ne_bytes());
        }
        deliver(&self.frame);
    }

    fn begin(&mut self, packet: &[u8], headers: TcpHeaders) {
        self.frame.clear();
        self.frame.resize(HEADER, 0);
        self.frame.extend_from_slice(packet);
        let size = packet.len() - headers.total;
        let next_sequence = following(packet, headers);
        let closed = packet[headers.ip + 13] & PSH != 0;
        self.run = Some(Run { headers, size, next_sequence, packets: 1, closed });
    }

    fn join(&mut self, packet: &[u8], headers: TcpHeaders) -> bool {
        let Some(run) = &mut self.run else { return false };
        let payload = &packet[headers.total..];
        let first = &self.frame[HEADER..HEADER + run.headers.total];
        let follows = !run.closed
            && headers == run.headers
            && payload.len() <= run.size
            && sequence(packet, headers) == run.next_sequence
            && self.frame.len() - HEADER + payload.len() <= usize::from(u16::MAX)
            && alike(first, packet, headers);
        if !follows {
            return false;
        }
        let push = packet[headers.ip + 13] & PSH;
        self.frame[HEADER + headers.ip + 13] |= push;
        self.frame.extend_from_slice(payload);
        run.next_sequence = following(packet, headers);
        run.packets += 1;
        run.closed = push != 0 || payload.len() < run.size;
        true
    }
}

/// Returns the lengths of the headers if the packet may be joined with others.
///
/// Its checksums must be correct: the joined frame gets new ones, which would hide a damaged
/// packet.
fn joinable(packet: &[u8]) -> Option<TcpHeaders> {
    let headers = tcp_headers(packet)?;
    let flags = packet[headers.ip + 13];
    let plain = flags & !PSH == ACK && packet.len() > headers.total;
    (plain && tcp_is_right(packet, headers)).then_some(headers)
}

/// Returns whether two packets differ only in lengths, identification, sequence, checksums and the
/// push flag.
fn alike(first: &[u8], packet: &[u8], TcpHeaders { ip, total }: TcpHeaders) -> bool {
    let same = |from: usize, to: usize| first[from..to] == packet[from..to];
    same(0, 2)
        && same(6, 10)
        && same(12, ip + 4)
        && same(ip + 8, ip + 13)
        && same(ip + 14, ip + 16)
        && same(ip + 18, total)
}

fn sequence(packet: &[u8], headers: TcpHeaders) -> u32 {
    let at = headers.ip + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn following(packet: &[u8], headers: TcpHeaders) -> u32 {
    // A packet has at most 65,535 bytes.
    let payload = u32::try_from(packet.len() - headers.total).unwrap_or(0);
    sequence(packet, headers).wrapping_add(payload)
}

const ACK: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::segment;
    use crate::offload::tests::tcp;

    fn join_all(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut coalescer = Coalescer::default();
        let mut frames = Vec::new();
        for packet in packets {
            coalescer.add(packet, |frame| frames.push(frame.to_vec()));
        }
        coalescer.flush(|frame| frames.push(frame.to_vec()));
        frames
    }

    /// Returns the packets after the joined frames are cut again.
    fn cut_again(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for frame in frames {
            segment(&mut frame.clone(), |packet| packets.push(packet.to_vec())).unwrap();
        }
        packets
    }

    fn with_identification(mut packet: Vec<u8>, identification: u16) -> Vec<u8> {
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[10..12].fill(0);
        let checksum = !fold(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
        packet
    }

    #[test]
    fn a_run_becomes_one_frame_and_the_same_packets_again() {
        let packets: Vec<_> = (0..4_u16)
            .map(|it| {
                let payload = vec![u8::try_from(it).unwrap(); if it == 3 { 70 } else { 100 }];
                let flags = if it == 3 { ACK | PSH } else { ACK };
                with_identification(tcp(u32::from(it) * 100, flags, &payload), it)
            })
            .collect();
        let frames = join_all(&packets);
        assert_eq!(frames.len(), 1);
        assert_eq!(cut_again(&frames), packets);
    }

    #[track_caller]
    fn apart(packets: &[Vec<u8>]) {
        let frames = join_all(packets);
        assert_eq!(frames.len(), packets.len());
        assert!(frames.iter().map(|it| &it[HEADER..]).eq(packets));
    }

    #[test]
    fn what_does_not_follow_stays_apart() {
        let first = tcp(0, ACK, &[1; 100]);
        apart(&[first.clone(), tcp(200, ACK, &[1; 100])]);
        apart(&[first.clone(), tcp(100, ACK, &[1; 101])]);
        apart(&[first.clone(), tcp(100, ACK | 1, &[1; 100])]);
        apart(&[first.clone(), tcp(100, ACK, &[])]);
        apart(&[tcp(0, ACK | PSH, &[1; 100]), tcp(100, ACK, &[1; 100])]);
        let mut damaged = tcp(100, ACK, &[1; 100]);
        damaged[90] ^= 1;
        apart(&[first.clone(), damaged]);
        let mut other = tcp(100, ACK, &[1; 100]);
        other[15] ^= 1;
        apart(&[first, other]);
    }

    #[test]
    fn a_frame_is_never_longer_than_a_packet_can_be() {
        let packets: Vec<_> = (0..100_u32).map(|it| tcp(it * 1400, ACK, &[0; 1400])).collect();
        let frames = join_all(&packets);
        assert!(frames.iter().all(|it| it.len() <= HEADER + 65_535));
        assert_eq!(frames.len(), 3);
    }

    proptest::proptest! {
        #[test]
        fn no_packet_panics(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            proptest::prop_assert_eq!(join_all(&[packet]).len(), 1);
        }
    }
}
