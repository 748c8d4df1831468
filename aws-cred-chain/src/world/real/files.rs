//! Reads and writes the files of this machine.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::thread::{Abandoned, on_thread};
use super::{pipe, random_seed};
use crate::world::{BoxFuture, CacheLock, FileData, ReadFile, Stamp, WriteFile};

/// The files of this machine. Regular files are read on the calling thread, since they are small
/// and local. Pipes, such as `<(command)` of a shell, are read on a thread of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl ReadFile for LocalFiles {
    fn read<'a>(&'a self, path: &'a Path, bytes_max: u64) -> BoxFuture<'a, io::Result<FileData>> {
        match open(path) {
            Ok((file, metadata)) if metadata.is_file() => {
                Box::pin(std::future::ready(read_regular(file, &metadata, bytes_max)))
            }
            Ok((_, metadata)) if metadata.is_dir() => {
                Box::pin(std::future::ready(Err(io::ErrorKind::IsADirectory.into())))
            }
            Ok((file, metadata)) => Box::pin(async move {
                let others_may_read = others_may_read(&metadata);
                let bytes = on_thread(move |abandoned| {
                    pipe::read_to_end(file, bytes_max, Some(WRITER_WITHIN), abandoned)
                })
                .await??;
                Ok(FileData { bytes, others_may_read })
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Returns a stamp of the file's device, inode, size and time of change. Returns `None` within
    /// two seconds after a change, because another change could get the same time from the file
    /// system. Also returns `None` for anything but a regular file.
    fn stamp(&self, path: &Path) -> Option<Stamp> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => settled(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Stamp::ABSENT),
            _ => None,
        }
    }

    /// One millisecond, so that a series of calls checks the file once.
    fn stamp_serves(&self) -> Duration {
        Duration::from_millis(1)
    }
}

/// The coarsest resolution of time among file systems in use (FAT): two seconds.
const TICK: Duration = Duration::from_secs(2);

#[cfg(unix)]
fn settled(metadata: &fs::Metadata) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    // The inode's time of change. Unlike the time of modification, no program can set it back.
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanos = u64::try_from(metadata.ctime_nsec()).ok()?;
    let changed = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let parts = [metadata.dev(), metadata.ino(), metadata.size(), seconds, nanos];
    (now.checked_sub(changed)? > TICK).then(|| Stamp::new(parts))
}

#[cfg(not(unix))]
fn settled(metadata: &fs::Metadata) -> Option<Stamp> {
    let changed = metadata.modified().ok()?;
    let since = changed.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let parts = [1, 1, metadata.len(), since.as_secs(), u64::from(since.subsec_nanos())];
    (SystemTime::now().duration_since(changed).ok()? > TICK).then(|| Stamp::new(parts))
}

fn read_regular(file: fs::File, metadata: &fs::Metadata, bytes_max: u64) -> io::Result<FileData> {
    if metadata.len() > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    // A file may grow, so the limit is enforced while it is read.
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(FileData { bytes, others_may_read: others_may_read(metadata) })
}

/// How long to wait for the first writer of a pipe.
const WRITER_WITHIN: Duration = Duration::from_secs(10);

/// Opens a file for reading. Does not wait for the writer of a pipe.
fn open(path: &Path) -> io::Result<(fs::File, fs::Metadata)> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

#[cfg(unix)]
fn others_may_read(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o044 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &fs::Metadata) -> bool {
    false
}

impl WriteFile for LocalFiles {
    fn write_private<'a>(
        &'a self,
        path: &'a Path,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(write_private(path, bytes)))
    }

    /// Locks the file `path` + `.lock` (`flock`; on Windows `LockFileEx`). The empty file remains.
    fn lock<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<CacheLock>> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        Box::pin(
            async move { on_thread(move |abandoned| lock(Path::new(&name), abandoned)).await? },
        )
    }
}

/// Locks a file, and creates it if it does not exist.
fn lock(path: &Path, abandoned: &Abandoned) -> io::Result<CacheLock> {
    make_private_folder(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let file = options.open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(CacheLock::new(file)),
            Err(fs::TryLockError::WouldBlock) if abandoned.is_set() => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    make_private_folder(folder)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let temporary = folder.join(format!(".{:016x}.tmp", random_seed()));
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // If the temporary file was never created, there is nothing to remove.
        let _nothing_to_do = fs::remove_file(&temporary);
    }
    written
}
