//! The attacks. Each is a function that returns whether it succeeded.

#![allow(dead_code, reason = "each test program takes its part of it")]

mod isolation;
mod kernel;
mod leaks;

use std::ffi::CStr;
use std::fs::File;
use std::io::Error;
use std::os::unix::fs::MetadataExt as _;

pub(crate) use self::isolation::ISOLATION;
pub(crate) use self::kernel::KERNEL;
pub(crate) use self::leaks::LEAKS;

/// Returns every attack. Those that look for descriptors come first, because others leave some
/// open.
pub(crate) fn all() -> impl Iterator<Item = &'static Probe> {
    ISOLATION.iter().chain(KERNEL).chain(LEAKS)
}

pub(crate) struct Probe {
    pub(crate) name: &'static str,
    /// Whether it is also tried on the host, where it must succeed. Not for attacks that would
    /// damage the host, nor for features that some kernels lack.
    pub(crate) works_outside: bool,
    /// Returns whether the attack succeeded.
    pub(crate) attack: fn() -> bool,
}

pub(crate) fn call(number: libc::c_long, a: [usize; 5]) -> libc::c_long {
    // SAFETY: the probes below pass numbers, null pointers, or addresses of live memory of theirs.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) }
}

/// As [`call`], for calls with six arguments.
pub(crate) fn call_of_six(number: libc::c_long, a: [usize; 6]) -> libc::c_long {
    // SAFETY: as for `call`.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) }
}

/// Returns whether a call was executed: it succeeded, or failed with none of these errors.
pub(crate) fn reached(number: libc::c_long, a: [usize; 5], refusals: &[i32]) -> bool {
    call(number, a) >= 0 || !errno_is(refusals)
}

/// Sets an option of a new socket. Returns whether the call was executed: it succeeded, or failed
/// with another error than ENOPROTOOPT or EPERM.
pub(crate) fn option_is_set(family: i32, kind: i32, [level, name]: [i32; 2], value: &[u8]) -> bool {
    let socket = call(libc::SYS_socket, [family as usize, kind as usize, 0, 0, 0]);
    let (address, length) = (value.as_ptr().addr(), value.len());
    let [level, name] = [level, name].map(|number| number as usize);
    let set = call(libc::SYS_setsockopt, [socket as usize, level, name, address, length]);
    let through = set == 0 || !errno_is(&[libc::ENOPROTOOPT, libc::EPERM]);
    call(libc::SYS_close, [socket as usize, 0, 0, 0, 0]);
    socket >= 0 && through
}

pub(crate) fn text(text: &CStr) -> usize {
    text.as_ptr().addr()
}

/// Runs `attack` in a process of its own, so that its changes and damage stay there. Returns
/// whether that process ended with success.
pub(crate) fn apart(attack: fn() -> bool) -> bool {
    // SAFETY: the child makes system calls only, and ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let through = attack();
        call(libc::SYS_exit_group, [usize::from(!through), 0, 0, 0, 0]);
    }
    let mut status = 0;
    // SAFETY: `status` lives for the call; `child` is our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

pub(crate) fn can_write(path: &str) -> bool {
    std::fs::OpenOptions::new().write(true).open(path).is_ok()
}

pub(crate) fn can_read(path: &str) -> bool {
    use std::io::Read as _;
    let mut byte = [0];
    File::open(path).and_then(|mut file| file.read(&mut byte)).is_ok_and(|read| read > 0)
}

pub(crate) fn can_make_socket(family: i32, kind: i32, protocol: i32) -> bool {
    let [family, kind, protocol] = [family, kind, protocol].map(|number| number as usize);
    call(libc::SYS_socket, [family, kind, protocol, 0, 0]) >= 0
}

pub(crate) fn has_entries(folder: &str) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Returns whether a control group file system is visible, or a limit can be written.
pub(crate) fn has_control_groups(folder: &str) -> bool {
    const MAGIC: [i64; 2] = [0x0027_E0EB, 0x6367_7270];
    let of = |path: &std::path::Path| {
        nix::sys::statfs::statfs(path).is_ok_and(|it| MAGIC.contains(&it.filesystem_type().0))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries
        .map(|entry| entry.path())
        .any(|path| of(&path) || std::fs::OpenOptions::new().write(true).open(path).is_ok());
    of(folder.as_ref()) || below
}

/// Returns whether the number of control groups of any controller is visible.
pub(crate) fn counts_control_groups() -> bool {
    let text = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(2)).any(|count| count != "1")
}

pub(crate) fn unshare(flag: i32) -> bool {
    call(libc::SYS_unshare, [flag as usize, 0, 0, 0, 0]) == 0
}

pub(crate) fn old_system_call() -> bool {
    let result: i64;
    // SAFETY: getpid by the 32-bit entry reads and writes no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    result > 0
}

macro_rules! probes {
    ($($outside:ident $name:literal $attack:expr;)*) => {
        &[$(Probe { name: $name, works_outside: probes!($outside), attack: $attack }),*]
    };
    (outside) => { true };
    (inside) => { false };
}

pub(crate) fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("proc");
    text.split(' ').next().expect("a word").parse().expect("seconds")
}

pub(crate) fn errno_not_eperm() -> bool {
    Error::last_os_error().raw_os_error() != Some(libc::EPERM)
}

pub(crate) fn errno_is(errors: &[i32]) -> bool {
    Error::last_os_error().raw_os_error().is_some_and(|errno| errors.contains(&errno))
}

pub(crate) fn is_null(path: &str) -> bool {
    let device = |path| std::fs::metadata(path).map(|file| file.rdev()).ok();
    device(path) == device("/dev/null")
}

pub(crate) use probes;
