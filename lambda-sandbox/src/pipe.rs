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

/// Drops what is in a pipe but for its last `kept` bytes, without a copy of it; returns how many bytes that was.
#[cfg(target_os = "linux")]
pub(crate) fn drop_all_but(pipe: BorrowedFd<'_>, kept: usize) -> u64 {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::sync::LazyLock;
    static NULL: LazyLock<Option<File>> =
        LazyLock::new(|| File::options().write(true).open("/dev/null").ok());
    let Some(null) = &*NULL else { return 0 };
    let mut there = 0_i32;
    // SAFETY: FIONREAD writes one int to the pointer, which lives for the call; the descriptor is borrowed, so open.
    if unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut there) } < 0 {
        return 0;
    }
    let surplus = usize::try_from(there).unwrap_or(0).saturating_sub(kept);
    if surplus == 0 {
        return 0;
    }
    let (from, to) = (pipe.as_raw_fd(), null.as_raw_fd());
    let nowhere = std::ptr::null_mut();
    // SAFETY: splice takes two open descriptors, and null pointers for the places, as pipes have none and the null device wants none.
    let moved =
        unsafe { libc::splice(from, nowhere, to, nowhere, surplus, libc::SPLICE_F_NONBLOCK) };
    u64::try_from(moved).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn drop_all_but(_pipe: BorrowedFd<'_>, _kept: usize) -> u64 {
    0
}
