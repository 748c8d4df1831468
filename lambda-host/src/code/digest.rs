//! The digest that identifies code.

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

    /// Returns the SHA-256 in lower-case hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
