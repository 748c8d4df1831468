//! Pid 1 of a sandbox: becomes nobody, closes the door behind itself, starts the program, reaps.
//!
//! A static program of raw system calls, without libc and without allocation. Started by the host's spawn path with
//! descriptors 0 to 2 for the program, 3 a socket to the host, 4 the system call filters, 5 landlock's rules if any; and the
//! arguments `init ID FLAGS PROGRAM ARGS...`, whose environment is the program's own. FLAGS has `u` for a user namespace that it is to
//! make, `r` for one that it is in already as nobody, `l` for landlock.
//! To the host it sends messages of three numbers: kind (1 failed, 2 ended), then step and errno, or 0 and the wait status.
//! It starts the program when the host sends a byte, and ends when the host's end of the socket is closed.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}

const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const FORK: usize = 57;
const EXECVE: usize = 59;
const EXIT: usize = 231;
const WAIT4: usize = 61;
const FCNTL: usize = 72;
const SETSID: usize = 112;
const SETGROUPS: usize = 116;
const SETRESUID: usize = 117;
const SETRESGID: usize = 119;
const CAPSET: usize = 126;
const PRCTL: usize = 157;
const KEYCTL: usize = 250;
const UNSHARE: usize = 272;
const SECCOMP: usize = 317;
const LANDLOCK_RESTRICT_SELF: usize = 446;

const SET_DUMPABLE: usize = 4;
const SOCKET: usize = 3;
const FILTERS: usize = 4;
const RULES: usize = 5;

/// The steps, in order, as the host names them in its errors.
const STEP_USER: u32 = 1;
const STEP_USER_NAMESPACE: u32 = 2;
const STEP_ID_MAP: u32 = 3;
const STEP_CAPABILITIES: u32 = 4;
const STEP_KEYRING: u32 = 5;
const STEP_PARENT_DEATH: u32 = 6;
const STEP_FILTER: u32 = 7;
const STEP_RULES: u32 = 8;
const STEP_PROGRAM: u32 = 9;

fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: a system call changes no memory of ours but what its pointers name; each caller below passes
    // pointers to live memory of the size that the call reads or writes. rcx and r11 are named as lost.
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
    let message = [kind, step, value];
    call(WRITE, SOCKET, message.as_ptr() as usize, 12, 0, 0);
}

fn fail(step: u32, result: isize) -> ! {
    tell(1, step, result.unsigned_abs() as u32);
    exit(126)
}

fn must(step: u32, result: isize) -> usize {
    if result < 0 { fail(step, result) } else { result as usize }
}

/// Reads a decimal number from a C string.
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

