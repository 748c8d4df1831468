//! What can be done with a pipe beside reading it: it is watched; on Linux what it holds can be dropped.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a pipe for something to read, until what is returned is dropped.
pub(crate) fn watch(pipe: &Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor is owned by the `Arc` that is handed over, which never closes it before its own end and never
    // changes it.
    let watched = unsafe { AsyncFd::register_with_interest(Arc::clone(pipe), Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Where dropped output goes; one descriptor for all sandboxes.
#[cfg(target_os = "linux")]
static NULL: std::sync::LazyLock<Option<std::fs::File>> =
    std::sync::LazyLock::new(|| std::fs::File::options().write(true).open("/dev/null").ok());

/// Opens what [`drop_all`] needs, so that the host has as many descriptors at any later moment.
pub(crate) fn prepare() {
    #[cfg(target_os = "linux")]
    std::sync::LazyLock::force(&NULL);
}

/// Drops what is in a pipe without a copy of it; returns whether there was anything.
#[cfg(target_os = "linux")]
pub(crate) fn drop_all(pipe: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd as _;
    const BYTES_MAX: usize = 1 << 20;
    let Some(null) = &*NULL else { return false };
    let (from, to) = (pipe.as_raw_fd(), null.as_raw_fd());
    let nowhere = std::ptr::null_mut();
    // SAFETY: splice takes two open descriptors, and null pointers for the places, as pipes have none and the null device wants none.
    let moved =
        unsafe { libc::splice(from, nowhere, to, nowhere, BYTES_MAX, libc::SPLICE_F_NONBLOCK) };
    moved > 0
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn drop_all(_pipe: BorrowedFd<'_>) -> bool {
    false
}
