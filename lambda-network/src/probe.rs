//! Echo packets (RFC 792) by which a worker finds the largest packet that the path to a card
//! carries. Pure.
//!
//! The sequence number of a packet is its size, so that an answer tells which size arrived.

use std::net::Ipv4Addr;

use crate::checksum::{fold, sum};
use crate::guard::ends;
use crate::lease::CARD;

/// Returns the sizes to try, in bytes, from the largest: `max`, and what usual underlays leave.
pub(crate) fn sizes(max: u16) -> impl Iterator<Item = u16> {
    std::iter::once(max).chain(SIZES.into_iter().filter(move |size| *size < max))
}

/// Returns an echo request of `size` bytes to the card. `size` is at least 28.
pub(crate) fn request(source: Ipv4Addr, size: u16) -> Vec<u8> {
    let mut packet = vec![0; usize::from(size).max(IP + ICMP)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&size.to_be_bytes());
    // Do not fragment.
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = PROTOCOL;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&CARD.octets());
    packet[IP] = REQUEST;
    packet[24..26].copy_from_slice(&IDENTIFIER.to_be_bytes());
    packet[26..28].copy_from_slice(&size.to_be_bytes());
    seal(&mut packet);
    packet
}

/// Returns the answer to an echo request to the card, or `None` if the packet is another one.
pub(crate) fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let ends = echo(packet, REQUEST).filter(|ends| ends.destination == CARD)?;
    let mut answer = packet.to_vec();
    answer[8] = 64;
    answer[12..16].copy_from_slice(&CARD.octets());
    answer[16..20].copy_from_slice(&ends.source.octets());
    answer[IP] = ANSWER;
    seal(&mut answer);
    Some(answer)
}

/// Returns the size to which the card's answer belongs, or `None` if the packet is another one.
pub(crate) fn answered(packet: &[u8]) -> Option<u16> {
    echo(packet, ANSWER).filter(|ends| ends.source == CARD)?;
    let field = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let size = field(26)?;
    (field(24)? == IDENTIFIER && packet.len() == usize::from(size)).then_some(size)
}

/// Returns the ends of an echo packet without IP options.
fn echo(packet: &[u8], kind: u8) -> Option<crate::guard::Ends> {
    let is = packet.len() >= IP + ICMP
        && packet[0] == 0x45
        && packet[9] == PROTOCOL
        && packet[IP..IP + 2] == [kind, 0];
    ends(packet).ok().filter(|_| is)
}

/// Sets both checksums.
fn seal(packet: &mut [u8]) {
    for (range, at) in [(0..IP, 10), (IP..packet.len(), IP + 2)] {
        packet[at..at + 2].fill(0);
        let checksum = !fold(sum(&packet[range]));
        packet[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// The packets that usual underlays leave: 80 bytes less than 9,001 (jumbo frames of AWS), 9,000,
/// 1,500 (Ethernet), 1,492 (PPPoE), 1,480 (IP in IP), 1,460 (Google Cloud), 1,450 (VXLAN), 1,420
/// (WireGuard), 1,400, 1,360, 1,280 (the least of IPv6), 1,024 and 656.
const SIZES: [u16; 13] =
    [8921, 8920, 1420, 1412, 1400, 1380, 1370, 1340, 1320, 1280, 1200, 944, 576];
const PROTOCOL: u8 = 1;
const REQUEST: u8 = 8;
const ANSWER: u8 = 0;
/// Distinguishes the answers from those to others.
const IDENTIFIER: u16 = 0x4C4E;
const IP: usize = 20;
const ICMP: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 64);

    #[test]
    fn a_request_is_answered_at_its_own_size() {
        for size in [28, 29, 576, 1420, 8920] {
            let request = request(WORKER, size);
            assert_eq!(request.len(), usize::from(size));
            assert_eq!(fold(sum(&request[..20])), u16::MAX);
            assert_eq!(fold(sum(&request[20..])), u16::MAX);
            let answer = answer(&request).unwrap();
            assert_eq!(answered(&answer), Some(size));
            assert_eq!(fold(sum(&answer[20..])), u16::MAX);
            assert_eq!(ends(&answer).unwrap().destination, WORKER);
            assert_eq!(answered(&request), None);
        }
    }

    #[test]
    fn other_packets_are_no_probes() {
        let mut other = request(WORKER, 100);
        other[16..20].copy_from_slice(&[10, 0, 0, 3]);
        assert_eq!(answer(&other), None);
        let mut udp = request(WORKER, 100);
        udp[9] = 17;
        assert_eq!(answer(&udp), None);
        let whole = request(WORKER, 100);
        for length in 0..28 {
            assert_eq!(answer(&whole[..length]), None, "{length}");
            assert_eq!(answered(&whole[..length]), None, "{length}");
        }
        // An answer that was cut off says nothing of its size.
        let answer = answer(&whole).unwrap();
        assert_eq!(answered(&answer[..60]), None);
    }

    #[test]
    fn the_largest_size_is_tried_first_and_no_larger_one() {
        assert_eq!(sizes(1420).take(3).collect::<Vec<_>>(), [1420, 1412, 1400]);
        assert_eq!(sizes(8000).take(2).collect::<Vec<_>>(), [8000, 1420]);
        assert_eq!(sizes(1399).next(), Some(1399));
        assert!(sizes(9000).is_sorted_by(|a, b| a > b));
    }
}
