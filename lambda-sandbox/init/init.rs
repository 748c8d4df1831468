//! Pid 1 of a sandbox: drops privileges, restricts itself, starts the program, reaps processes.
//!
//! A static program of raw system calls, without libc and without allocation. Its descriptors: 0 to
//! 2 for the program, 3 a socket to the host, 4 the system call filters, 5 landlock's ruleset if
//! any, 6 and up those to pass on as 3 and up. Its arguments: `init ID OWNER FLAGS PROGRAM
//! ARGS...`, with the program's environment. `ID` is the sandbox's user outside, `OWNER` the id
//! outside of root inside. Its flags: `u` make a user namespace; `r` it is in one, as an
//! unprivileged user; `l` enforce landlock's ruleset; `o` reset `oom_score_adj`, since the host's
//! is negative; `t` 0 to 2 are the program's controlling terminal; `d` a descriptor to pass on, one
//! `d` for each.
//!
//! What it and the host send each other is in [`protocol`]. Pid 1 ends, and with it the whole
//! sandbox, when a program without the Runtime API has ended, or when the host's end of the socket
//! is closed. It outlives the runtime of a function, because the host may start the function again.
#![no_std]
#![no_main]

mod exec;
mod protocol;
mod start;
mod user;

use core::arch::{asm, global_asm};

use exec::Execs;
use protocol::{
    SAY_EXEC, SAY_EXEC_KILL, SAY_EXTENSIONS, SAY_KILL, SAY_PROGRAM, SAY_RESET, SAY_TERMINATE,
    STEP_CAPABILITIES, STEP_EXTENSION, STEP_FILTER, STEP_KEYRING, STEP_OOM,
    STEP_PARENT_DEATH, STEP_PROGRAM, STEP_RULES, TELL_ENDED,
    TELL_EXTENSION_ENDED, TELL_EXTENSIONS, TELL_FAILED, TELL_RESET,
};
use start::{Program, start};
use user::{UserNamespace, change_user};

global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

/// Fills memory. The compiler generates calls of it, and there is no libc that has it.
///
/// # Safety
///
/// `length` bytes from `target` on may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller allows writing these bytes; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep stosb",
            inout("rdi") target => _,
            inout("rcx") length => _,
            in("al") byte as u8,
            options(nostack, preserves_flags),
        );
    }
    target
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}

const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const POLL: usize = 7;
const SIGACTION: usize = 13;
const SCHED_YIELD: usize = 24;
const SIGPROCMASK: usize = 14;
const KILL: usize = 62;
const GETDENTS: usize = 217;
const SIGNALFD: usize = 289;
const EXIT: usize = 231;
const WAIT4: usize = 61;
const FCNTL: usize = 72;
const UMASK: usize = 95;
const CAPSET: usize = 126;
const PERSONALITY: usize = 135;
const PRCTL: usize = 157;
const KEYCTL: usize = 250;
const SECCOMP: usize = 317;
const LANDLOCK_RESTRICT_SELF: usize = 446;

const SET_DUMPABLE: usize = 4;
const SOCKET: usize = 3;
const FILTERS: usize = 4;
const RULES: usize = 5;
/// The user namespace, if the host has made it ahead.
const USERS: usize = 6;
/// The first descriptor that is passed on to the program.
const PASSED: usize = 7;

/// The folder of extensions and their maximum number, as in Lambda.
const EXTENSIONS: &[u8] = b"/opt/extensions/";
const EXTENSIONS_MAX: usize = 10;
const SIGCHLD: u64 = 17;

fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: a system call changes no memory of ours but what its pointers name; each caller
    // passes pointers to live memory of the size that the call reads or writes. rcx and r11 are
    // named as lost.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

fn exit(status: usize) -> ! {
    loop {
        call(EXIT, status, 0, 0, 0, 0);
    }
}

fn tell(kind: u32, step: u32, value: u32) {
    tell_by(SOCKET, kind, step, value);
}

