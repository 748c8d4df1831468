//! Starts a program from pid 1, with the program's own descriptors.

use core::arch::asm;

use crate::protocol::{TELL_EXEC_FAILED, TELL_FAILED};
use crate::{CLOSE, FCNTL, PASSED, SIGCHLD, SIGPROCMASK, SOCKET, call, exit, must, tell_by};

const IOCTL: usize = 16;
const DUP2: usize = 33;
const CLONE: usize = 56;
const CHDIR: usize = 80;
const EXECVE: usize = 59;
const SETSID: usize = 112;
const COPY_CLOSE_ON_EXEC: usize = 1030;
const SET_CONTROLLING_TERMINAL: usize = 0x540E;
/// A descriptor number above all that are given.
const ASIDE: usize = 32;

/// A program to execute in a new process.
pub(crate) struct Program {
    pub(crate) step: u32,
    /// The host's number of the program; 0 for the sandbox's own program and for extensions.
    pub(crate) number: u32,
    pub(crate) program: usize,
    pub(crate) arguments: usize,
    pub(crate) environment: usize,
    /// The address of its working directory; 0 for that of pid 1.
    pub(crate) folder: usize,
    /// Its standard streams; `None` for those of pid 1.
    pub(crate) streams: Option<[u32; 3]>,
    pub(crate) passed: usize,
    pub(crate) terminal: bool,
}

/// Starts a program in a session of its own, and returns its pid or a negative errno. The new
/// process uses our memory until it executes the program, because copying the memory would take
/// longer than everything else here.
pub(crate) fn start(what: &Program) -> isize {
    // CLONE_VM and CLONE_VFORK.
    const BORROWING: usize = 0x100 | 0x4000;
    const EINVAL: isize = -22;
    match clone(BORROWING | SIGCHLD as usize, what) {
        // Older kernels (seen with 6.1) refuse to share memory with a process that enters another
        // time namespace, which the first process made here does.
        EINVAL => clone(SIGCHLD as usize, what),
        child => child,
    }
}

/// Makes a process that executes a program. It uses our memory or a copy of it, according to
/// `flags`.
fn clone(flags: usize, what: &Program) -> isize {
    let child: isize;
    // SAFETY: in the parent the block is one system call. The new process continues after it with
    // the same registers and stack pointer, calls `execute`, which never returns, and so writes
    // only below the stack pointer, where there is nothing of ours (the block is not `nostack`). If
    // it uses our memory, we are suspended until it has executed or ended, and `what` lives as
    // long. No signal handler can run in it: there is none.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call {execute}",
            "ud2",
            "2:",
            execute = sym execute,
            inlateout("rax") CLONE as isize => child,
            in("rdi") flags,
            in("rsi") 0_usize,
            in("rdx") 0_usize,
            in("r10") 0_usize,
            in("r8") 0_usize,
            in("r12") what as *const Program,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    child
}

extern "C" fn execute(what: &Program) -> ! {
    let none = 0_u64;
    const SET: usize = 2;
    call(SIGPROCMASK, SET, &raw const none as usize, 0, 8, 0);
    call(SETSID, 0, 0, 0, 0, 0);
    if what.terminal {
        call(IOCTL, 0, SET_CONTROLLING_TERMINAL, 0, 0, 0);
    }
    // The socket must not be where passed descriptors go. Its copy is closed when the program is
    // executed.
    let socket = if what.passed > 0 {
        let socket = must(what.step, call(FCNTL, SOCKET, COPY_CLOSE_ON_EXEC, ASIDE, 0, 0));
        // Each is moved to a lower number, which the one before has left.
        for number in 0..what.passed {
            must(what.step, call(DUP2, PASSED + number, SOCKET + number, 0, 0, 0));
        }
        for number in what.passed..what.passed + (PASSED - SOCKET) {
            call(CLOSE, SOCKET + number, 0, 0, 0, 0);
        }
        socket
    } else {
        SOCKET
    };
    for (number, file) in what.streams.iter().flatten().enumerate() {
        give_up(what, socket, call(DUP2, *file as usize, number, 0, 0, 0));
    }
    if what.folder != 0 {
        give_up(what, socket, call(CHDIR, what.folder, 0, 0, 0, 0));
    }
    give_up(what, socket, execute_found(what));
    exit(126)
}

/// Executes the program: a path, or a name without a slash, which is looked for in the folders of
/// `PATH` as execvp(3) does. Returns a negative errno.
fn execute_found(what: &Program) -> isize {
    const ENOENT: isize = -2;
    const EACCES: isize = -13;
    const ENOTDIR: isize = -20;
    // SAFETY: the program is a C string, which lives as long as this process.
    let name = unsafe { text(what.program) };
    let execute = |program| call(EXECVE, program, what.arguments, what.environment, 0, 0);
    if name.is_empty() || name.iter().any(|byte| *byte == b'/') {
        return execute(what.program);
    }
    let mut failed = ENOENT;
    for folder in search_path(what.environment).split(|byte| *byte == b':') {
        // PATH_MAX. A folder without a name is the working directory.
        let mut path = [0_u8; 4096];
        let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
        let bytes = folder.iter().chain(slash).chain(name);
        // With the NUL at its end.
        if folder.len() + slash.len() + name.len() >= path.len() {
            continue;
        }
        path.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        match execute(path.as_ptr() as usize) {
            ENOENT | ENOTDIR => {}
            // Another folder may have one that can be executed.
            EACCES => failed = EACCES,
            other => return other,
        }
    }
    failed
}

/// Returns the value of `PATH` in an environment; empty without one.
fn search_path(environment: usize) -> &'static [u8] {
    let mut variable = environment as *const usize;
    loop {
        // SAFETY: the environment is an array of C strings that ends with a null pointer, and
        // `variable` has not passed its end.
        let address = unsafe { *variable };
        if address == 0 {
            return b"";
        }
        // SAFETY: it is a C string, which lives as long as this process.
        if let Some(value) = unsafe { text(address) }.strip_prefix(b"PATH=") {
            return value;
        }
        variable = variable.wrapping_add(1);
    }
}

/// Returns the bytes of the C string at an address, without its NUL.
///
/// # Safety
///
/// There is a C string at the address, and it lives as long as this process.
unsafe fn text(address: usize) -> &'static [u8] {
    let start = address as *const u8;
    let mut length = 0;
    // Volatile, or the compiler makes a call of strlen(3) of it, which is not linked.
    // SAFETY: no byte before this one was the NUL, so this one is part of the string.
    while unsafe { start.add(length).read_volatile() } != 0 {
        length += 1;
    }
    // SAFETY: these bytes were read before, and the caller says that they stay.
    unsafe { core::slice::from_raw_parts(start, length) }
}

/// If `result` is an error, reports it to the host and ends the process.
fn give_up(what: &Program, socket: usize, result: isize) {
    if result >= 0 {
        return;
    }
    let errno = result.unsigned_abs() as u32;
    if what.number == 0 {
        tell_by(socket, TELL_FAILED, what.step, errno);
    } else {
        tell_by(socket, TELL_EXEC_FAILED, what.number, errno);
    }
    exit(126)
}
