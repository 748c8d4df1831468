//! The code store: archives and their unpacked contents, by digest, for as long as they are leased.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::archive::{ZIP_BYTES_MAX, make_folder, unpack, unpack_all};
use super::digest::CodeDigest;
use crate::error::{Error, with_causes};

/// Stores code in a folder: the archive as `DIGEST.zip`, its contents in the folder `DIGEST`.
///
/// Code is kept while a [`CodeLease`] on it lives, and removed with the last one. Clones share the
/// store.
#[derive(Clone, Debug)]
pub struct CodeStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// The number of leases on each code, by its hexadecimal digest.
    leases: Mutex<BTreeMap<String, usize>>,
    /// Whether code is kept without a lease.
    closed: AtomicBool,
}

/// A lease on code: the code's folder is kept until the last lease on it is dropped.
#[derive(Debug)]
pub struct CodeLease {
    store: Arc<Inner>,
    hex: String,
}

impl CodeStore {
    /// Opens the store in `root`, creates the folder if needed, and removes what an interrupted
    /// change left there. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Io`] if the folder cannot be created, read or cleaned.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        make_folder(&root)?;
        for path in entries(&root)? {
            if path.to_string_lossy().ends_with(PARTIAL) {
                remove(&path)?;
            }
        }
        let inner = Inner { root, leases: Mutex::default(), closed: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks, stores and unpacks an archive. Code that is already stored is reused. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TooLarge`] if the archive is too large, another error of `code` if it
    /// cannot be used, and [`Error::Io`] if it cannot be written.
    pub fn put(&self, zip: &Bytes) -> Result<(CodeDigest, CodeLease), Error> {
        if zip.len() > ZIP_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "code",
                reason: format!("Zipped size must be smaller than {ZIP_BYTES_MAX} bytes"),
            });
        }
        let digest = CodeDigest::of(zip);
        // Lease first: the drop of the last other lease must not remove the code after this check.
        let lease = self.leased(digest.hex());
        let (folder, archive) = (lease.folder(), lease.archive());
        if folder.exists() && archive.exists() {
            return Ok((digest, lease));
        }
        self.through_partial(&folder, |partial| unpack(zip, partial))?;
        self.through_partial(&archive, |partial| {
            let write = || -> std::io::Result<()> {
                let mut file = fs::File::create_new(partial)?;
                file.write_all(zip)?;
                file.sync_data()
            };
            write().map_err(Error::io("write", partial))
        })?;
        Ok((digest, lease))
    }

    /// Holds the folder that archives unpack to together, later ones over earlier ones; it need not
    /// be there ([`CodeLease::is_present`]).
    #[must_use]
    pub(crate) fn lease_merged(&self, digests: &[&CodeDigest]) -> CodeLease {
        if let [one] = digests {
            return self.lease(one);
        }
        let all: String = digests.iter().map(|it| it.hex()).collect();
        self.leased(CodeDigest::of(all.as_bytes()).hex())
    }

    /// Makes the folder of [`CodeStore::lease_merged`] out of the archives, in the same order.
    /// Blocks.
    pub(crate) fn put_merged(&self, lease: &CodeLease, zips: &[Bytes]) -> Result<(), Error> {
        let folder = lease.folder();
        if folder.exists() {
            return Ok(());
        }
        let zips: Vec<&[u8]> = zips.iter().map(|it| &**it).collect();
        self.through_partial(&folder, |partial| unpack_all(&zips, partial))
    }

    /// Leases code. The code need not be stored; see [`CodeLease::is_present`].
    #[must_use]
    pub fn lease(&self, digest: &CodeDigest) -> CodeLease {
        self.leased(digest.hex())
    }

    /// Leases a layer of a container image, by the SHA-256 of its contents in hexadecimal. The
    /// layer need not be stored; see [`CodeLease::is_present`].
    #[must_use]
    pub(crate) fn lease_layer(&self, sha256: &str) -> CodeLease {
        self.leased(sha256.to_owned())
    }

    /// Makes the folder of a lease, if it is not there, by `fill`, which gets an empty folder.
    /// Blocks.
    pub(crate) fn put_folder<E: From<Error>>(
        &self,
        lease: &CodeLease,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = lease.folder();
        if folder.exists() {
            return Ok(());
        }
        self.through_partial(&folder, |partial| {
            make_folder(partial)?;
            fill(partial)
        })
    }

    /// Returns the archive of `digest`, as it was stored. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Io`] if the archive cannot be read, for example since the code has no lease
    /// and was removed.
    pub fn archive(&self, digest: &CodeDigest) -> Result<Bytes, Error> {
        let lease = self.leased(digest.hex());
        let path = lease.archive();
        fs::read(&path).map(Bytes::from).map_err(Error::io("read", &path))
    }