fn tell_by(socket: usize, kind: u32, step: u32, value: u32) {
    let message = [kind, step, value];
    call(WRITE, socket, message.as_ptr() as usize, 12, 0, 0);
}

fn fail(step: u32, result: isize) -> ! {
    tell(TELL_FAILED, step, result.unsigned_abs() as u32);
    exit(126)
}

fn must(step: u32, result: isize) -> usize {
    if result < 0 { fail(step, result) } else { result as usize }
}

/// Parses a decimal number at the start of a C string.
fn number(mut text: *const u8) -> usize {
    let mut value = 0_usize;
    loop {
        // SAFETY: `text` walks over a C string that the kernel put on the stack, up to its NUL.
        let byte = unsafe { *text };
        if !byte.is_ascii_digit() {
            return value;
        }
        value = value * 10 + usize::from(byte - b'0');
        text = text.wrapping_add(1);
    }
}

/// Counts the occurrences of a letter in a C string.
fn count_of(mut text: *const u8, wanted: u8) -> usize {
    let mut count = 0;
    loop {
        // SAFETY: `text` walks over a C string that the kernel put on the stack, up to its NUL.
        match unsafe { *text } {
            0 => return count,
            byte => count += usize::from(byte == wanted),
        }
        text = text.wrapping_add(1);
    }
}

fn has(mut text: *const u8, wanted: u8) -> bool {
    loop {
        // SAFETY: `text` walks over a C string that the kernel put on the stack, up to its NUL.
        match unsafe { *text } {
            0 => return false,
            byte if byte == wanted => return true,
            _ => text = text.wrapping_add(1),
        }
    }
}

fn give_up_capabilities() {
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0_u32; 6];
    let result = call(CAPSET, header.as_ptr() as usize, none.as_ptr() as usize, 0, 0, 0);
    must(STEP_CAPABILITIES, result);
    // Processes inside must not trace pid 1 or read its memory.
    must(STEP_CAPABILITIES, call(PRCTL, SET_DUMPABLE, 0, 0, 0, 0));
}

fn drop_bounding() {
    const CAPBSET_DROP: usize = 24;
    for capability in 0..64 {
        if call(PRCTL, CAPBSET_DROP, capability, 0, 0, 0) < 0 {
            break;
        }
    }
}

/// Loads the filters of descriptor 4: each a count in 8 bytes and instructions of 8 bytes.
fn load_filters() {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: usize,
    }
    const BYTES: usize = 32_768;
    const PREAD: usize = 17;
    // Not zeroed: only the bytes that the kernel has written are read.
    let buffer = core::mem::MaybeUninit::<[u64; BYTES / 8]>::uninit();
    let address = buffer.as_ptr() as usize;
    let length = must(STEP_FILTER, call(PREAD, FILTERS, address, BYTES, 0, 0));
    call(CLOSE, FILTERS, 0, 0, 0, 0);
    let mut at = 0;
    while at + 8 <= length {
        // SAFETY: the eight bytes are aligned, within the `length` bytes that the kernel wrote.
        let count = unsafe { *((address + at) as *const u64) } as usize;
        if count > BYTES || at + 8 + count * 8 > length {
            fail(STEP_FILTER, -22);
        }
        let program = Program { length: count as u16, instructions: address + at + 8 };
        const SET_MODE_FILTER: usize = 1;
        let result = call(SECCOMP, SET_MODE_FILTER, 0, &raw const program as usize, 0, 0);
        must(STEP_FILTER, result);
        at += 8 + count * 8;
    }
}

/// Resets every signal to its default. Else a host's ignored signals (SIGPIPE) would be inherited.
fn default_signals() {
    const SIGNALS: usize = 64;
    // The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is the default.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        // Fails for SIGKILL and SIGSTOP, which cannot be ignored.
        call(SIGACTION, signal, &raw const default as usize, 0, 8, 0);
    }
}

