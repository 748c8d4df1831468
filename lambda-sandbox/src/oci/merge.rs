//! Merges an unpacked layer into a folder of those below it, with the result that an overlay of
//! them shows (overlayfs).
//!
//! Both folders belong to root, and others may not write to them, so that nothing changes while
//! they are walked. Links are moved and never followed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Moves everything from `upper` into `lower`. What lies in `lower` at the same paths goes, except
/// for folders, which are merged.
pub(super) fn merge(upper: &Path, lower: &Path) -> io::Result<()> {
    for above in fs::read_dir(upper)? {
        let above = above?;
        let (path, target) = (above.path(), lower.join(above.file_name()));
        let found = above.metadata()?;
        if found.file_type().is_char_device() && found.rdev() == 0 {
            remove(&target)?;
        } else if found.is_dir() && is_folder(&target) && !is_opaque(&path)? {
            merge(&path, &target)?;
            fs::set_permissions(&target, found.permissions())?;
        } else {
            remove(&target)?;
            fs::rename(&path, &target)?;
        }
    }
    Ok(())
}

/// Tells whether a folder hides those of the same path below it.
fn is_opaque(folder: &Path) -> io::Result<bool> {
    crate::linux::is_opaque(File::open(folder)?.as_fd())
}

/// Tells whether a path is a folder, and no link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_dir())
}

/// Removes whatever has this path. Nothing need be there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if is_folder(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
