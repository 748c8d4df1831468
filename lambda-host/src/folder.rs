//! The folder for a host's data.

use std::path::{Path, PathBuf};

use crate::error::{Error, with_causes};

/// A data folder. A temporary one is removed on drop.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    temporary: bool,
}

impl DataFolder {
    /// Returns the folder `path`, or creates a temporary one. Blocks.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            // Absolute, since sandboxes bind it from another working directory.
            Some(path) => std::path::absolute(path)
                .map(|path| Self { path, temporary: false })
                .map_err(Error::io("resolve", path)),
            None => {
                let name = format!("lambda-host-{}", uuid::Uuid::new_v4());
                let path = std::env::temp_dir().join(name);
                std::fs::create_dir(&path).map_err(Error::io("create folder", &path))?;
                Ok(Self { path, temporary: true })
            }
        }
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
