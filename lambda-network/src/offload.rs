//! Segmentation offload: the header before each frame of a TUN device, and the segmentation in user
//! space. Pure.
//!
//! A frame is a `struct virtio_net_hdr` (10 bytes, native byte order) and a packet: one IPv4
//! packet, or up to 64 KiB of a TCP connection that must be cut as the header says.

use crate::checksum::{fold, pseudo, sum};
use crate::linux::tun::HEADER;
use crate::rules::Refusal;
use crate::tcp::{TcpHeaders, tcp_headers};

/// Cuts a frame into complete packets, and passes each to `each` in order.
///
/// The frame is overwritten: the headers of each segment replace the end of the previous segment's
/// payload.
pub(crate) fn segment(frame: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), Refusal> {
    let (header, packet) = frame.split_first_chunk_mut::<HEADER>().ok_or(Refusal::Malformed)?;
    let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (size, start, offset) = (number(4), number(6), number(8));
    match header[1] & !ECN {
        NONE => {
            if header[0] & NEEDS_CHECKSUM != 0 {
                complete(packet, start, offset)?;
            }
            each(packet);
            Ok(())
        }
        TCP4 => cut(packet, size, each),
        _ => Err(Refusal::Malformed),
    }
}

/// Completes a checksum whose field has the sum of the pseudo header.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Refusal> {
    let covered = packet.get(start..).ok_or(Refusal::Malformed)?;
    let checksum = match !fold(sum(covered)) {
        // A UDP checksum of 0 would mean that there is none (RFC 768).
        0 => u16::MAX,
        checksum => checksum,
    };
    let field = packet.get_mut(start + offset..start + offset + 2).ok_or(Refusal::Malformed)?;
    field.copy_from_slice(&checksum.to_ne_bytes());
    Ok(())
}

fn cut(packet: &mut [u8], size: usize, mut each: impl FnMut(&[u8])) -> Result<(), Refusal> {
    let headers = tcp_headers(packet).ok_or(Refusal::Malformed)?;
    if size == 0 || packet.len() - headers.total > 65_535 {
        return Err(Refusal::Malformed);
    }
    let mut template = [0; HEADERS_MAX];
    let template = &mut template[..headers.total];
    template.copy_from_slice(&packet[..headers.total]);
    let ip = headers.ip;
    let word = |at: usize| u16::from_be_bytes([template[at], template[at + 1]]);
    let identification = word(4);
    let flags = template[ip + 13];
    let sequence = u32::from_be_bytes([
        template[ip + 4],
        template[ip + 5],
        template[ip + 6],
        template[ip + 7],
    ]);
    let end = packet.len();
    let mut at = headers.total;
    let mut count = 0_u16;
    while at < end {
        let next = (at + size).min(end);
        let segment = packet.get_mut(at - headers.total..next).ok_or(Refusal::Malformed)?;
        segment[..headers.total].copy_from_slice(template);
        let length = u16::try_from(segment.len()).map_err(|_| Refusal::Malformed)?;
        segment[2..4].copy_from_slice(&length.to_be_bytes());
        segment[4..6].copy_from_slice(&identification.wrapping_add(count).to_be_bytes());
        segment[10..12].fill(0);
        let checksum = !fold(sum(&segment[..ip]));
        segment[10..12].copy_from_slice(&checksum.to_ne_bytes());
        let passed = u32::try_from(at - headers.total).map_err(|_| Refusal::Malformed)?;
        segment[ip + 4..ip + 8].copy_from_slice(&sequence.wrapping_add(passed).to_be_bytes());
        let not_last = if next < end { FIN | PSH } else { 0 };
        let not_first = if count > 0 { CWR } else { 0 };
        segment[ip + 13] = flags & !(not_last | not_first);
        segment[ip + 16..ip + 18].fill(0);
        let total = pseudo(segment, length - u16::try_from(ip).unwrap_or(0)) + sum(&segment[ip..]);
        segment[ip + 16..ip + 18].copy_from_slice(&(!fold(total)).to_ne_bytes());
        each(segment);
        (at, count) = (next, count.wrapping_add(1));
    }
    Ok(())
}

