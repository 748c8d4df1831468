//! Trivial implementations, in memory or empty, of the traits of [`crate::Context`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;
use super::{
    BoxFuture, Command, CommandOutput, Env, FileData, HttpError, Prompt, Question, ReadFile,
    RunCommand, SendHttp, Stamp, WriteFile,
};
use crate::credentials::Secret;

/// An environment in a map. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct MapEnv(BTreeMap<String, OsString>);

impl MapEnv {
    /// Returns an environment with these variables.
    pub fn new<K: Into<String>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// Sets one variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }
}

impl std::fmt::Debug for MapEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Env for MapEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

/// A file system in a map. Clones share it. `Debug` shows paths only.
#[derive(Clone, Default)]
pub struct MapFiles(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    /// Each file with the number of the change that wrote it.
    by_path: BTreeMap<PathBuf, (FileData, u64)>,
    changes: u64,
}

impl MapFiles {
    /// Returns files with these paths and contents.
    pub fn new<P: Into<PathBuf>, C: Into<Vec<u8>>>(
        files: impl IntoIterator<Item = (P, C)>,
    ) -> Self {
        let map = Self::default();
        for (path, content) in files {
            map.put(path, content);
        }
        map
    }

    /// Writes a file.
    pub fn put(&self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        let mut files = lock(&self.0);
        files.changes += 1;
        let file = (FileData::new(content), files.changes);
        files.by_path.insert(path.into(), file);
    }

    /// Returns a file's content.
    #[must_use]
    pub fn content(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        lock(&self.0).by_path.get(path.as_ref()).map(|(file, _)| file.bytes.clone())
    }

    /// Returns all paths, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.0).by_path.keys().cloned().collect()
    }
}

impl std::fmt::Debug for MapFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(lock(&self.0).by_path.keys()).finish()
    }
}

impl ReadFile for MapFiles {
    fn read<'a>(&'a self, path: &'a Path, bytes_max: u64) -> BoxFuture<'a, io::Result<FileData>> {
        Box::pin(async move {
            let Some((data, _)) = lock(&self.0).by_path.get(path).cloned() else {
                return Err(io::Error::from_raw_os_error(2)); // ENOENT
            };
            if u64::try_from(data.bytes.len()).is_ok_and(|len| len > bytes_max) {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(data)
        })
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let files = lock(&self.0);
        Some(
            files
                .by_path
                .get(path)
                .map_or(Stamp::ABSENT, |(_, change)| Stamp::new([*change, 0, 0, 0, 0])),
        )
    }
}

impl WriteFile for MapFiles {
    fn write_private<'a>(
        &'a self,
        path: &'a Path,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.put(path, bytes);
            Ok(())
        })
    }
}

/// No files: every read returns [`io::ErrorKind::NotFound`], and writes are refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl ReadFile for NoFiles {
    fn read<'a>(&'a self, _: &'a Path, _: u64) -> BoxFuture<'a, io::Result<FileData>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

impl WriteFile for NoFiles {
    fn write_private<'a>(&'a self, _: &'a Path, _: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::ReadOnlyFilesystem.into()) })
    }
}

/// No network: every request returns [`HttpError::Unavailable`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHttp;

impl SendHttp for NoHttp {
    fn send(
        &self,
        _: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        Box::pin(async { Err(HttpError::Unavailable) })
    }
}

/// No programs: every command returns [`io::ErrorKind::NotFound`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCommands;

impl RunCommand for NoCommands {
    fn run(&self, _: Command) -> BoxFuture<'_, io::Result<CommandOutput>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// No person to ask: every question returns [`io::ErrorKind::Unsupported`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn ask(&self, _: Question) -> BoxFuture<'_, io::Result<Secret>> {
        Box::pin(async {
            let reason = "nobody to ask: this program set no prompt";
            Err(io::Error::new(io::ErrorKind::Unsupported, reason))
        })
    }
}
