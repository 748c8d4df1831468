//! Wrappers of system calls that neither std nor nix offers, one call a function.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use crate::Error;

/// Returns the hard limit of a resource (`RLIMIT_*`).
pub(super) fn hard_limit(resource: u32) -> Result<u64, Error> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one `rlimit` through the pointer, which is to a live one of ours.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if result == 0 {
        Ok(limit.rlim_max)
    } else {
        Err(Error::step("reading a limit", io::Error::last_os_error()))
    }
}

/// Makes a file in memory and seals it, so that nobody can change its content.
pub(super) fn sealed_file(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: memfd_create reads the NUL-terminated name, which the borrow keeps alive.
    let file = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above and nobody else owns it.
    let mut file = unsafe { std::fs::File::from_raw_fd(file) };
    file.write_all(content)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: F_ADD_SEALS takes an int and no pointer; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(file.into()) } else { Err(io::Error::last_os_error()) }
}

/// Copies a descriptor to a number of 16 or more, above the numbers that a new process uses.
pub(super) fn above_given(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an int and no pointer; the descriptor is borrowed, so open.
    let copy = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 16) };
    if copy < 0 {
        let error = io::Error::last_os_error();
        // If the limit of descriptors is 16 or less, the kernel says EINVAL. EMFILE names the
        // cause.
        let none_left = error.raw_os_error() == Some(libc::EINVAL);
        return Err(if none_left { io::Error::from_raw_os_error(libc::EMFILE) } else { error });
    }
    // SAFETY: the descriptor was made above and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Sends SIGKILL to the process of a pidfd, unless it has ended.
pub(super) fn kill(pidfd: BorrowedFd<'_>) {
    // SAFETY: the null pointer asks for the default information; the others are integers.
    let _ended = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
}

/// Reaps the ended process of a pidfd, if nobody has.
pub(super) fn reap(pidfd: RawFd) {
    let id = libc::id_t::try_from(pidfd).unwrap_or_default();
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: waitid accepts a null pointer for the information in Linux; the others are integers.
    let _reaped = unsafe { libc::waitid(libc::P_PIDFD, id, std::ptr::null_mut(), options) };
}

/// Waits, for `limit` at most, until the process of a pidfd has ended. Returns whether it has.
pub(super) fn ends_within(pidfd: BorrowedFd<'_>, limit: std::time::Duration) -> bool {
    let until = std::time::Instant::now() + limit;
    let mut poll = [nix::poll::PollFd::new(pidfd, nix::poll::PollFlags::POLLIN)];
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        // Rounded up, because the kernel counts whole milliseconds.
        let left = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let left = if limit.is_zero() { 0 } else { left };
        match nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(left)) {
            Ok(ended) => return ended > 0,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Asks for the shortest time slice for the calling thread, so that it runs soon after it is woken
/// (sched_setattr(2)). Its children have the default. Kernels before 6.12 ignore it.
pub(super) fn take_short_turns() {
    /// `struct sched_attr`, in its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: 48,
        policy: libc::SCHED_OTHER.cast_unsigned(),
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        nice: 0,
        priority: 0,
        runtime: SHORT_TURN_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: sched_setattr reads the structure, whose size it tells, alive for the call; 0 is the
    // calling thread.
    let _as_usual = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// The shortest time slice that the kernel accepts, in nanoseconds.
const SHORT_TURN_NS: u64 = 100_000;

/// Returns the version of landlock's ABI, or 0 without landlock.
pub(super) fn landlock_abi() -> u32 {
    const VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag landlock_create_ruleset returns the version; it requires the null
    // pointer and the size 0 then, and reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Returns the number of a free loop device. Another process may take it at any time.
pub(super) fn free_loop(control: &std::fs::File) -> io::Result<i32> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument; the descriptor is borrowed, so open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Attaches a file to a loop device, read-only. The kernel detaches it when the device is closed
/// for the last time.
pub(super) fn configure_loop(device: &std::fs::File, file: u32) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const READ_ONLY_AND_AUTOCLEAR: u32 = 1 | 4;
    /// `struct loop_config` (linux/loop.h), whose `loop_info64` is spelled out.
    #[repr(C)]
    struct Configuration {
        file: u32,
        block_size: u32,
        places: [u64; 5],
        number: u32,
        encryption: [u32; 2],
        flags: u32,
        names: [u64; 20],
        init: [u64; 2],
        reserved: [u64; 8],
    }
    let configuration = Configuration {
        file,
        block_size: 0,
        places: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: READ_ONLY_AND_AUTOCLEAR,
        names: [0; 20],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `loop_config` of 304 bytes, which `configuration` is, alive
    // for the call; the descriptors are open.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const configuration) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an extended attribute of an open file.
#[cfg(feature = "oci")]
pub(super) fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (place, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: fsetxattr reads the NUL-terminated name and `length` bytes of the value, both
    // borrowed; the file is open.
    let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), place, length, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Converts a path or text into a C string. Fails if it contains a NUL byte.
pub(in crate::linux) fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_nul| {
        Error::invalid("a path or text", text.to_string_lossy(), "it contains a NUL byte")
    })
}