    /// Removes all code without a lease, which an earlier process may have left. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Io`] if the folder cannot be read. Code that cannot be removed is logged
    /// and stays.
    pub fn sweep(&self) -> Result<(), Error> {
        for path in entries(&self.inner.root)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if !path.to_string_lossy().ends_with(PARTIAL) {
                self.inner.remove_unleased(&name);
            }
        }
        Ok(())
    }

    /// From now on keeps all code, leased or not, for the next process that opens the store.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
    }

    fn leased(&self, hex: String) -> CodeLease {
        *self.inner.leases().entry(hex.clone()).or_default() += 1;
        CodeLease { store: Arc::clone(&self.inner), hex }
    }

    /// Creates `target` atomically: under another name, then renamed.
    fn through_partial<E: From<Error>>(
        &self,
        target: &Path,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let partial = self.inner.partial(target);
        let made = make(&partial).and_then(|()| match fs::rename(&partial, target) {
            // Another upload of the same code was faster; its result is the same.
            Err(_) if target.exists() => Ok(()),
            other => Ok(other.map_err(Error::io("rename", &partial))?),
        });
        if partial.exists() {
            remove(&partial)?;
        }
        made
    }
}

impl CodeLease {
    /// Returns the folder with the unpacked code. Its files stay while the lease lives.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.store.root.join(&self.hex)
    }

    /// Returns whether the code is stored. Blocks.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.folder().exists()
    }

    fn archive(&self) -> PathBuf {
        self.store.root.join(format!("{}.zip", self.hex))
    }
}

impl Clone for CodeLease {
    fn clone(&self) -> Self {
        *self.store.leases().entry(self.hex.clone()).or_default() += 1;
        Self { store: Arc::clone(&self.store), hex: self.hex.clone() }
    }
}

impl Drop for CodeLease {
    fn drop(&mut self) {
        let last = {
            let mut leases = self.store.leases();
            match leases.get_mut(&self.hex) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                _ => leases.remove(&self.hex).is_some(),
            }
        };
        if !last || self.store.closed.load(Ordering::Relaxed) {
            return;
        }
        let (store, hex) = (Arc::clone(&self.store), std::mem::take(&mut self.hex));
        // Removing files can block, which an executor's thread must not.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || store.remove_unleased(&hex))),
            Err(_) => store.remove_unleased(&hex),
        }
    }
}

impl Inner {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partial(&self, target: &Path) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        self.root.join(format!("{name}.{}{PARTIAL}", uuid::Uuid::new_v4()))
    }

    /// Removes code without a lease. Blocks. Code that cannot be removed is logged; the next start
    /// tries again.
    fn remove_unleased(&self, hex: &str) {
        for name in [hex.to_owned(), format!("{hex}.zip")] {
            let path = self.root.join(&name);
            let partial = self.partial(&path);
            let renamed = {
                // Renamed under the lock: a later lease finds it gone and stores it again.
                let leases = self.leases();
                if leases.contains_key(hex) || !path.exists() {
                    continue;
                }
                fs::rename(&path, &partial).map_err(Error::io("rename", &path))
            };
            if let Err(error) = renamed.and_then(|()| remove(&partial)) {
                tracing::warn!(error = with_causes(&error), "code that nobody uses stays");
            }
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("read folder", folder))?;
    entries
        .map(|entry| entry.map(|it| it.path()).map_err(Error::io("read folder", folder)))
        .collect()
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(Error::io("remove", path))
}

const PARTIAL: &str = ".partial";

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn zip(content: &str) -> Bytes {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("bootstrap", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
        zip.finish().unwrap().into_inner().into()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(folder)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn code_stays_until_its_last_lease_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path()).unwrap();
        let (digest, first) = store.put(&zip("1")).unwrap();
        let second = store.lease(&digest);
        drop(first);
        assert_eq!(fs::read_to_string(second.folder().join("bootstrap")).unwrap(), "1");
        assert_eq!(store.archive(&digest).unwrap(), zip("1"));
        drop(second);
        assert_eq!(names(folder.path()), Vec::<String>::new());
        assert!(!store.lease(&digest).is_present());
    }

    #[test]
    fn a_start_removes_what_nobody_uses_and_what_was_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path()).unwrap();
        let (kept, lease) = store.put(&zip("kept")).unwrap();
        let (_, left) = store.put(&zip("left")).unwrap();
        // Leaks both, as a killed process does.
        std::mem::forget((lease, left));
        fs::create_dir(folder.path().join("x.partial")).unwrap();

        let store = CodeStore::open(folder.path()).unwrap();
        let _lease = store.lease(&kept);
        store.sweep().unwrap();
        assert_eq!(names(folder.path()), [kept.hex(), format!("{}.zip", kept.hex())]);
    }

    #[test]
    fn a_store_that_is_closed_keeps_its_code_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path()).unwrap();
        let (digest, lease) = store.put(&zip("1")).unwrap();
        store.close();
        drop(lease);
        assert!(CodeStore::open(folder.path()).unwrap().lease(&digest).is_present());
    }

    #[test]
    fn an_archive_that_cannot_be_used_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path()).unwrap();
        let refused = store.put(&Bytes::from_static(b"no archive"));
        assert!(matches!(refused, Err(Error::NotAnArchive)));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn leases_that_come_and_go_at_once_never_lose_code() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path()).unwrap();
        let zip = zip("shared");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (_, lease) = store.put(&zip).unwrap();
                        assert!(lease.folder().join("bootstrap").exists());
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
