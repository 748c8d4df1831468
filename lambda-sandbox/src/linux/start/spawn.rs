//! Starts a sandbox's init without a fork of the host: the new process uses the host's memory until
//! it executes the init (clone with CLONE_VM and CLONE_VFORK).
//!
//! The cost of a fork grows with the host's memory (24.8 ms were measured at 1 GiB); the cost of
//! this does not. In return the new process must not allocate, take a lock or return before exec,
//! and the calling thread is suspended until then.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::arch::asm;
use std::collections::VecDeque;
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use crate::Error;
use crate::linux::extras::{ATTACHED_MAX, DESCRIPTORS_MAX};
use crate::linux::start::carry::{carry_out, failure};
use crate::linux::start::clone_args::{CLONE_INTO_CGROUP, CloneArgs, OWN_EVERYTHING};
use crate::linux::start::plan::Step;
use crate::linux::start::processor::{self, Processors};
use crate::linux::start::raw::{NULL, call};

/// Everything that a new process needs. Descriptors are numbers: the caller keeps them open until
/// they are sent to the spawn thread.
#[derive(Debug)]
pub(in crate::linux) struct Start {
    pub(in crate::linux) steps: Steps,
    /// The init's arguments. The program's arguments are the last of them.
    pub(in crate::linux) arguments: Vec<CString>,
    pub(in crate::linux) environment: Vec<CString>,
    /// The program's standard output and standard error, and the init's socket.
    pub(in crate::linux) ends: [RawFd; 3],
    /// The program's standard input, or `None` for `/dev/null`.
    pub(in crate::linux) stdin: Option<RawFd>,
    /// The system call filter, or `None` for that of the default profile.
    pub(in crate::linux) filters: Option<RawFd>,
    /// The sandbox's user namespace, or `None` if the init makes one or enters none.
    pub(in crate::linux) users: Option<RawFd>,
    /// The descriptors that the program gets in addition to its standard streams.
    pub(in crate::linux) passed: Vec<RawFd>,
    /// Whether the process starts in a new ipc namespace.
    pub(in crate::linux) own_ipc: bool,
    /// Whether the process starts in new user, network and mount namespaces, and enters none.
    pub(in crate::linux) rootless: bool,
    /// The control group of version 2 to start in.
    pub(in crate::linux) group: Option<RawFd>,
}

/// The steps, in the order in which they are carried out.
#[derive(Debug)]
pub(in crate::linux) struct Steps {
    /// The steps that may contain descriptors; no other step does.
    pub(in crate::linux) first: Vec<Step>,
    /// The steps that mount `/proc`, shared by all sandboxes of a host.
    pub(in crate::linux) processes: Arc<[Step]>,
    pub(in crate::linux) own: Vec<Step>,
}

impl Steps {
    fn each(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(self.processes.iter()).chain(&self.own)
    }
}

/// The spawn thread: it starts processes, and lives as long as any of them. The kernel kills a
/// sandbox's init when the thread that started it ends (PR_SET_PDEATHSIG), so this thread must not
/// belong to a pool.
///
/// The thread has a descriptor table of its own, which holds only what it was sent for one start. A
/// new process begins with a copy of its parent's table, and the host's table grows with the host's
/// work. The thread cannot wake a task of the host, because that needs a descriptor of the host's.
/// So it reports the end of a job over the init's socket.
#[derive(Debug)]
pub(in crate::linux) struct Spawner {
    turn: Mutex<()>,
    jobs: Jobs,
    /// The socket to the thread. Each message has the descriptors of one job, in the order of
    /// `jobs`, and wakes the thread. Closing the socket ends the thread.
    socket: OwnedFd,
    waiting: Semaphore,
}

type Jobs = Arc<Mutex<VecDeque<Job>>>;

#[derive(Debug)]
struct Job {
    start: Start,
    /// The descriptors that were sent for the job, by their numbers in the host.
    sent: Vec<RawFd>,
    answer: Answer,
}

