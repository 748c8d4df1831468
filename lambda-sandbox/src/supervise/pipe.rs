//! Pipes: the outputs of a program on this machine.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::outlet::Outlet;
use crate::{BoxFuture, Error};

/// The host's end of an output pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: Arc<OwnedFd>,
    /// The registration with tokio. It exists only while a task waits, because each write to a
    /// registered pipe wakes the runtime.
    watched: Mutex<Option<Arc<Watched>>>,
}

type Watched = AsyncFd<Arc<OwnedFd>>;

impl Pipe {
    /// Takes the read end. Must be called in a tokio runtime.
    pub(crate) fn new(file: OwnedFd) -> Result<Self, Error> {
        prepare();
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| Error::step("registering the output pipe", errno))?;
        let pipe = Self { file: Arc::new(file), watched: Mutex::default() };
        pipe.watch().map_err(|source| Error::step("registering the output pipe", source))?;
        Ok(pipe)
    }

    fn watch(&self) -> io::Result<Arc<Watched>> {
        let mut watched = self.watched();
        if let Some(watched) = &*watched {
            return Ok(Arc::clone(watched));
        }
        let file = Arc::clone(&self.file);
        // SAFETY: the `Arc` that is passed owns the descriptor. It closes it only when it is
        // dropped, and never changes it.
        let new = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
        let new = Arc::new(new.map_err(io::Error::from)?);
        *watched = Some(Arc::clone(&new));
        Ok(new)
    }

    fn watched(&self) -> MutexGuard<'_, Option<Arc<Watched>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match nix::unistd::read(&self.file, bytes) {
            Err(Errno::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
            read => read.map_err(io::Error::from),
        }
    }
}

impl Outlet for Pipe {
    fn readable(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let watched = self.watch()?;
            watched.readable().await.map(drop)
        })
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let watched = self.watched().clone();
        let blocks = |read: &io::Result<usize>| matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if let Some(watched) = watched {
            // `try_io` clears the readiness if nothing is left, so that the next wait does wait.
            let read = watched.try_io(Interest::READABLE, |_| self.read(bytes));
            if !blocks(&read) {
                return read;
            }
        }
        // Reads directly: tokio may not have been notified yet.
        self.read(bytes)
    }

    fn rest(&self) {
        *self.watched() = None;
    }

    fn try_drop(&self) -> bool {
        drop_all(self.file.as_fd())
    }
}

/// The null device, to which output is dropped; one descriptor for all sandboxes.
#[cfg(target_os = "linux")]
static NULL: std::sync::LazyLock<Option<std::fs::File>> =
    std::sync::LazyLock::new(|| std::fs::File::options().write(true).open("/dev/null").ok());

/// Opens the null device now, so that the host's number of descriptors does not change later.
pub(crate) fn prepare() {
    #[cfg(target_os = "linux")]
    std::sync::LazyLock::force(&NULL);
}

/// Drops the contents of a pipe without copying them. Returns whether there were any.
#[cfg(target_os = "linux")]
fn drop_all(pipe: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd as _;
    const BYTES_MAX: usize = 1 << 20;
    let Some(null) = &*NULL else { return false };
    let (from, to) = (pipe.as_raw_fd(), null.as_raw_fd());
    let nowhere = std::ptr::null_mut();
    // SAFETY: splice takes two open descriptors, and null pointers for the offsets, as pipes have
    // none and the null device needs none.
    let moved =
        unsafe { libc::splice(from, nowhere, to, nowhere, BYTES_MAX, libc::SPLICE_F_NONBLOCK) };
    moved > 0
}

#[cfg(not(target_os = "linux"))]
fn drop_all(_pipe: BorrowedFd<'_>) -> bool {
    false
}

/// Makes an asynchronous writer of the host's end of a program's standard input.
pub(crate) fn input(file: OwnedFd) -> Result<tokio::net::unix::pipe::Sender, Error> {
    tokio::net::unix::pipe::Sender::from_owned_fd(file)
        .map_err(|source| Error::step("registering the input pipe", source))
}
