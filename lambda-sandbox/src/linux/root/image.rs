//! Root file systems in a file: squashfs or erofs, mounted read-only over a loop device. The kernel
//! releases the device with its last user.
//!
//! The kernel's own parser reads the image. A hostile image can attack the kernel, so the author of
//! an image must be trusted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::Error;
use crate::linux::features::Rights;

/// Returns the kernel's name for the file system that the image at `path` holds.
pub(in crate::linux) fn kind_of(path: &Path) -> Result<&'static str, Error> {
    let failed = |source| Error::failed("opening the root's image", path, source);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    for (kind, offset, magic) in KINDS {
        let mut found = [0; 4];
        // A file too short for one kind may be of the other. The error below covers neither.
        if file.read_exact_at(&mut found, offset).is_ok() && found == magic {
            return Ok(kind);
        }
    }
    Err(Error::invalid(
        "root.image",
        path.display().to_string(),
        "it is neither squashfs nor erofs",
    ))
}

/// The kinds of images: the kernel's name of the file system, and the offset and bytes of its magic
/// number.
const KINDS: [(&str, u64, [u8; 4]); 2] =
    [("squashfs", 0, *b"hsqs"), ("erofs", 1024, [0xE2, 0xE1, 0xF5, 0xE0])];

/// A loop device with an image. The kernel detaches the image when this descriptor and every mount
/// of the device are gone, even if the host is killed.
#[derive(Debug)]
pub(in crate::linux) struct Image {
    pub(in crate::linux) device: PathBuf,
    _open: OwnedFd,
}

/// The identity of an image file: device, inode, size, and modification time in seconds and
/// nanoseconds. A replaced file has another identity.
type Key = (u64, u64, u64, i64, i64);

/// The images in use. Sandboxes with the same image share its loop device and its page cache.
#[derive(Debug, Default)]
pub(in crate::linux) struct Images {
    used: Mutex<BTreeMap<Key, Weak<Image>>>,
}

impl Images {
    /// Attaches the image at `path` to a loop device, or returns the device that already has it.
    pub(in crate::linux) fn attach(&self, path: &Path) -> Result<Arc<Image>, Error> {
        if Rights::own() != Rights::Root {
            return Err(Error::Unavailable {
                what: "a root from an image",
                why: "loop devices are root's".to_owned(),
                remedy: "unpack the image and take its folder, or run the host as root",
            });
        }
        let failed = |source| Error::failed("opening the root's image", path, source);
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let key = (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, image| image.strong_count() > 0);
        if let Some(image) = used.get(&key).and_then(Weak::upgrade) {
            return Ok(image);
        }
        let image = Arc::new(attach(&file, path)?);
        used.insert(key, Arc::downgrade(&image));
        Ok(image)
    }
}

/// Attempts to get a free loop device. Another process may take the free device first (EBUSY).
const TRIES: usize = 32;

fn attach(file: &File, path: &Path) -> Result<Image, Error> {
    let control = File::options().read(true).write(true).open("/dev/loop-control");
    let control = control.map_err(|source| Error::Unavailable {
        what: "a root from an image",
        why: format!("/dev/loop-control: {source}"),
        remedy: "load the kernel's module `loop`, or take a folder",
    })?;
    let failed = |source| Error::failed("attaching the root's image", path, source);
    for _ in 0..TRIES {
        let number = crate::linux::sys::free_loop(&control).map_err(failed)?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        let open = File::open(&device)
            .map_err(|source| Error::failed("opening a loop device", &device, source))?;
        match crate::linux::sys::configure_loop(&open, file.as_raw_fd().cast_unsigned(), true) {
            Ok(()) => return Ok(Image { device, _open: open.into() }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::Error::from_raw_os_error(libc::EBUSY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_what_they_begin_with() {
        let folder = tempfile::tempdir().unwrap();
        let check = |content: &[u8], expected: Option<&str>| {
            let path = folder.path().join("image");
            std::fs::write(&path, content).unwrap();
            assert_eq!(kind_of(&path).ok(), expected);
        };
        check(b"", None);
        check(b"hsq", None);
        check(b"hsqs", Some("squashfs"));
        check(&[0; 2000], None);
        let mut erofs = vec![0; 1024];
        erofs.extend([0xE2, 0xE1, 0xF5, 0xE0]);
        check(&erofs, Some("erofs"));
        assert!(kind_of(folder.path()).is_err());
        assert!(kind_of(Path::new("/not/there")).is_err());
    }
}
