//! System calls that are safe between clone and exec: nothing here allocates or takes a lock.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::ffi::CStr;
use std::os::fd::RawFd;

pub(in crate::linux) const HERE: usize = libc::AT_FDCWD as usize;
pub(in crate::linux) const NULL: RawFd = 16;

/// Makes a system call with up to five arguments. On an error it returns -1 and sets `errno`.
pub(in crate::linux) fn call(number: libc::c_long, a: [usize; 5]) -> libc::c_long {
    // SAFETY: where the call takes a pointer, every caller passes the address of memory that lives
    // for the call: on its stack, in a `Step`, or in the `Start` of the suspended thread. Text is
    // NUL-terminated, and the sizes passed are those of the memory.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) }
}

pub(in crate::linux) fn at(text: &CStr) -> usize {
    text.as_ptr().addr()
}

pub(in crate::linux) fn write_at(
    folder: usize,
    path: &CStr,
    flags: i32,
    mode: u32,
    content: &[u8],
) -> libc::c_long {
    let flags = (flags | libc::O_CLOEXEC) as usize;
    let file = call(libc::SYS_openat, [folder, at(path), flags, mode as usize, 0]);
    if file < 0 {
        return file;
    }
    let file = file as usize;
    let mut rest = content;
    let mut written = 0;
    while !rest.is_empty() && written >= 0 {
        // A full file system writes a part first, and refuses the rest at the next call.
        written = call(libc::SYS_write, [file, rest.as_ptr().addr(), rest.len(), 0, 0]);
        rest = rest.get(written.max(0) as usize..).unwrap_or(&[]);
    }
    close_after(file, written.min(0))
}

/// Closes a file and returns `result`, the result of the work with it. Threads of the host mount
/// roots with the host's descriptor table, so an error must not leak a descriptor. The `errno` of
/// the work stays, because a successful close does not change it.
pub(in crate::linux) fn close_after(file: usize, result: libc::c_long) -> libc::c_long {
    let closed = call(libc::SYS_close, [file, 0, 0, 0, 0]);
    if result < 0 { result } else { closed }
}
