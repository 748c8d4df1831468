//! An embedded database in a file, which is opened again after its disk failed.
//!
//! After an error of its file a redb database refuses everything until it is opened anew. A disk
//! that was full has room again some time, and the host goes on.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::StorageError;

use crate::error::{Error, storage};

/// A database. Its methods block.
#[derive(Debug)]
pub(crate) struct Database {
    /// `None` for one in memory.
    path: Option<PathBuf>,
    /// `None` while the file cannot be opened.
    open: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file `path`, or makes it; without a path, a database in memory.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let database = opened(path)?;
        Ok(Self { path: path.map(Path::to_path_buf), open: RwLock::new(Some(database)) })
    }

    /// Runs reads or a transaction. When the disk fails them, the database is opened again for
    /// those that follow.
    pub(crate) fn run<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.open.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.open_again()?;
        }
        let done = match &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => work(database),
            None => Err(Error::registry("open")(StorageError::PreviousIo)),
        };
        match done {
            Err(error) if is_of_disk(&error) => {
                // Where it cannot be opened now, the next call tries.
                if let Err(error) = self.open_again() {
                    tracing::error!(
                        error = crate::error::with_causes(&error),
                        "a database cannot be opened"
                    );
                }
                Err(error)
            }
            done => done,
        }
    }

    fn open_again(&self) -> Result<(), Error> {
        let Some(path) = self.path.as_deref() else { return Ok(()) };
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened: its file has one user.
        *open = None;
        *open = Some(opened(Some(path))?);
        Ok(())
    }
}

fn opened(path: Option<&Path>) -> Result<redb::Database, Error> {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = match path {
        Some(path) => builder.create(path),
        None => builder.create_with_backend(redb::backends::InMemoryBackend::new()),
    };
    database.map_err(Error::registry("open"))
}

/// Tells whether an error is the disk's.
fn is_of_disk(error: &Error) -> bool {
    let Error::Registry { source, .. } = error else { return false };
    matches!(storage(source.as_ref()), Some(StorageError::Io(_) | StorageError::PreviousIo))
}

/// What a database keeps of its file in memory, in bytes. redb's default is 1 GiB, in which the
/// start of a host leaves all that it reads. Later a host reads what it waits to write, the page
/// cache keeps the rest.
const CACHE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use redb::{CommitError, ReadableDatabase as _, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

    fn put(database: &redb::Database, key: u64) -> Result<(), Error> {
        let write = database.begin_write().map_err(Error::registry("write"))?;
        let mut table = write.open_table(TABLE).map_err(Error::registry("write"))?;
        table.insert(key, key).map_err(Error::registry("write"))?;
        drop(table);
        write.commit().map_err(Error::registry("write"))
    }

    #[test]
    fn a_database_is_opened_again_after_an_error_of_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(Some(&folder.path().join("d.redb"))).unwrap();
        database.run(|it| put(it, 1)).unwrap();
        let failed = |error: StorageError| {
            let result: Result<(), Error> =
                database.run(|_| Err(Error::registry("write")(CommitError::Storage(error))));
            result.unwrap_err();
        };
        failed(StorageError::Io(std::io::Error::from(std::io::ErrorKind::StorageFull)));
        failed(StorageError::PreviousIo);
        database.run(|it| put(it, 2)).unwrap();
        let count = database.run(|it| {
            let read = it.begin_read().map_err(Error::registry("read"))?;
            let table = read.open_table(TABLE).map_err(Error::registry("read"))?;
            redb::ReadableTableMetadata::len(&table).map_err(Error::registry("read"))
        });
        assert_eq!(count.unwrap(), 2);
        // Nothing can be opened where the folder is gone, and again when it is back.
        let (folder, path) = (folder.path().to_path_buf(), folder);
        let moved = folder.with_extension("moved");
        std::fs::rename(&folder, &moved).unwrap();
        failed(StorageError::PreviousIo);
        assert!(database.run(|it| put(it, 3)).is_err());
        std::fs::rename(&moved, &folder).unwrap();
        database.run(|it| put(it, 3)).unwrap();
        drop(path);
    }
}
