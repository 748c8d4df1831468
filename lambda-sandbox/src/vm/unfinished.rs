//! Files and folders that are not finished yet. They have names of their own and are locked, so
//! that a later host removes those of hosts that have ended, and no others. A lock ends with its
//! process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file or folder that is removed unless it was renamed.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Unfinished {
    /// Makes an empty file for this user alone.
    pub(super) fn file(within: &Path, kind: &str) -> io::Result<Self> {
        Self::make(within, kind, |path| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
        })
    }

    /// Makes an empty folder for this user alone.
    pub(super) fn folder(within: &Path, kind: &str) -> io::Result<Self> {
        Self::make(within, kind, |path| DirBuilder::new().mode(0o700).create(path))
    }

    fn make(
        within: &Path,
        kind: &str,
        create: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<Self> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = within.join(format!("{PREFIX}{}-{number}-{kind}", std::process::id()));
            match create(&path) {
                Ok(()) => {}
                // Of an ended process with the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // A sweep that comes before the lock removes it.
            let locked = File::open(&path).and_then(|file| file.lock().map(|()| file));
            match locked {
                Ok(lock) if is_at(&lock, &path) => return Ok(Self { path, _lock: lock }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    remove(&path);
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what ended hosts have begun to make in a folder. Returns the paths.
pub(super) fn sweep(within: &Path) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(within)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // It may have been finished meanwhile.
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() && is_at(&lock, &path) {
            remove(&path);
            removed.push(path.display().to_string());
        }
    }
    Ok(removed)
}

/// Removes a file, or a folder with all that is in it. What cannot be removed stays.
pub(super) fn remove(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        drop(fs::remove_dir_all(path));
    } else {
        drop(fs::remove_file(path));
    }
}

/// Returns whether an open file or folder is still at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Numbers the names of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);
const PREFIX: &str = "unfinished-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_stays_and_what_an_ended_process_left_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let ours = Unfinished::folder(folder.path(), "snapshot").expect("made");
        fs::write(ours.path.join("memory"), "half").expect("written");
        let file = Unfinished::file(folder.path(), "image").expect("made");
        // A process with the number of this one has ended: a host in a container has the same
        // number after each start.
        let left = path(&format!("{PREFIX}{}-99999-snapshot", std::process::id()));
        fs::create_dir(&left).expect("made");
        fs::write(left.join("memory"), "half").expect("written");
        fs::write(path("kept.erofs"), "").expect("written");
        assert_eq!(sweep(folder.path()).expect("swept"), [left.display().to_string()]);
        assert!(ours.path.join("memory").exists() && file.path.exists() && !left.exists());
        drop((ours, file));
        let names: Vec<_> = fs::read_dir(folder.path()).expect("read").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_renamed_folder_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Unfinished::folder(folder.path(), "snapshot").expect("made");
        fs::rename(&made.path, folder.path().join("kept")).expect("renamed");
        drop(made);
        assert!(folder.path().join("kept").exists());
    }
}