/// Resets other inherited attributes: umask, personality and, if `spared`, `oom_score_adj`.
fn forget_host(spared: bool) {
    const USUAL: usize = 0o022;
    call(UMASK, USUAL, 0, 0, 0, 0);
    call(PERSONALITY, 0, 0, 0, 0, 0);
    if spared {
        let path = b"/proc/self/oom_score_adj\0";
        let file = must(STEP_OOM, call(OPEN, path.as_ptr() as usize, 1, 0, 0, 0));
        must(STEP_OOM, call(WRITE, file, b"0".as_ptr() as usize, 1, 0, 0));
        call(CLOSE, file, 0, 0, 0, 0);
    }
}

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts the number of arguments at the top of the stack.
    let count = unsafe { *stack };
    let arguments = stack.wrapping_add(1);
    if count < 5 {
        exit(124);
    }
    // SAFETY: there are at least five arguments, so this one is a C string of the kernel's.
    let id = number(unsafe { *arguments.add(1) } as *const u8);
    // SAFETY: as above.
    let owner = number(unsafe { *arguments.add(2) } as *const u8);
    // SAFETY: as above.
    let flags = unsafe { *arguments.add(3) } as *const u8;
    let program_arguments = arguments.wrapping_add(4);
    // SAFETY: the fifth argument is there.
    let program = unsafe { *program_arguments };
    let environment = arguments.wrapping_add(count + 1);

    default_signals();
    forget_host(has(flags, b'o'));
    const SET_PDEATHSIG: usize = 1;
    const JOIN_SESSION_KEYRING: usize = 1;
    const ENOSYS: isize = -38;
    const SET_NO_NEW_PRIVS: usize = 38;
    if !has(flags, b'r') {
        let namespace = match () {
            () if has(flags, b'U') => UserNamespace::Ahead,
            () if has(flags, b'u') => UserNamespace::Own { owner },
            () => UserNamespace::None,
        };
        change_user(id, namespace);
    }
    give_up_capabilities();
    let keyring = call(KEYCTL, JOIN_SESSION_KEYRING, 0, 0, 0, 0);
    if keyring != ENOSYS {
        must(STEP_KEYRING, keyring);
    }
    must(STEP_PARENT_DEATH, call(PRCTL, SET_PDEATHSIG, 9, 0, 0, 0));
    must(STEP_FILTER, call(PRCTL, SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if has(flags, b'l') {
        must(STEP_RULES, call(LANDLOCK_RESTRICT_SELF, RULES, 0, 0, 0, 0));
        call(CLOSE, RULES, 0, 0, 0, 0);
    }
    load_filters();
    const SETFD: usize = 2;
    call(FCNTL, SOCKET, SETFD, 1, 0, 0);

    // A signalfd reports ended children, so that one poll waits for them and for the host.
    let ends = 1_u64 << (SIGCHLD - 1);
    let mask = &raw const ends as usize;
    must(STEP_PROGRAM, call(SIGPROCMASK, 0, mask, 0, 8, 0));
    const CLOEXEC: usize = 0o2_000_000;
    let signals = must(STEP_PROGRAM, call(SIGNALFD, usize::MAX, mask, 8, CLOEXEC, 0));
    let mut life = Life {
        program,
        arguments: program_arguments as usize,
        environment: environment as usize,
        signals,
        passed: count_of(flags, b'd'),
        terminal: has(flags, b't'),
        function: false,
        outputs: None,
        runs: 0,
        extensions: [0; EXTENSIONS_MAX],
        count: 0,
        execs: Execs::NONE,
    };
    life.live()
}

/// Waits for a message of the host. Returns its number of descriptors, or `None` at the end.
fn hear(word: &mut [u8; 8], files: &mut [u32; exec::FILES]) -> Option<usize> {
    const RECVMSG: usize = 47;
    const CLOSE_ON_EXEC: usize = 0x4000_0000;
    const HEADER: usize = 16;
    let part = [word.as_mut_ptr() as usize, word.len()];
    // `struct cmsghdr`: length in 8 bytes, level and type in 4 each; then descriptors of 4 bytes.
    let mut control = [0_u64; 2 + exec::FILES / 2];
    let (place, size) = (control.as_mut_ptr() as usize, size_of_val(&control));
    let mut message = [0, 0, part.as_ptr() as usize, 1, place, size, 0];
    let address = message.as_mut_ptr() as usize;
    if call(RECVMSG, SOCKET, address, CLOSE_ON_EXEC, 0, 0) <= 0 {
        return None;
    }
    let came = (control[0] as usize).saturating_sub(HEADER) / 4;
    for (number, file) in files.iter_mut().enumerate() {
        *file = (control[2 + number / 2] >> (32 * (number % 2))) as u32;
    }
    Some(if message[5] < HEADER { 0 } else { came })
}

/// The state of the running sandbox.
struct Life {
    program: usize,
    arguments: usize,
    environment: usize,
    signals: usize,
    /// The number of descriptors passed on to the program.
    passed: usize,
    /// Whether the standard streams are a terminal that controls the program.
    terminal: bool,
    /// Whether the program is the runtime of a function, which may be started again.
    function: bool,
    /// The standard streams of extensions; `None` for those of pid 1.
    outputs: Option<[u32; 3]>,
    /// The program's pid; 0 while it does not run.
    runs: usize,
    extensions: [usize; EXTENSIONS_MAX],
    count: usize,
    execs: Execs,
}

impl Life {
    fn live(&mut self) -> ! {
        // `struct pollfd`: the descriptor; requested and returned events in 2 bytes each; 1 is
        // POLLIN.
        let mut polled = [[SOCKET as u32, 1], [self.signals as u32, 1]];
        loop {
            // The kernel writes the returned events into the upper half.
            polled[0][1] = 1;
            polled[1][1] = 1;
            call(POLL, polled.as_mut_ptr() as usize, 2, usize::MAX, 0, 0);
            if polled[0][1] >> 16 != 0 {
                self.listen();
            }
            if polled[1][1] >> 16 != 0 {
                self.reap();
            }
        }
    }

    fn listen(&mut self) {
        let mut word = [0_u8; 8];
        let mut files = [0_u32; exec::FILES];
        let Some(count) = hear(&mut word, &mut files) else { exit(0) };
        let number = u32::from_ne_bytes([word[4], word[5], word[6], word[7]]);
        match word[0] {
            SAY_EXTENSIONS => {
                self.function = true;
                if count == 2 {
                    self.outputs = Some([0, files[0], files[1]]);
                }
                self.start_extensions();
                tell(TELL_EXTENSIONS, self.count as u32, 0);
                if self.count == 0 {
                    self.start_program();
                }
            }
            SAY_PROGRAM => self.start_program(),
            SAY_TERMINATE => self.signal(15),
            SAY_KILL => self.signal(9),
            SAY_RESET => self.reset(),
            SAY_EXEC if count == exec::FILES => self.execs.begin(number, &files),
            SAY_EXEC_KILL => self.execs.kill(number),
            _ => {}
        }
    }

    /// Ends every process but this one. Descriptors 0 to 2 stay open for the next start.
    fn reset(&mut self) {
        // Of pid 1, -1 names every other process of its namespace (kill(2)).
        const ALL: usize = usize::MAX;
        call(KILL, ALL, 9, 0, 0, 0);
        loop {
            let mut status = 0_u32;
            let ended = call(WAIT4, usize::MAX, &raw mut status as usize, 0, 0, 0);
            if ended <= 0 {
                break;
            }
            self.execs.ended(ended as usize, status);
        }
        self.runs = 0;
        self.count = 0;
        self.extensions = [0; EXTENSIONS_MAX];
        tell(TELL_RESET, 0, 0);
    }

    fn signal(&self, signal: usize) {
        if self.runs != 0 {
            call(KILL, self.runs, signal, 0, 0, 0);
        }
    }

    fn start_program(&mut self) {
        let started = start(&Program {
            step: STEP_PROGRAM,
            number: 0,
            program: self.program,
            arguments: self.arguments,
            environment: self.environment,
            folder: 0,
            streams: None,
            passed: self.passed,
            terminal: self.terminal,
        });
        self.runs = must(STEP_PROGRAM, started);
        for number in 0..self.passed {
            call(CLOSE, PASSED + number, 0, 0, 0, 0);
        }
    }

    /// Starts each file in the folder. A file that cannot be executed is an error, as in Lambda.
    fn start_extensions(&mut self) {
        const DIRECTORY: usize = 0o2_200_000;
        const ENOENT: isize = -2;
        const NAME_AT: usize = 19;
        const KIND_AT: usize = 18;
        const KIND_FOLDER: u8 = 4;
        const E2BIG: isize = -7;
        let mut path = [0_u8; EXTENSIONS.len() + 256];
        for (place, byte) in path.iter_mut().zip(EXTENSIONS) {
            *place = *byte;
        }
        let folder = call(OPEN, path.as_ptr() as usize, DIRECTORY, 0, 0, 0);
        if folder == ENOENT {
            return;
        }
        let folder = must(STEP_EXTENSION, folder);
        let mut entries = [0_u8; 4096];
        loop {
            let size = entries.len();
            let read = call(GETDENTS, folder, entries.as_mut_ptr() as usize, size, 0, 0);
            let mut rest = entries.get(..must(STEP_EXTENSION, read)).unwrap_or(&[]);
            if rest.is_empty() {
                break;
            }
            // `struct linux_dirent64`: 16 bytes, the length in 2, the type in 1, the name and a
            // NUL.
            while let (Some(kind), Some(name)) = (rest.get(KIND_AT), rest.get(NAME_AT..)) {
                if *kind != KIND_FOLDER && !name.starts_with(b".") {
                    if self.count == EXTENSIONS_MAX {
                        fail(STEP_EXTENSION, E2BIG);
                    }
                    for (place, byte) in path.iter_mut().skip(EXTENSIONS.len()).zip(name) {
                        *place = *byte;
                        if *byte == 0 {
                            break;
                        }
                    }
                    let arguments = [path.as_ptr() as usize, 0];
                    let address = arguments.as_ptr() as usize;
                    let started = start(&Program {
                        step: STEP_EXTENSION,
                        number: 0,
                        program: arguments[0],
                        arguments: address,
                        environment: self.environment,
                        folder: 0,
                        streams: self.outputs,
                        passed: 0,
                        terminal: false,
                    });
                    let pid = must(STEP_EXTENSION, started);
                    if let Some(place) = self.extensions.get_mut(self.count) {
                        *place = pid;
                    }
                    self.count += 1;
                }
                let length = match (rest.get(16), rest.get(17)) {
                    (Some(low), Some(high)) => usize::from(*low) | usize::from(*high) << 8,
                    _ => 0,
                };
                // A length of 0 must not make the loop endless.
                rest = rest.get(length.max(1)..).unwrap_or(&[]);
            }
        }
        call(CLOSE, folder, 0, 0, 0, 0);
    }

    fn reap(&mut self) {
        let mut told = [0_u64; 16];
        call(READ, self.signals, told.as_mut_ptr() as usize, 128, 0, 0);
        const NO_HANG: usize = 1;
        loop {
            let mut status = 0_u32;
            let ended = call(WAIT4, usize::MAX, &raw mut status as usize, NO_HANG, 0, 0);
            if ended <= 0 {
                return;
            }
            let ended = ended as usize;
            if ended == self.runs {
                self.runs = 0;
                tell(TELL_ENDED, 0, status);
                // Lets a waiting host run first on this processor: the end of pid 1 takes longer.
                call(SCHED_YIELD, 0, 0, 0, 0, 0);
                if !self.function {
                    // The kernel kills the rest of the pid namespace with its pid 1.
                    exit(0);
                }
            }
            let number = self.extensions.iter().position(|pid| *pid == ended);
            if let Some(number) = number {
                tell(TELL_EXTENSION_ENDED, number as u32, status);
            }
            self.execs.ended(ended, status);
        }
    }
}