/// The result of a job; `None` until the thread has stored it.
type Answer = Arc<Mutex<Option<Result<Process, Error>>>>;

/// The message by which the thread reports that an answer is stored. The init never sends it.
const NOTHING: [u8; 12] = [0; 12];
/// The index of the init's socket in [`Start::ends`].
const SOCKET_END: usize = 2;
/// The most jobs that wait for the thread. The socket's buffer has room for as many.
const WAITING_MAX: usize = 64;
/// The most descriptors of one start.
const SENT_MAX: usize = 17 + ATTACHED_MAX + DESCRIPTORS_MAX + 2;

/// The number of a started process. On drop the process is killed and reaped;
/// [`Process::take_over`] prevents that.
///
/// The number cannot be reused before the process is reaped. As the process has no exit signal,
/// only a wait for this very process reaps it.
#[derive(Debug)]
struct Process(libc::pid_t);

impl Process {
    fn take_over(self) -> Result<OwnedFd, Error> {
        // SAFETY: pidfd_open takes two numbers and no pointer.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.0, 0) };
        let pidfd = i32::try_from(pidfd).unwrap_or(-1);
        if pidfd < 0 {
            return Err(Error::step("watching the sandbox's init", io::Error::last_os_error()));
        }
        std::mem::forget(self);
        // SAFETY: the descriptor was made above and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: kill takes two numbers and no pointer; the process is not reaped, so the number
        // is still its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: waitpid accepts a null pointer for the status.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) };
    }
}

