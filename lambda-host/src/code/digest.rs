//! The digest that identifies code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies code that the host stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CodeDigest {
    /// The SHA-256 of the archive.
    pub sha256: [u8; 32],
    /// The archive's size in bytes.
    pub size_bytes: u64,
}

impl CodeDigest {
    /// Returns the digest of an archive.
    #[must_use]
    pub fn of(zip: &[u8]) -> Self {
        Self { sha256: Sha256::digest(zip).into(), size_bytes: zip.len() as u64 }
    }

    /// Returns the SHA-256 in base64, as AWS's API has it.
    #[must_use]
    pub fn base64(&self) -> String {
        BASE64.encode(self.sha256)
    }

    /// Returns the digest whose SHA-256 a text is in hexadecimal; its size is not known then.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut sha256 = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (at, byte) in sha256.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self { sha256, size_bytes: 0 })
    }

    /// Returns the SHA-256 in lower-case hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_told_as_aws_tells_it() {
        // `printf abc | openssl dgst -sha256 -binary | base64`
        let expected = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(CodeDigest::of(b"abc").base64(), expected);
        let digest = CodeDigest::of(b"abc");
        assert_eq!(CodeDigest::from_hex(&digest.hex()).unwrap().sha256, digest.sha256);
        for hex in ["", "ab", &"g".repeat(64), &"é".repeat(32)] {
            assert!(CodeDigest::from_hex(hex).is_none(), "{hex}");
        }
    }
}
