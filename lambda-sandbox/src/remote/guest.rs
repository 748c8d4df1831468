//! What the host of a virtual machine and the agent in its guest agree on: vsock ports, the places
//! of disks, and how a guest wakes that was restored from a snapshot.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Wakes a guest that was restored from a snapshot. Until then every machine of one snapshot has
/// the same state of its random numbers, and a clock that stopped when the snapshot was taken.
pub trait Wake: Send + Sync + fmt::Debug {
    /// Has the kernel use the seed for all random numbers from now on, and sets its real-time
    /// clock. The server calls it before any program of a sandbox runs.
    ///
    /// # Errors
    ///
    /// If either fails. The sandbox is not given out then.
    fn wake(&self, seed: &[u8], now: SystemTime) -> io::Result<()>;
}

/// The port of the guest on which the agent serves sandboxes.
pub const AGENT_PORT: u32 = 1024;
/// The port of the host to which the agent connects when it is ready.
pub const READY_PORT: u32 = 1;
/// The folder of the guest with the host's disks beside the root.
pub const DISKS: &str = "/run/disks";

/// Returns where the guest has the image of a disk. `disk` is 0 for the first beside the root, and
/// `generation` counts the images that the disk has had.
#[must_use]
pub fn place(disk: u8, generation: u64) -> PathBuf {
    Path::new(DISKS).join(format!("{}.{generation}", letter(disk)))
}

/// Returns the disk and the generation of a place, or `None` if the path is none.
#[must_use]
pub fn disk_of(path: &Path) -> Option<(u8, u64)> {
    let first = path.strip_prefix(DISKS).ok()?.components().next()?;
    let (letter, generation) = first.as_os_str().to_str()?.split_once('.')?;
    let [byte @ b'b'..=b'z'] = letter.as_bytes() else { return None };
    Some((byte - b'b', generation.parse().ok()?))
}

/// Returns the last letter of a disk's name in the guest: the root is `a`.
#[must_use]
pub fn letter(disk: u8) -> char {
    char::from(b'b'.saturating_add(disk).min(b'z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_again() {
        for (disk, generation) in [(0, 0), (12, 1), (24, u64::MAX)] {
            let place = place(disk, generation);
            assert_eq!(disk_of(&place), Some((disk, generation)));
            assert_eq!(disk_of(&place.join("file")), Some((disk, generation)));
        }
        assert_eq!(place(0, 7), Path::new("/run/disks/b.7"));
        for path in ["/run/disks", "/run/disks/b", "/run/disks/a.1", "/run/disks/bb.1", "/b.1"] {
            assert_eq!(disk_of(Path::new(path)), None, "{path}");
        }
    }
}