impl Spawner {
    /// Starts the thread. `init` is the init's program, `filters` the default filter.
    pub(in crate::linux) fn start(init: &OwnedFd, filters: &OwnedFd) -> Result<Self, Error> {
        let failed =
            |errno: nix::errno::Errno| Error::step("making the spawn thread's socket", errno);
        let (socket, inside) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(failed)?;
        let null = std::fs::File::open("/dev/null")
            .map_err(|source| Error::failed("opening a device", "/dev/null", source))?;
        let jobs = Jobs::default();
        let queue = Arc::clone(&jobs);
        let (reply, alone) = channel();
        let own = [inside.as_raw_fd(), null.as_raw_fd(), filters.as_raw_fd(), init.as_raw_fd()];
        std::thread::Builder::new()
            .name("sandbox-spawn".into())
            .spawn(move || {
                crate::linux::sys::take_short_turns();
                let own = own_table(own);
                let (own, told) = match own {
                    Ok(own) => (Some(own), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                drop(reply.send(told));
                if let Some(socket) = own {
                    serve(&socket, &queue);
                }
            })
            .map_err(|source| Error::step("starting the spawn thread", source))?;
        // From now on the thread has copies of the descriptors in its own table.
        alone.recv().unwrap_or(Err(Error::Ended))?;
        drop((inside, null));
        Ok(Self { turn: Mutex::default(), jobs, socket, waiting: Semaphore::new(WAITING_MAX) })
    }

    /// Starts a process and returns its pidfd. `held` owns the descriptors of `start`; `socket` is
    /// the host's end of the init's socket.
    pub(in crate::linux) async fn spawn<T>(
        &self,
        start: Start,
        held: T,
        socket: &Arc<OwnedFd>,
    ) -> Result<OwnedFd, Error> {
        let answer = Answer::default();
        let _turn = self.waiting.acquire().await.map_err(|_closed| Error::Ended)?;
        // SAFETY: the `Arc` that is passed owns the descriptor. It closes it only when it is
        // dropped, and never changes it.
        let watched =
            unsafe { AsyncFd::register_with_interest(Arc::clone(socket), Interest::READABLE) };
        let watched =
            watched.map_err(|error| Error::step("watching the init", io::Error::from(error)))?;
        self.send(start, Arc::clone(&answer))?;
        // The sent message keeps them open. The host must close its copies: the end of the thread
        // shows only when all copies of the init's end are closed.
        drop(held);
        loop {
            let mut ready = (watched.readable().await)
                .map_err(|source| Error::step("watching the init", source))?;
            ready.clear_ready();
            let said = lock(&answer).take();
            if let Some(said) = said {
                return said?.take_over();
            }
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            match recv(socket.as_raw_fd(), &mut [0], flags) {
                Ok(1..) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                _ => return Err(cause(&answer).await),
            }
        }
    }

    fn send(&self, start: Start, answer: Answer) -> Result<(), Error> {
        let mut sent = Vec::with_capacity(SENT_MAX);
        start.each(|file| sent.push(file));
        let part = [io::IoSlice::new(b"j")];
        let rights = [ControlMessage::ScmRights(&sent.clone())];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // Under one lock, so that the messages with descriptors have the order of the jobs, and a
        // job is queued before its message arrives. The thread does not take this lock.
        let _turn = lock(&self.turn);
        lock(&self.jobs).push_back(Job { start, sent, answer });
        sendmsg::<()>(self.socket.as_raw_fd(), &part, &rights, flags, None).map_err(|errno| {
            lock(&self.jobs).pop_back();
            Error::step("handing descriptors to the spawn thread", errno)
        })?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the calling thread a descriptor table of its own. It holds the given descriptors at
/// [`SOCKET`], [`NULL`], [`FILTERS`] and [`INIT`]. The null device fills the lower numbers, which a
/// new process uses for its own descriptors. The host keeps the given descriptors open meanwhile.
fn own_table([socket, null, filters, init]: [RawFd; 4]) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::errno::Errno| Error::step("making a table of descriptors", errno);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).map_err(failed)?;
    let copy = |from: RawFd, to: RawFd| {
        // SAFETY: dup3 takes numbers and no pointer; what was at `to` in this thread's own table is
        // used by nobody.
        nix::errno::Errno::result(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
    };
    // First to numbers above all sources and targets, so that no copy overwrites a source.
    let aside = INIT.max(socket).max(null).max(filters).max(init) + 1;
    for (from, to) in [socket, null, filters, init].into_iter().zip(aside..) {
        copy(from, to).map_err(failed)?;
    }
    for (from, to) in (aside..).zip([SOCKET, NULL, FILTERS, INIT]) {
        copy(from, to).map_err(failed)?;
    }
    for place in 0..SOCKET {
        copy(NULL, place).map_err(failed)?;
    }
    // SAFETY: close_range takes numbers and no pointer; nobody uses the higher numbers in this
    // thread's own table.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, INIT + 1, u32::MAX, 0) };
    nix::errno::Errno::result(closed).map_err(failed)?;
    // SAFETY: the descriptor was made above, in this thread's own table, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

/// Numbers in the thread's table: below those received, above a new process's own.
const SOCKET: RawFd = 15;
const FILTERS: RawFd = 17;
const INIT: RawFd = 18;

fn serve(socket: &OwnedFd, queue: &Jobs) {
    let processors = processor::count();
    loop {
        let Ok(files) = received(socket) else {
            return;
        };
        let Some(Job { mut start, sent, answer }) = lock(queue).pop_front() else {
            return;
        };
        if files.len() != sent.len() {
            // The descriptors did not fit. The host notices the end of the init's socket.
            let error = Error::step("taking descriptors", nix::errno::Errno::EMFILE);
            *lock(&answer) = Some(Err(error));
            continue;
        }
        let here = |file: RawFd| {
            let place = sent.iter().position(|it| *it == file);
            place.and_then(|place| files.get(place)).map_or(-1, AsRawFd::as_raw_fd)
        };
        start.move_to(here);
        let to_host = start.ends[SOCKET_END];
        *lock(&answer) = Some(start.run(processors));
        // The caller may have dropped its future. The process then ends with the answer.
        let _gone = send(to_host, &NOTHING, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }
}

/// Returns why the thread gave up a job. The thread stores the error right after the init's socket
/// was closed.
async fn cause(answer: &Answer) -> Error {
    // While the thread holds the other reference, it may still store an answer.
    while Arc::strong_count(answer) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    match lock(answer).take() {
        Some(Err(error)) => error,
        _ => Error::Ended,
    }
}

/// Waits for the descriptors of one job and returns them; an empty list if they did not all fit. An
/// error means that the host has closed the socket.
fn received(socket: &OwnedFd) -> nix::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; SENT_MAX]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            message => break message?,
        }
    };
    if message.bytes == 0 {
        return Err(nix::errno::Errno::EPIPE);
    }
    let mut files = Vec::with_capacity(SENT_MAX);
    let Ok(controls) = message.cmsgs() else {
        // SAFETY: close_range takes numbers and no pointer; the numbers above the thread's own are
        // descriptors of this message, which nobody knows.
        unsafe { libc::syscall(libc::SYS_close_range, INIT + 1, u32::MAX, 0) };
        return Ok(files);
    };
    for control in controls {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for file in numbers {
                // SAFETY: the kernel has made the descriptor for this message, in this thread's own
                // table, and nobody else knows it.
                files.push(unsafe { OwnedFd::from_raw_fd(file) });
            }
        }
    }
    Ok(files)
}