/// Writes `1000 <id> 1`: inside the function is user 1000, outside it is nobody.
fn write_map(path: &[u8], id: usize) {
    let mut line = [0_u8; 32];
    let mut at = line.len();
    let mut put = |byte: u8| {
        at -= 1;
        if let Some(place) = line.get_mut(at) {
            *place = byte;
        }
    };
    put(b'1');
    put(b' ');
    let mut rest = id;
    loop {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for byte in b" 0001" {
        put(*byte);
    }
    let start = at;
    write_file(path, line.as_ptr() as usize + start, 32 - start);
}

fn write_file(path: &[u8], content: usize, length: usize) {
    let file = must(STEP_ID_MAP, call(OPEN, path.as_ptr() as usize, 1, 0, 0, 0));
    must(STEP_ID_MAP, call(WRITE, file, content, length, 0, 0));
    call(CLOSE, file, 0, 0, 0, 0);
}

/// Leaves the host's user for that of the sandbox.
fn change_user(id: usize, user_namespace: bool) {
    const CLONE_NEWUSER: usize = 0x1000_0000;
    must(STEP_USER, call(SETGROUPS, 0, 0, 0, 0, 0));
    must(STEP_USER, call(SETRESGID, id, id, id, 0, 0));
    if user_namespace {
        // Capabilities of the host go here; the new namespace gives new ones, over nothing but itself.
        must(STEP_USER, call(SETRESUID, id, id, id, 0, 0));
        must(STEP_USER, call(PRCTL, SET_DUMPABLE, 1, 0, 0, 0));
        must(STEP_USER_NAMESPACE, call(UNSHARE, CLONE_NEWUSER, 0, 0, 0, 0));
        write_file(b"/proc/self/setgroups\0", b"deny".as_ptr() as usize, 4);
        write_map(b"/proc/self/uid_map\0", id);
        write_map(b"/proc/self/gid_map\0", id);
        drop_bounding();
    } else {
        drop_bounding();
        must(STEP_USER, call(SETRESUID, id, id, id, 0, 0));
    }
}

fn give_up_capabilities() {
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0_u32; 6];
    let result = call(CAPSET, header.as_ptr() as usize, none.as_ptr() as usize, 0, 0, 0);
    must(STEP_CAPABILITIES, result);
    // Nobody inside may look into pid 1.
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

/// Loads the filters from descriptor 4: for each its number of instructions, then these, 8 bytes each.
fn load_filters() {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: usize,
    }
    const BYTES: usize = 32_768;
    const PREAD: usize = 17;
    // Not zeroed: the kernel fills what is read, and nothing else is looked at.
    let buffer = core::mem::MaybeUninit::<[u64; BYTES / 8]>::uninit();
    let address = buffer.as_ptr() as usize;
    let length = must(STEP_FILTER, call(PREAD, FILTERS, address, BYTES, 0, 0));
    call(CLOSE, FILTERS, 0, 0, 0, 0);
    let mut at = 0;
    while at + 8 <= length {
        // SAFETY: the eight bytes lie within the `length` bytes that the kernel has written, and are aligned.
        let count = unsafe { *((address + at) as *const u64) } as usize;
        if count > BYTES || at + 8 + count * 8 > length {
            fail(STEP_FILTER, -22);
        }
        let program = Program {
            length: count as u16,
            instructions: address + at + 8,
        };
        const SET_MODE_FILTER: usize = 1;
        let result = call(SECCOMP, SET_MODE_FILTER, 0, &raw const program as usize, 0, 0);
        must(STEP_FILTER, result);
        at += 8 + count * 8;
    }
}

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts the number of arguments at the top of the stack.
    let count = unsafe { *stack };
    let arguments = stack.wrapping_add(1);
    if count < 4 {
        exit(124);
    }
    // SAFETY: there are at least four arguments, so this one is a C string of the kernel's.
    let id = number(unsafe { *arguments.add(1) } as *const u8);
    // SAFETY: as above.
    let flags = unsafe { *arguments.add(2) } as *const u8;
    let program_arguments = arguments.wrapping_add(3);
    // SAFETY: the fourth argument is there.
    let program = unsafe { *program_arguments };
    let environment = arguments.wrapping_add(count + 1);

    const SET_PDEATHSIG: usize = 1;
    const JOIN_SESSION_KEYRING: usize = 1;
    const ENOSYS: isize = -38;
    const SET_NO_NEW_PRIVS: usize = 38;
    if !has(flags, b'r') {
        change_user(id, has(flags, b'u'));
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

    let mut go = [0_u8; 1];
    if call(READ, SOCKET, go.as_mut_ptr() as usize, 1, 0, 0) != 1 {
        exit(0);
    }
    let child = must(STEP_PROGRAM, call(FORK, 0, 0, 0, 0, 0));
    if child == 0 {
        call(SETSID, 0, 0, 0, 0, 0);
        let result = call(
            EXECVE,
            program,
            program_arguments as usize,
            environment as usize,
            0,
            0,
        );
        fail(STEP_PROGRAM, result);
    }
    // The program's outputs end with the program, not with pid 1.
    for descriptor in 0..3 {
        call(CLOSE, descriptor, 0, 0, 0, 0);
    }
    reap(child)
}

fn reap(child: usize) -> ! {
    let mut status = 0_u32;
    const EINTR: isize = -4;
    loop {
        let ended = call(WAIT4, usize::MAX, &raw mut status as usize, 0, 0, 0);
        if ended == child as isize {
            tell(2, 0, status);
            // The kernel kills what is left in the namespace when its pid 1 ends.
            exit(0);
        }
        if ended < 0 && ended != EINTR {
            exit(123);
        }
    }
}
