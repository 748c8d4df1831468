//! Starts a sandbox's init without forking the host: the new process borrows the host's memory until it executes.
//!
//! The cost of a fork grows with the host's memory (24.8 ms at 1 GiB were measured), of this it does not. The price:
//! until exec the new process must not allocate, take a lock or return, and the host's thread stands still.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::arch::asm;
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

use super::carry::{call, carry_out, failure};
use super::plan::Step;
use crate::Error;

/// Everything that a new process needs, made beforehand.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) steps: Vec<Step>,
    /// The init's arguments, whose tail is the program's.
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// What the new process has as descriptors 0, 1, ...; each is 16 or more here.
    pub(super) given: [OwnedFd; 5],
    /// The init's program.
    pub(super) init: RawFd,
    /// Whether it starts in user, network and mount namespaces of its own, and enters none.
    pub(super) rootless: bool,
    /// The v2 group to start in.
    pub(super) group: Option<OwnedFd>,
}

/// A thread that starts processes, and lives as long as any of them: the kernel kills a sandbox's init when the
/// thread that started it ends, so it must not be one of a pool.
#[derive(Debug)]
pub(super) struct Spawner {
    jobs: Sender<(Start, oneshot::Sender<Result<OwnedFd, Error>>)>,
}

impl Spawner {
    pub(super) fn start() -> Result<Self, Error> {
        let (jobs, queue) = channel::<(Start, oneshot::Sender<Result<OwnedFd, Error>>)>();
        std::thread::Builder::new()
            .name("sandbox-spawn".into())
            .spawn(move || {
                for (start, reply) in queue {
                    // Who asked may have gone with the runtime: the init is nobody's then.
                    if let Err(Ok(pidfd)) = reply.send(start.run()) {
                        super::sys::kill(pidfd.as_fd());
                        super::sys::wait_ended(pidfd.as_fd());
                        super::sys::reap(pidfd.as_raw_fd());
                    }
                }
            })
            .map_err(|source| Error::step("starting the spawn thread", source))?;
        Ok(Self { jobs })
    }

    /// Starts a process and returns its pidfd.
    pub(super) async fn spawn(&self, start: Start) -> Result<OwnedFd, Error> {
        let (reply, started) = oneshot::channel();
        self.jobs.send((start, reply)).map_err(|_thread_gone| Error::Ended)?;
        started.await.map_err(|_thread_gone| Error::Ended)?
    }
}

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

const OWN_EVERYTHING: u64 =
    (libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS).cast_unsigned() as u64;

const fn flags() -> u64 {
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_PIDFD
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    flags.cast_unsigned() as u64 | CLONE_CLEAR_SIGHAND
}

/// What the new process reads, and where it writes why it could not go on: both live in the host's memory.
struct Child<'a> {
    steps: &'a [Step],
    arguments: &'a [*const c_char],
    environment: &'a [*const c_char],
    given: [RawFd; 5],
    rules: bool,
    init: RawFd,
    failed: usize,
    errno: i32,
}

/// Steps that have no entry in the list, numbered after those that have.
const STEP_DESCRIPTORS: usize = usize::MAX - 1;
const STEP_EXECUTE: usize = usize::MAX;