impl Start {
    /// Calls `with` with each descriptor that the thread must be sent.
    fn each(&self, mut with: impl FnMut(RawFd)) {
        let own = self.ends.into_iter().chain(self.group).chain(self.stdin).chain(self.filters);
        own.chain(self.users).chain(self.passed.iter().copied()).for_each(&mut with);
        for step in &self.steps.first {
            if let Step::JoinGroup { tasks: file, .. }
            | Step::Attach { mount: file, .. }
            | Step::EnterNetwork(file)
            | Step::EnterIpc(file)
            | Step::EnterRoot(file) = step
            {
                with(*file);
            }
        }
    }

    /// Replaces each descriptor by its number in another table.
    fn move_to(&mut self, there: impl Fn(RawFd) -> RawFd) {
        let own = self.ends.iter_mut().chain(&mut self.group).chain(&mut self.stdin);
        own.chain(&mut self.filters).chain(&mut self.users).chain(&mut self.passed).for_each(
            |file| {
                *file = there(*file);
            },
        );
        for step in &mut self.steps.first {
            if let Step::JoinGroup { tasks: file, .. }
            | Step::Attach { mount: file, .. }
            | Step::EnterNetwork(file)
            | Step::EnterIpc(file)
            | Step::EnterRoot(file)
            | Step::Listen(_, file) = step
            {
                *file = there(*file);
            }
        }
    }
}

/// The new process's input, and the place for its error. Both are in the host's memory.
struct Child<'a> {
    steps: &'a Steps,
    arguments: &'a [*const c_char],
    environment: &'a [*const c_char],
    given: [RawFd; 5],
    users: Option<RawFd>,
    passed: &'a [RawFd],
    rules: bool,
    /// The processors of the new process, if the thread was bound to one.
    processors: Option<&'a Processors>,
    failed: usize,
    errno: i32,
}

/// The number in the init of the first descriptor that is passed on to the program; the lower ones
/// are the init's own. There is room for [`DESCRIPTORS_MAX`] below [`SOCKET`].
const PASSED: usize = 7;
/// The number in the init of the sandbox's user namespace.
const USERS: usize = 6;

/// Numbers of the steps after those of the list: arranging descriptors, and exec.
const STEP_DESCRIPTORS: usize = usize::MAX - 1;
const STEP_EXECUTE: usize = usize::MAX;

