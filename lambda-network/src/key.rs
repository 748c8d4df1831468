//! The keys by which workers and cards authenticate each other.

use std::fmt;

#[cfg(feature = "wireguard")]
pub use identity::Identity;

#[cfg(feature = "wireguard")]
mod identity {
    use std::fmt;
    use std::fs::File;
    use std::io::{self, Read as _};

    use boringtun::x25519;

    use super::PublicKey;

    /// A private X25519 key. Each worker and each card has its own. `Debug` shows only the public
    /// key.
    #[derive(Clone)]
    pub struct Identity(x25519::StaticSecret);

    impl Identity {
        /// Wraps 32 bytes, which must be random and secret.
        #[must_use]
        pub fn from_bytes(bytes: [u8; 32]) -> Self {
            Self(bytes.into())
        }

        /// Generates a key from the system's random numbers.
        ///
        /// # Errors
        ///
        /// Returns the error of reading `/dev/random`.
        pub fn random() -> io::Result<Self> {
            let mut bytes = [0; 32];
            File::open("/dev/random")?.read_exact(&mut bytes)?;
            Ok(Self::from_bytes(bytes))
        }

        /// Returns the public key, to be sent to the other side.
        #[must_use]
        pub fn public(&self) -> PublicKey {
            PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
        }

        pub(crate) fn secret(&self) -> x25519::StaticSecret {
            self.0.clone()
        }
    }

    impl fmt::Debug for Identity {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "Identity(of {:?})", self.public())
        }
    }
}

/// A public X25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps a key that the other side sent.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key, to be sent to the other side.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "wireguard"))]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_not_shown() {
        let identity = Identity::from_bytes([0x5A; 32]);
        let text = format!("{identity:?} {identity:#?}").to_lowercase();
        assert!(!text.contains("5a5a") && !text.contains("90, 90"), "{text}");
    }
}
