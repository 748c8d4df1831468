//! Snapshots as bytes: a magic number, the version of this crate, a checksum, and the state in
//! postcard's format.

use std::fmt;

use super::Snapshot;

const MAGIC: [u8; 8] = *b"\x89lcsnap\n";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why bytes cannot be read as a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes do not begin as a snapshot does.
    NotASnapshot,
    /// Another version of this crate wrote the snapshot.
    OtherVersion {
        /// The version that wrote it.
        version: String,
    },
    /// The bytes are truncated, or differ from those that were written.
    Damaged,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => f.write_str("the bytes are not a snapshot"),
            Self::OtherVersion { version } => {
                write!(f, "the snapshot was written by version {version:?}, not {VERSION:?}")
            }
            Self::Damaged => f.write_str("the snapshot is damaged"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl Snapshot {
    /// Returns the snapshot as bytes, with this crate's version and a CRC-32. Only the same version
    /// of this crate reads them. The journal is the form that other versions read.
    ///
    /// # Panics
    ///
    /// If memory is exhausted.
    #[must_use]
    #[expect(clippy::expect_used, reason = "numbers and lists can always be written to memory")]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(u8::try_from(VERSION.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(VERSION.as_bytes());
        let header = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let mut bytes = postcard::to_extend(self, bytes).expect("a snapshot can be written");
        let sum = crc32fast::hash(&bytes[header + 4..]);
        bytes[header..header + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads bytes that [`Self::to_bytes`] wrote. The checksum finds accidents, not forgeries: the
    /// bytes must come from a trusted place.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`] if the bytes are no snapshot, are of another version of this
    /// crate, or are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(SnapshotError::NotASnapshot)?;
        let (len, rest) = rest.split_first().ok_or(SnapshotError::Damaged)?;
        let (version, rest) =
            rest.split_at_checked(usize::from(*len)).ok_or(SnapshotError::Damaged)?;
        if version != VERSION.as_bytes() {
            let version = String::from_utf8_lossy(version).into_owned();
            return Err(SnapshotError::OtherVersion { version });
        }
        let (sum, state) = rest.split_first_chunk().ok_or(SnapshotError::Damaged)?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(state) {
            return Err(SnapshotError::Damaged);
        }
        match postcard::take_from_bytes(state) {
            Ok((snapshot, [])) => Ok(snapshot),
            _ => Err(SnapshotError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Engine;
    use crate::event::Event;
    use crate::id::WorkerId;
    use crate::settings::Capacity;
    use crate::time::Time;

    fn engine() -> Engine {
        let mut engine = Engine::new(Config::default(), 1);
        let (worker, capacity) = (WorkerId(3), Capacity::of_memory(1 << 30));
        engine.handle(Time::ZERO, Event::WorkerJoined { worker, capacity }).expect("taken");
        engine
    }

    #[test]
    fn an_engine_that_ends_has_the_state_of_its_copy() {
        let engine = engine();
        let copy = engine.snapshot();
        assert_eq!((copy.placement(), copy.idle_policy()), ("ours", "fixed 600 s"));
        assert!(copy.to_bytes().len() > 500);
        assert_eq!(engine.into_snapshot().to_bytes(), copy.to_bytes());
    }

    #[test]
    fn each_changed_or_missing_byte_is_found() {
        let bytes = engine().snapshot().to_bytes();
        let again = Snapshot::from_bytes(&bytes).expect("as written");
        assert_eq!(again.to_bytes(), bytes);
        for at in 0..bytes.len() {
            assert!(Snapshot::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Snapshot::from_bytes(&changed).is_err(), "byte {at} changed");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Snapshot::from_bytes(&longer).err(), Some(SnapshotError::Damaged));
    }

    #[test]
    fn other_files_and_other_versions_are_told_apart() {
        let mut bytes = engine().snapshot().to_bytes();
        let error = |bytes: &[u8]| Snapshot::from_bytes(bytes).err();
        assert_eq!(error(b"{}"), Some(SnapshotError::NotASnapshot));
        bytes[MAGIC.len() + 1] = b'9';
        let version = format!("9{}", &VERSION[1..]);
        assert_eq!(error(&bytes), Some(SnapshotError::OtherVersion { version }));
    }
}
