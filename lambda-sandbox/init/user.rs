//! The sandbox's user, in a user namespace of its own.

use core::arch::asm;

use crate::protocol::{STEP_ID_MAP, STEP_USER, STEP_USER_NAMESPACE};
use crate::{CLOSE, KILL, OPEN, USERS, WAIT4, WRITE, call, drop_bounding, must};

const CLONE_NEWUSER: usize = 0x1000_0000;
const SETGROUPS: usize = 116;
const SETRESUID: usize = 117;
const SETRESGID: usize = 119;

/// Text of at most 64 bytes, put together without allocation.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }

    fn with(mut self, part: &[u8]) -> Self {
        for byte in part {
            if let Some(place) = self.bytes.get_mut(self.length) {
                // Volatile, so that the compiler makes no call of `memcpy` of the loop.
                // SAFETY: the reference is to a byte of ours.
                unsafe { (place as *mut u8).write_volatile(*byte) };
                self.length += 1;
            }
        }
        self
    }

    fn number(self, value: usize) -> Self {
        let (mut digits, mut at, mut rest) = ([0_u8; 20], 20, value);
        while at > 0 {
            at -= 1;
            if let Some(place) = digits.get_mut(at) {
                *place = b'0' + (rest % 10) as u8;
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.with(digits.get(at..).unwrap_or(&[]))
    }
}

fn write_file(path: &[u8], content: &[u8]) {
    let file = must(STEP_ID_MAP, call(OPEN, path.as_ptr() as usize, 1, 0, 0, 0));
    must(STEP_ID_MAP, call(WRITE, file, content.as_ptr() as usize, content.len(), 0, 0));
    call(CLOSE, file, 0, 0, 0, 0);
}

/// The user namespace that the init enters. Inside, user 1000 is the sandbox's user.
#[derive(Clone, Copy)]
pub(crate) enum UserNamespace {
    /// None: the sandbox's user has its number of outside.
    None,
    /// One that the host has made and passed on at [`USERS`].
    Ahead,
    /// One that the init makes, in which root is `owner` of outside.
    Own { owner: usize },
}

/// Changes from the host's user to the sandbox's user: `id` outside, 1000 inside. The host's
/// capabilities end with a user namespace; those of the new namespace apply to it only.
pub(crate) fn change_user(id: usize, namespace: UserNamespace) {
    must(STEP_USER, call(SETGROUPS, 0, 0, 0, 0, 0));
    let user = match namespace {
        UserNamespace::None => id,
        UserNamespace::Ahead => {
            enter(USERS);
            1000
        }
        UserNamespace::Own { owner } => {
            enter_own(id, owner);
            1000
        }
    };
    drop_bounding();
    must(STEP_USER, call(SETRESGID, user, user, user, 0, 0));
    must(STEP_USER, call(SETRESUID, user, user, user, 0, 0));
}

/// Enters a new user namespace: user 1000 inside is `id` outside, and root inside is `owner`, an id
/// that no process has and that owns the files shown.
///
/// Two ids can be mapped from outside only. So a process that only waits is made inside, the maps
/// are written for it, this process enters its namespace, and it is killed.
fn enter_own(id: usize, owner: usize) {
    const CLOEXEC: usize = 0o2_000_000;
    const EVERY_CHILD: usize = 0x4000_0000;
    const CLONE_VM: usize = 0x100;
    const EINVAL: isize = -22;
    // Before Linux 6.3 a process in a new time namespace shares its memory with no child.
    let waiting = match clone_waiting(CLONE_VM | CLONE_NEWUSER) {
        EINVAL => clone_waiting(CLONE_NEWUSER),
        made => made,
    };
    let waiting = must(STEP_USER_NAMESPACE, waiting);
    let of = |name: &[u8]| Text::new().with(b"/proc/").number(waiting).with(name);
    let map = Text::new().with(b"0 ").number(owner).with(b" 1\n1000 ").number(id).with(b" 1\n");
    let map = map.bytes.get(..map.length).unwrap_or(&[]);
    write_file(&of(b"/setgroups\0").bytes, b"deny");
    write_file(&of(b"/uid_map\0").bytes, map);
    write_file(&of(b"/gid_map\0").bytes, map);
    let path = of(b"/ns/user\0");
    let path = path.bytes.as_ptr() as usize;
    let namespace = must(STEP_USER_NAMESPACE, call(OPEN, path, CLOEXEC, 0, 0, 0));
    enter(namespace);
    call(KILL, waiting, 9, 0, 0, 0);
    must(STEP_USER_NAMESPACE, call(WAIT4, waiting, 0, EVERY_CHILD, 0, 0));
}

/// Enters the user namespace of a descriptor, and closes the descriptor.
fn enter(namespace: usize) {
    const SETNS: usize = 308;
    must(STEP_USER_NAMESPACE, call(SETNS, namespace, CLONE_NEWUSER, 0, 0, 0));
    call(CLOSE, namespace, 0, 0, 0, 0);
}

/// Makes a process with these flags of clone(2) that waits until it is killed.
fn clone_waiting(flags: usize) -> isize {
    const CLONE: usize = 56;
    const CLONE_FILES: usize = 0x400;
    let result: isize;
    // SAFETY: in this process the block is one system call. The new process has the same memory or
    // a copy of it, and the same registers. It stays in the two instructions after `3:`, and
    // neither reads nor writes memory. Signals have their defaults, so no handler runs in it. rcx
    // and r11 are named as lost.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "3:",
            "mov eax, 34",
            "syscall",
            "jmp 3b",
            "2:",
            inlateout("rax") CLONE as isize => result,
            in("rdi") CLONE_FILES | flags,
            in("rsi") 0, in("rdx") 0, in("r10") 0, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}