impl Start {
    /// Makes the process. `processors` is the number of processors configured on this machine.
    fn run(self, processors: usize) -> Result<Process, Error> {
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let mut child = Child {
            steps: &self.steps,
            arguments: &arguments,
            environment: &environment,
            given: [
                self.stdin.unwrap_or(NULL),
                self.ends[0],
                self.ends[1],
                self.ends[SOCKET_END],
                self.filters.unwrap_or(FILTERS),
            ],
            users: self.users,
            passed: &self.passed,
            rules: self.steps.own.iter().any(|step| matches!(step, Step::Rules { .. })),
            processors: None,
            failed: 0,
            errno: 0,
        };
        let mut arguments = CloneArgs::new();
        if self.rootless {
            arguments.flags |= OWN_EVERYTHING;
        }
        if self.own_ipc {
            arguments.flags |= libc::CLONE_NEWIPC.cast_unsigned() as u64;
        }
        if let Some(group) = self.group {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = u64::from(group.cast_unsigned());
        }
        let blocked = nix::sys::signal::SigSet::all()
            .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
            .map_err(|errno| Error::step("blocking signals", errno))?;
        child.processors = processor::hold(processors);
        // SAFETY: all signals are blocked on this thread, so no handler runs in the child on our
        // memory; `child` and what it points to outlive the call, as this thread is suspended until
        // the child has executed or ended; `arguments` is a whole `clone_args`.
        let result = unsafe { clone_vfork(&arguments, &mut child) };
        child.processors.map(processor::free);
        let restored = blocked.thread_set_mask();
        if result < 0 {
            let errno = i32::try_from(-result).unwrap_or(libc::EINVAL);
            let source = io::Error::from_raw_os_error(errno);
            return Err(Error::step("making a process", source));
        }
        let process = Process(result as libc::pid_t);
        restored.map_err(|errno| Error::step("restoring signals", errno))?;
        if child.errno == 0 {
            return Ok(process);
        }
        // The process has ended by itself. This reaps it.
        drop(process);
        Err(self.error(child.failed, child.errno))
    }

    fn error(&self, failed: usize, errno: i32) -> Error {
        let source = io::Error::from_raw_os_error(errno);
        match self.steps.each().nth(failed) {
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

/// Makes a process that shares our memory and stack, and runs [`in_child`] in it. Returns the
/// system call's result in the parent, after the child has executed or ended.
///
/// # Safety
///
/// All signals are blocked; `arguments` asks for CLONE_VM and CLONE_VFORK and no stack; `child` is
/// valid.
#[inline(never)]
unsafe fn clone_vfork(arguments: &CloneArgs, child: &mut Child<'_>) -> isize {
    let result: isize;
    // SAFETY: in the parent the block is one system call. The child continues after it with the
    // same registers and stack pointer, calls `in_child`, which never returns, and so writes only
    // below the stack pointer: nothing of the parent's is there (no red zone, as the block is not
    // `nostack`). The parent is suspended meanwhile, and the kernel keeps its registers. The stack
    // pointer is aligned as the ABI requires at the start of a block.
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

/// Runs in the new process: the steps, the descriptors, exec. Allocates nothing, takes no lock,
/// never returns.
extern "C" fn in_child(child: &mut Child<'_>) -> ! {
    if child.processors.is_some_and(|processors| processor::set(processors) < 0) {
        give_up(child, STEP_DESCRIPTORS);
    }
    for (number, step) in child.steps.each().enumerate() {
        if carry_out(step) < 0 {
            give_up(child, number);
        }
    }
    let users = (USERS..).zip(child.users);
    let passed = (PASSED..).zip(child.passed.iter().copied());
    for (number, file) in (0..).zip(child.given).chain(users).chain(passed) {
        if call(libc::SYS_dup3, [file as usize, number, 0, 0, 0]) < 0 {
            give_up(child, STEP_DESCRIPTORS);
        }
    }
    let cloexec = libc::CLOSE_RANGE_CLOEXEC as usize;
    let kept = match child.passed.len() {
        0 if child.users.is_some() => PASSED,
        0 => child.given.len() + usize::from(child.rules),
        passed => PASSED + passed,
    };
    let others = [kept, u32::MAX as usize, cloexec, 0, 0];
    let no_signals = 0_u64;
    let mask = (&raw const no_signals).addr();
    let unblock = [libc::SIG_SETMASK as usize, mask, 0, 8, 0];
    if call(libc::SYS_close_range, others) < 0 || call(libc::SYS_rt_sigprocmask, unblock) < 0 {
        give_up(child, STEP_DESCRIPTORS);
    }
    let init = [
        INIT as usize,
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
