//! The Internet checksum (RFC 1071) for IPv4 and TCP. Pure.
//!
//! The sums are of 16-bit words in native byte order. RFC 1071 shows that the checksum's bytes are
//! the same as with network order.

use crate::tcp::TcpHeaders;

/// Returns the sum of the 16-bit words. An odd last byte is padded with 0.
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

/// Folds a sum to 16 bits by adding the carries.
pub(crate) fn fold(mut total: u64) -> u16 {
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    // The loop leaves 16 bits.
    u16::try_from(total).unwrap_or(u16::MAX)
}

/// Returns the sum of TCP's pseudo header, for an IPv4 packet of at least 20 bytes with `length`
/// bytes of TCP.
pub(crate) fn pseudo(packet: &[u8], length: u16) -> u64 {
    let protocol = u64::from(u16::from_ne_bytes([0, 6]));
    sum(&packet[12..20]) + protocol + u64::from(u16::from_ne_bytes(length.to_be_bytes()))
}

/// Returns whether the checksums of the IPv4 header and of the TCP segment are correct.
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
