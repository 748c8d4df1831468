//! The keys and signatures of Signature Version 4a: ECDSA over P-256 with SHA-256. The key is
//! derived from the secret access key. Pure.
//!
//! Sources: NIST SP 800-108 for the derivation with a counter; FIPS 186-5, A.2.2, for a key from
//! random bits. The layout of the derivation's input is that of AWS's SDKs.

use hmac_sha256::HMAC;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

use crate::credentials::Credentials;

pub(super) type Key = SigningKey;

/// The order of the P-256 group minus two, big-endian.
const ORDER_MINUS_TWO: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x4f,
];

/// Derives the key of these credentials. It depends on no date, region or service.
pub(super) fn key(credentials: &Credentials) -> Key {
    let secret = format!("AWS4A{}", credentials.secret_access_key.expose());
    let candidates = (1..=254_u8).filter_map(|counter| {
        let mut input = 1_u32.to_be_bytes().to_vec();
        input.extend_from_slice(b"AWS4-ECDSA-P256-SHA256\0");
        input.extend_from_slice(credentials.access_key_id.as_bytes());
        input.push(counter);
        input.extend_from_slice(&256_u32.to_be_bytes());
        let candidate = HMAC::mac(&input, secret.as_bytes());
        (candidate <= ORDER_MINUS_TWO).then(|| plus_one(candidate))
    });
    candidates
        .filter_map(|bytes| SigningKey::from_slice(&bytes).ok())
        .next()
        .expect("of 254 candidates, each is out of range with a probability of 2^-32")
}

/// Adds one. The number must not be the largest one.
fn plus_one(mut number: [u8; 32]) -> [u8; 32] {
    for byte in number.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            break;
        }
    }
    number
}

/// Returns the signature of `text` in DER. It is deterministic (RFC 6979).
pub(super) fn sign(key: &Key, text: &str) -> Vec<u8> {
    let signature: Signature = key.sign(text.as_bytes());
    let bytes = signature.to_bytes();
    let mut integers = integer(&bytes[..32]);
    integers.extend(integer(&bytes[32..]));
    element(0x30, &integers)
}

/// Encodes an unsigned big-endian number as a DER integer.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len() - 1);
    let mut content = number[zeros..].to_vec();
    if content[0] >= 0x80 {
        content.insert(0, 0);
    }
    element(0x02, &content)
}

/// Encodes a DER element with less than 128 bytes of content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    debug_assert!(content.len() < 128, "two integers of at most 35 bytes");
    let mut bytes = vec![tag, u8::try_from(content.len()).unwrap_or(0)];
    bytes.extend_from_slice(content);
    bytes
}

/// Returns the public key with which a service that knows the credentials verifies signatures of
/// Version 4a: an uncompressed SEC 1 point of 65 bytes.
#[must_use]
pub fn public_key(credentials: &Credentials) -> Vec<u8> {
    key(credentials).verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_shortest_and_positive() {
        let encoded = |place: usize, byte: u8| {
            let mut number = [0_u8; 32];
            number[place] = byte;
            integer(&number)
        };
        assert_eq!(encoded(31, 0), [2, 1, 0]);
        assert_eq!(encoded(31, 0x7f), [2, 1, 0x7f]);
        assert_eq!(encoded(31, 0x80), [2, 2, 0, 0x80]);
        assert_eq!(encoded(0, 0x80)[..4], [2, 33, 0, 0x80]);
    }

    #[test]
    fn one_is_added_with_its_carries() {
        let mut number = [0_u8; 32];
        number[30..].copy_from_slice(&[1, 0xff]);
        assert_eq!(plus_one(number)[30..], [2, 0]);
        assert_eq!(plus_one([0; 32])[31], 1);
    }
}