/// Returns the header of a frame whose packet must be cut into TCP segments with `size` bytes of
/// payload.
pub(crate) fn tcp_header(headers: TcpHeaders, size: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = NEEDS_CHECKSUM;
    header[1] = TCP4;
    let ip = u16::try_from(headers.ip).unwrap_or(0);
    let total = u16::try_from(headers.total).unwrap_or(0);
    for (at, number) in [(2, total), (4, size), (6, ip), (8, 16)] {
        header[at..at + 2].copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// The longest headers of IPv4 and TCP together, in bytes.
pub(crate) const HEADERS_MAX: usize = 120;
// From linux/virtio_net.h.
const NEEDS_CHECKSUM: u8 = 1;
const NONE: u8 = 0;
const TCP4: u8 = 1;
const ECN: u8 = 0x80;
// From a TCP header.
const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checksum::tcp_is_right;

    /// Returns a TCP packet with correct checksums.
    pub(crate) fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[6] = 0x40;
        packet[8] = 64;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[169, 254, 1, 7, 10, 0, 0, 3]);
        packet[20..24].copy_from_slice(&[0x9C, 0x40, 0, 80]);
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet[32] = 0x50;
        packet[33] = flags;
        packet[35] = 200;
        packet.extend_from_slice(payload);
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let checksum = !fold(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
        let checksum = !fold(pseudo(&packet, length - 20) + sum(&packet[20..]));
        packet[36..38].copy_from_slice(&checksum.to_ne_bytes());
        packet
    }

    fn cut_all(frame: &mut [u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut packets = Vec::new();
        segment(frame, |packet| packets.push(packet.to_vec()))?;
        Ok(packets)
    }

    #[test]
    fn a_large_frame_becomes_right_segments_in_order() {
        let payload: Vec<u8> = (0..5000_u32).map(|it| u8::try_from(it % 251).unwrap()).collect();
        let packet = tcp(u32::MAX - 100, 0x10 | PSH, &payload);
        let header = tcp_header(tcp_headers(&packet).unwrap(), 1400);
        let packets = cut_all(&mut [&header[..], &packet].concat()).unwrap();
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1440, 1440, 1440, 840]);
        let mut joined = Vec::new();
        for (index, it) in packets.iter().enumerate() {
            assert!(tcp_is_right(it, tcp_headers(it).unwrap()), "{index}");
            let sequence = u32::from_be_bytes(it[24..28].try_into().unwrap());
            let passed = u32::try_from(index * 1400).unwrap();
            assert_eq!(sequence, (u32::MAX - 100).wrapping_add(passed));
            assert_eq!(it[33] & PSH != 0, index == 3);
            joined.extend_from_slice(&it[40..]);
        }
        assert!(joined == payload);
    }

    #[test]
    fn a_checksum_that_was_left_is_completed() {
        let mut packet = tcp(1, 0x10, b"payload");
        let right = packet.clone();
        let length = u16::try_from(packet.len() - 20).unwrap();
        let partial = fold(pseudo(&packet, length));
        packet[36..38].copy_from_slice(&partial.to_ne_bytes());
        let mut header = tcp_header(tcp_headers(&packet).unwrap(), 0);
        header[1] = NONE;
        assert_eq!(cut_all(&mut [&header[..], &packet].concat()).unwrap(), [right]);
    }

    #[test]
    fn contradicting_headers_are_refused() {
        let packet = tcp(1, 0x10, b"payload");
        let header = tcp_header(tcp_headers(&packet).unwrap(), 4);
        for length in 0..HEADER + 40 {
            let mut frame = [&header[..], &packet].concat();
            frame.truncate(length);
            assert!(cut_all(&mut frame).is_err(), "{length}");
        }
        let zero = tcp_header(tcp_headers(&packet).unwrap(), 0);
        assert!(cut_all(&mut [&zero[..], &packet].concat()).is_err());
        let mut beyond = header;
        beyond[1] = NONE;
        beyond[6..8].copy_from_slice(&400_u16.to_ne_bytes());
        assert!(cut_all(&mut [&beyond[..], &packet].concat()).is_err());
        let mut unknown = header;
        unknown[1] = 5;
        assert!(cut_all(&mut [&unknown[..], &packet].concat()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_frame_panics(mut frame in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(cut_all(&mut frame));
        }

        #[test]
        fn no_damaged_frame_panics(at in 0_usize..110, value: u8, size: u16) {
            let packet = tcp(1, 0x10, &[5; 60]);
            let header = tcp_header(tcp_headers(&packet).unwrap(), size);
            let mut frame = [&header[..], &packet].concat();
            frame[at] = value;
            drop(cut_all(&mut frame));
        }
    }
}
