//! Keys and certificates in PEM (RFC 7468), with the parts of DER that signing needs. Pure.

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, EcdsaSigningAlgorithm};

use crate::base64::decode;

/// One PEM block: its label, such as `CERTIFICATE`, and its decoded content.
#[cfg(feature = "roles-anywhere")]
pub(super) type Block = (String, Vec<u8>);

/// The most blocks that are read from one file.
#[cfg(feature = "roles-anywhere")]
const BLOCKS_MAX: usize = 16;

/// Returns the blocks of a text. Text between them is skipped. A block that is not base 64 or has
/// no end is left out.
#[cfg(feature = "roles-anywhere")]
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while blocks.len() < BLOCKS_MAX
        && let Some((_, after)) = rest.split_once("-----BEGIN ")
        && let Some((label, after)) = after.split_once("-----")
    {
        let Some((body, after)) = after.split_once(&format!("-----END {label}-----")) else {
            break;
        };
        let body: String = body.split_ascii_whitespace().collect();
        blocks.extend(decode(&body).map(|bytes| (label.to_owned(), bytes)));
        rest = after;
    }
    blocks
}

/// Parses a P-256 key in PKCS #8 or SEC 1 (RFC 5915).
pub(super) fn p256_key(
    der: &[u8],
    algorithm: &'static EcdsaSigningAlgorithm,
    random: &SystemRandom,
) -> Option<EcdsaKeyPair> {
    if let Ok(key) = EcdsaKeyPair::from_pkcs8(algorithm, der, random) {
        return Some(key);
    }
    // SEC 1: version 1, the private key as an octet string of 32 bytes, and the public point as a
    // bit string of 66 bytes, of which the first counts the unused bits (0).
    let private = after(der, &[0x02, 0x01, 0x01, 0x04, 0x20])?.get(..32)?;
    let public = after(der, &[0x03, 0x42, 0x00])?.get(..65)?;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, random).ok()
}

fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    bytes.get(at + mark.len()..)
}

/// Decodes the content of a text with one block. The label is ignored.
#[cfg(feature = "login")]
pub(super) fn body(pem: &str) -> Option<Vec<u8>> {
    let body: String =
        pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    decode(&body)
}

/// Returns a certificate's serial number in decimal.
#[cfg(feature = "roles-anywhere")]
pub(super) fn serial_number(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    const INTEGER: u8 = 0x02;
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut signed, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(signed, VERSION) {
        signed = rest;
    }
    let (number, _) = element(signed, INTEGER)?;
    // RFC 5280: positive, at most 20 bytes.
    (!number.is_empty() && number.len() <= 20 && number[0] < 0x80).then(|| decimal(number))
}

/// Removes an element with this tag from the front. Returns its content and the bytes after it.
#[cfg(feature = "roles-anywhere")]
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Converts a big-endian number to decimal digits.
#[cfg(feature = "roles-anywhere")]
fn decimal(number: &[u8]) -> String {
    let mut number = number.to_vec();
    let mut digits = Vec::new();
    loop {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let sum = remainder * 256 + u16::from(*byte);
            *byte = u8::try_from(sum / 10).unwrap_or(0);
            remainder = sum % 10;
        }
        digits.push(u8::try_from(remainder).unwrap_or(0) + b'0');
        if number.iter().all(|byte| *byte == 0) {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(all(test, feature = "roles-anywhere"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_decimal() {
        for (bytes, text) in [
            (&[0_u8][..], "0"),
            (&[0, 255], "255"),
            (&[1, 0], "256"),
            (&[0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0, 0], "1000000000000000000"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
    }

    #[test]
    fn serial_numbers_of_certificates() {
        // A truncated certificate that ends with its serial number, with and without a version.
        let certificate = [0x30, 10, 0x30, 8, 0xa0, 3, 2, 1, 2, 2, 1, 42];
        assert_eq!(serial_number(&certificate).as_deref(), Some("42"));
        assert_eq!(serial_number(&[0x30, 5, 0x30, 3, 2, 1, 7]).as_deref(), Some("7"));
        assert_eq!(serial_number(&[0x30, 5, 0x30, 3, 2, 1, 0xff]), None);
        for end in 0..certificate.len() {
            assert_eq!(serial_number(&certificate[..end]), None);
        }
        assert_eq!(serial_number(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn blocks_between_other_text() {
        let text = "subject: x\n-----BEGIN A-----\nZm9v\r\n-----END A-----\n\
                    -----BEGIN B C-----\n*\n-----END B C-----\n-----BEGIN D-----\nZm8=\n";
        assert_eq!(blocks(text), [("A".to_owned(), b"foo".to_vec())]);
        assert_eq!(blocks(&"-----BEGIN A----------END A-----".repeat(100)).len(), BLOCKS_MAX);
    }
}
