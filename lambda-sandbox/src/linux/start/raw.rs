//! System calls as they can be made between clone and exec: nothing here allocates or takes a lock.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::ffi::CStr;
use std::os::fd::RawFd;

pub(in crate::linux) const HERE: usize = libc::AT_FDCWD as usize;
pub(in crate::linux) const NULL: RawFd = 16;

/// Makes a system call with up to five arguments; on an error returns -1 and leaves the cause in `errno`.
pub(in crate::linux) fn call(number: libc::c_long, a: [usize; 5]) -> libc::c_long {
    // SAFETY: every caller in this file passes, where the call takes a pointer, the address of memory that lives
    // in the `Start` of the standing thread or on this stack, NUL-terminated where text is due, of the size told.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) }
}

pub(in crate::linux) fn at(text: &CStr) -> usize {
    text.as_ptr().addr()
}

pub(in crate::linux) fn write_at(
    folder: usize,
    path: &CStr,
    flags: i32,
    content: &[u8],
) -> libc::c_long {
    let flags = (flags | libc::O_CLOEXEC) as usize;
    let file = call(libc::SYS_openat, [folder, at(path), flags, 0o644, 0]);
    if file < 0 {
        return file;
    }
    let file = file as usize;
    let mut rest = content;
    let mut written = 0;
    while !rest.is_empty() && written >= 0 {
        // A file system that fills up takes a part first, and refuses the rest.
        written = call(libc::SYS_write, [file, rest.as_ptr().addr(), rest.len(), 0, 0]);
        rest = rest.get(written.max(0) as usize..).unwrap_or(&[]);
    }
    close_after(file, written.min(0))
}

/// Closes a file and returns what was done with it. A root is mounted by a thread of the host, with the host's descriptors: an
/// error must not leave one behind. That of the work stays in `errno`, which a close that succeeds does not touch.
pub(in crate::linux) fn close_after(file: usize, result: libc::c_long) -> libc::c_long {
    let closed = call(libc::SYS_close, [file, 0, 0, 0, 0]);
    if result < 0 { result } else { closed }
}
