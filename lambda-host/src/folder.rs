//! The folder for a host's data.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, with_causes};

/// A data folder, which has one host at a time. A temporary one is removed on drop.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    temporary: bool,
    /// Locked until the last part of the host that uses the folder is gone, or the process ends.
    _lock: File,
}

impl DataFolder {
    /// Returns the folder `path`, or creates a temporary one. Blocks. Fails if another host uses
    /// the folder: its files are not touched then.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let (path, temporary) = match path {
            // Absolute, since sandboxes bind it from another working directory.
            Some(path) => (std::path::absolute(path).map_err(Error::io("resolve", path))?, false),
            None => {
                let name = format!("lambda-host-{}", uuid::Uuid::new_v4());
                (std::env::temp_dir().join(name), true)
            }
        };
        std::fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        let lock = lock(&path.join(LOCK))?;
        Ok(Self { path, temporary, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            let (error, folder) = (with_causes(&error), self.path.display());
            tracing::warn!(error, %folder, "temporary folder not removed");
        }
    }
}

/// Locks a file. Waits for a host of this process that was stopped just now.
fn lock(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::io("open", path))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
    }
    Err(Error::io("lock", path)(std::io::Error::other("another host uses this data folder")))
}

const LOCK: &str = "lock";
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
