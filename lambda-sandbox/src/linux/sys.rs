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

/// Mounts a block device without attaching it to a folder (fsopen(2), fsmount(2)).
pub(super) fn detached_mount(kind: &CStr, device: &std::path::Path) -> io::Result<OwnedFd> {
    const CLOSE_ON_EXEC: libc::c_uint = 1;
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    let device = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: fsopen reads the NUL-terminated name, alive for the call.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOSE_ON_EXEC) };
    let context = owned(opened)?;
    let configure = |command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let text = |it: Option<&CStr>| it.map_or(std::ptr::null(), CStr::as_ptr);
        let (file, key, value) = (context.as_raw_fd(), text(key), text(value));
        // SAFETY: fsconfig reads the NUL-terminated texts, which live for the call, or null where
        // the command takes none; the descriptor is open.
        let set = unsafe { libc::syscall(libc::SYS_fsconfig, file, command, key, value, 0) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    configure(SET_STRING, Some(c"source"), Some(&device))?;
    // Inode tables that were never written need not be zeroed.
    configure(SET_FLAG, Some(c"noinit_itable"), None)?;
    configure(SET_FLAG, Some(c"nobarrier"), None)?;
    configure(CREATE, None, None)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOATIME;
    let (file, flags) = (context.as_raw_fd(), CLOSE_ON_EXEC);
    // SAFETY: fsmount takes integers only; the descriptor is open.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, file, flags, attributes) })
}

/// Takes the descriptor that a system call has made.
fn owned(made: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(made) {
        // SAFETY: the descriptor was made just now and nobody else owns it.
        Ok(file @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(file) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the mode of a folder that is open without rights (`O_PATH`), such as a detached mount.
pub(super) fn change_mode(folder: BorrowedFd<'_>, mode: libc::mode_t) -> io::Result<()> {
    let (file, here) = (folder.as_raw_fd(), c".");
    // SAFETY: fchmodat reads the NUL-terminated path, alive for the call; the descriptor is open.
    let changed = unsafe { libc::fchmodat(file, here.as_ptr(), mode, 0) };
    if changed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the user and group of a folder that is open without rights (`O_PATH`).
pub(super) fn change_owner(folder: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let (file, here) = (folder.as_raw_fd(), c".");
    // SAFETY: fchownat reads the NUL-terminated path, alive for the call; the descriptor is open.
    let changed = unsafe { libc::fchownat(file, here.as_ptr(), id, id, 0) };
    if changed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Shuts down an ext4 file system if it holds more than a little, so that its end does not write
/// back what nobody will read. If that fails, the end takes longer.
pub(super) fn drop_file_system(mount: BorrowedFd<'_>) {
    /// `EXT4_IOC_SHUTDOWN`, and its mode that writes nothing.
    const SHUT_DOWN: libc::c_ulong = 0x8004_587D;
    const WITHOUT_WRITING: u32 = 2;
    const LITTLE_BLOCKS: u64 = 256;
    let used = nix::sys::statvfs::fstatvfs(mount);
    if used.is_ok_and(|it| it.blocks() - it.blocks_free() < LITTLE_BLOCKS) {
        return;
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: openat reads the NUL-terminated path, alive for the call; the descriptor is open.
    let folder = unsafe { libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags) };
    if let Ok(folder) = owned(folder.into()) {
        let mode = WITHOUT_WRITING;
        // SAFETY: the call reads 4 bytes at `mode`, alive for the call; the descriptor is open.
        unsafe { libc::ioctl(folder.as_raw_fd(), SHUT_DOWN, &raw const mode) };
    }
}

/// Returns the start and the end of the first data in a sparse file from `at` on.
pub(super) fn next_data(file: &std::fs::File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |from: u64, what| {
        let from = libc::off_t::try_from(from).unwrap_or(libc::off_t::MAX);
        // SAFETY: lseek takes integers only; the descriptor is open.
        let found = unsafe { libc::lseek(file.as_raw_fd(), from, what) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    match seek(at, libc::SEEK_DATA) {
        Ok(start) => Ok(Some((start, seek(start, libc::SEEK_HOLE)?))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the number of a free loop device. Another process may take it at any time.
pub(super) fn free_loop(control: &std::fs::File) -> io::Result<i32> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument; the descriptor is borrowed, so open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Attaches a file to a loop device. The kernel detaches it when the device is closed for the last
/// time.
pub(super) fn configure_loop(device: &std::fs::File, file: u32, read_only: bool) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
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
        flags: AUTOCLEAR | if read_only { READ_ONLY } else { 0 },
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

/// Tells whether an open file has an extended attribute.
#[cfg(feature = "oci")]
pub(super) fn has_attribute(file: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: fgetxattr reads the NUL-terminated name, which is borrowed; with a size of 0 it
    // returns the value's length and writes nothing; the file is open.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), nowhere, 0) };
    if length >= 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        // A file system without attributes has no opaque folder.
        error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => {
            Ok(false)
        }
        error => Err(error),
    }
}

/// Converts a path or text into a C string. Fails if it contains a NUL byte.
pub(in crate::linux) fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_nul| {
        Error::invalid("a path or text", text.to_string_lossy(), "it contains a NUL byte")
    })
}
