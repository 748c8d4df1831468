//! The Internet checksum (RFC 1071) of IPv4 and TCP. Pure.
//!
//! Sums are of 16-bit words in the machine's own byte order, which gives the same checksum bytes as network order does.

use crate::offload::TcpHeaders;

/// Adds up bytes; an odd one at the end counts as if a 0 followed.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|it| u64::from(u32::from_ne_bytes(*it))).sum();
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [odd] = rest {
        total += u64::from(u16::from_ne_bytes([*odd, 0]));
    }
    total
}

/// Folds a sum into 16 bits, with the carries added.
pub(crate) fn fold(mut total: u64) -> u16 {
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    // The loop has left 16 bits.
    u16::try_from(total).unwrap_or(u16::MAX)
}

/// Adds up TCP's pseudo header of an IPv4 packet of at least 20 bytes, for `length` bytes of header and payload.
pub(crate) fn pseudo(packet: &[u8], length: u16) -> u64 {
    let protocol = u64::from(u16::from_ne_bytes([0, 6]));
    sum(&packet[12..20]) + protocol + u64::from(u16::from_ne_bytes(length.to_be_bytes()))
}

/// Tells whether the checksums of a TCP packet, of its IPv4 header and of its content, are right.
pub(crate) fn tcp_is_right(packet: &[u8], headers: TcpHeaders) -> bool {
    let (ip, content) = packet.split_at(headers.ip);
    let Ok(length) = u16::try_from(content.len()) else { return false };
    fold(sum(ip)) == u16::MAX && fold(pseudo(packet, length) + sum(content)) == u16::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xDD, 0xF2]);
        assert_eq!(fold(sum(&bytes[..7])).to_ne_bytes(), [0xDC, 0xFB]);
        assert_eq!(fold(u64::MAX), u16::MAX);
    }
}