impl Start {
    fn run(self) -> Result<OwnedFd, Error> {
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let mut child = Child {
            steps: &self.steps,
            arguments: &arguments,
            environment: &environment,
            given: self.given.each_ref().map(|file| file.as_raw_fd()),
            rules: self.steps.iter().any(|step| matches!(step, Step::Rules { .. })),
            init: self.init,
            failed: 0,
            errno: 0,
        };
        let mut pidfd: RawFd = -1;
        let mut arguments = CloneArgs {
            flags: flags(),
            pidfd: (&raw mut pidfd).addr() as u64,
            ..CloneArgs::default()
        };
        if self.rootless {
            arguments.flags |= OWN_EVERYTHING;
        }
        if let Some(group) = &self.group {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
        }
        let blocked = nix::sys::signal::SigSet::all()
            .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
            .map_err(|errno| Error::step("blocking signals", errno))?;
        // SAFETY: all signals are blocked on this thread, so no handler runs in the child on our memory; `child`
        // and what it points to outlive the call, as the thread stands still until the child has executed or
        // ended; `arguments` is a whole `clone_args`.
        let result = unsafe { clone_vfork(&arguments, &mut child) };
        let restored = blocked.thread_set_mask();
        if result < 0 {
            let errno = i32::try_from(-result).unwrap_or(libc::EINVAL);
            let source = io::Error::from_raw_os_error(errno);
            return Err(Error::step("making a process", source));
        }
        // SAFETY: clone3 succeeded with CLONE_PIDFD, so it has put a new descriptor into `pidfd`.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        restored.map_err(|errno| Error::step("restoring signals", errno))?;
        if child.errno == 0 {
            return Ok(pidfd);
        }
        super::sys::wait_ended(pidfd.as_fd());
        super::sys::reap(pidfd.as_raw_fd());
        Err(self.error(child.failed, child.errno))
    }

    fn error(&self, failed: usize, errno: i32) -> Error {
        let source = io::Error::from_raw_os_error(errno);
        match self.steps.get(failed) {
            Some(step) => failure(step, source),
            None if failed == STEP_DESCRIPTORS => Error::step("arranging descriptors", source),
            None => Error::step("starting the sandbox's init", source),
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    pointers.push(std::ptr::null());
    pointers
}

/// Makes a process that shares our memory, on our stack, and runs [`in_child`] in it. Returns the system call's
/// result in the parent, once the child has executed or ended.
///
/// # Safety
///
/// All signals are blocked; `arguments` asks for CLONE_VM and CLONE_VFORK and no stack; `child` is valid.
#[inline(never)]
unsafe fn clone_vfork(arguments: &CloneArgs, child: &mut Child<'_>) -> isize {
    let result: isize;
    // SAFETY: in the parent the block is one system call. The child starts behind it with the same registers and
    // stack pointer, calls `in_child`, which never returns, and so writes only below the stack pointer: there is
    // nothing of the parent's there (no red zone, as the block is not `nostack`). The parent stands still
    // meanwhile, its registers kept by the kernel. The call is aligned as the ABI asks at the start of a block.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call {in_child}",
            "ud2",
            "2:",
            in_child = sym in_child,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") child,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Runs in the new process: the steps, the descriptors, exec. Allocates nothing, takes no lock, never returns.
extern "C" fn in_child(child: &mut Child<'_>) -> ! {
    for (number, step) in child.steps.iter().enumerate() {
        if carry_out(step) < 0 {
            give_up(child, number);
        }
    }
    for (number, file) in (0..).zip(child.given) {
        if call(libc::SYS_dup3, [file as usize, number, 0, 0, 0]) < 0 {
            give_up(child, STEP_DESCRIPTORS);
        }
    }
    let cloexec = libc::CLOSE_RANGE_CLOEXEC as usize;
    let kept = child.given.len() + usize::from(child.rules);
    let others = [kept, u32::MAX as usize, cloexec, 0, 0];
    let no_signals = 0_u64;
    let mask = (&raw const no_signals).addr();
    let unblock = [libc::SIG_SETMASK as usize, mask, 0, 8, 0];
    if call(libc::SYS_close_range, others) < 0 || call(libc::SYS_rt_sigprocmask, unblock) < 0 {
        give_up(child, STEP_DESCRIPTORS);
    }
    let init = [
        child.init as usize,
        c"".as_ptr().addr(),
        child.arguments.as_ptr().addr(),
        child.environment.as_ptr().addr(),
        libc::AT_EMPTY_PATH as usize,
    ];
    call(libc::SYS_execveat, init);
    give_up(child, STEP_EXECUTE)
}

fn give_up(child: &mut Child<'_>, failed: usize) -> ! {
    child.failed = failed;
    child.errno = nix::errno::Errno::last_raw();
    loop {
        call(libc::SYS_exit_group, [1, 0, 0, 0, 0]);
    }
}
