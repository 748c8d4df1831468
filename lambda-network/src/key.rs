//! The keys by which a worker and a card know each other.

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

    /// A private key of X25519. Each worker and each card has its own. It is not shown by `Debug`.
    #[derive(Clone)]
    pub struct Identity(x25519::StaticSecret);

    impl Identity {
        /// Takes a key of 32 bytes that must be random and secret.
        #[must_use]
        pub fn from_bytes(bytes: [u8; 32]) -> Self {
            Self(bytes.into())
        }

        /// Makes a key from the system's random numbers.
        ///
        /// # Errors
        ///
        /// When `/dev/random` cannot be read.
        pub fn random() -> io::Result<Self> {
            let mut bytes = [0; 32];
            File::open("/dev/random")?.read_exact(&mut bytes)?;
            Ok(Self::from_bytes(bytes))
        }

        /// Returns the public key, which the other side is told.
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

/// A public key of X25519.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes a key that the other side told.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the key, to be told.
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
