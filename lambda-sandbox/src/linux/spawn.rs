//! Starts a program in its sandbox, without forking the host: the new process shares the host's memory until
//! it becomes the program, and the thread that started it waits so long.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use seccompiler::BpfProgram;

use super::steps::Step;
use crate::Error;

/// All that the new process needs, made before it is there.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) entrances: Vec<File>,
    pub(crate) network: File,
    pub(crate) filters: [BpfProgram; 2],
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) working_directory: CString,
    pub(crate) files_max: u64,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Where the new process stopped.
#[derive(Debug, Clone, Copy)]
struct Failure {
    at: At,
    errno: i32,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Group,
    Network,
    Step(usize),
    HostName,
    Session,
    Descriptors,
    Limits,
    User,
    Filter,
    Folder,
    Exec,
}

/// What the parent lends to the new process.
struct Lent<'a> {
    program: &'a Program,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    failure: Option<Failure>,
}

/// Starts the program; returns its pidfd once it runs.
pub(crate) fn spawn(program: &Program) -> Result<OwnedFd, Error> {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let mut lent = Lent {
        program,
        argv: pointers(&program.arguments),
        envp: pointers(&program.environment),
        failure: None,
    };
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_PIDFD
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::SIGCHLD;
    let _signals = BlockedSignals::new();
    let top = stack.as_mut_ptr_range().end.cast::<libc::c_void>();
    // SAFETY: `top` is the 16-byte aligned end of a stack that `stack` keeps alive, and which nothing else uses.
    // With CLONE_VFORK this thread does not run until the child has left our memory by exec or exit, so `lent`,
    // `pidfd` and `stack` outlive the child's use of them and nothing of this thread changes them meanwhile. All
    // signals are blocked, so that no handler of ours runs in the child.
    let pid = unsafe { libc::clone(child, top, flags, (&raw mut lent).cast(), &raw mut pidfd) };
    if pid < 0 {
        return Err(Error::step("clone", io::Error::last_os_error()));
    }
    // SAFETY: the kernel gave us this descriptor (CLONE_PIDFD), and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match lent.failure {
        None => Ok(pidfd),
        Some(failure) => {
            // The child has ended by itself: it is reaped at once.
            drop(crate::child::reap(&pidfd));
            Err(described(program, failure))
        }
    }
}

fn described(program: &Program, failure: Failure) -> Error {
    let source = io::Error::from_raw_os_error(failure.errno);
    let at = |step, path: PathBuf| {
        let source = io::Error::from_raw_os_error(failure.errno);
        Error::Failed {
            step,
            path: Some(path),
            source,
        }
    };
    let text = |text: &CStr| PathBuf::from(text.to_string_lossy().into_owned());
    match failure.at {
        At::Step(index) => match program.steps.get(index) {
            Some(step) => at(step.name(), step.path()),
            None => Error::step("prepare the sandbox", source),
        },
        At::Folder => at("change folder", text(&program.working_directory)),
        At::Exec => {
            let path = program
                .arguments
                .first()
                .map(|it| text(it))
                .unwrap_or_default();
            at("start the program", path)
        }
        At::Group => Error::step("enter cgroup", source),
        At::Network => Error::step("enter network namespace", source),
        At::HostName => Error::step("set host name", source),
        At::Session => Error::step("begin session", source),
        At::Descriptors => Error::step("arrange descriptors", source),
        At::Limits => Error::step("set rlimits", source),
        At::User => Error::step("become an unprivileged user", source),
        At::Filter => Error::step("set system call filter", source),
    }
}

/// The new process. From here to exec: no allocation, no lock, no formatting, and no function of the C library that
/// does more than its system call (`setuid` and its like would change the host's threads).
extern "C" fn child(lent: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a `Lent` that outlives this process's use of our memory, and does not touch it
    // until then.
    let lent = unsafe { &mut *lent.cast::<Lent<'_>>() };
    lent.failure = become_program(lent).err();
    // SAFETY: ends this process alone, without running anything of the host's.
    unsafe { libc::_exit(127) }
}

fn become_program(lent: &Lent<'_>) -> Result<(), Failure> {
    let program = lent.program;
    for entrance in &program.entrances {
        let zero = b"0";
        // SAFETY: writes one byte of a constant to an open descriptor.
        let wrote = unsafe { libc::write(entrance.as_raw_fd(), zero.as_ptr().cast(), zero.len()) };
        check(wrote, At::Group)?;
    }
    // SAFETY: takes an open descriptor and a flag.
    let result = unsafe { libc::setns(program.network.as_raw_fd(), libc::CLONE_NEWNET) };
    check(result, At::Network)?;
    for (index, step) in program.steps.iter().enumerate() {
        take(step, At::Step(index))?;
    }
    let name = c"sandbox";
    // SAFETY: the name is a constant of the length given.
    let result = unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) };
    check(result, At::HostName)?;
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }, At::Session)?;
    descriptors(program)?;
    limits(program)?;
    unprivileged()?;
    filters(program)?;
    signals();
    // SAFETY: the path is a C string that outlives the call.
    let result = unsafe { libc::chdir(program.working_directory.as_ptr()) };
    check(result, At::Folder)?;
    let path = lent.argv.first().copied().unwrap_or(std::ptr::null());
    // SAFETY: `argv` and `envp` are arrays of C strings that end with a null pointer, kept alive by `lent`.
    let result = unsafe { libc::execve(path, lent.argv.as_ptr(), lent.envp.as_ptr()) };
    check(result, At::Exec)
}

fn take(step: &Step, at: At) -> Result<(), Failure> {
    let null = std::ptr::null::<libc::c_char>();
    match step {
        Step::PrivateMounts => {
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            // SAFETY: the strings are constants; the others may be null for a change of propagation.
            let result = unsafe { libc::mount(null, c"/".as_ptr(), null, flags, null.cast()) };
            check(result, at)
        }
        Step::Mount {
            kind,
            target,
            flags,
            options,
        } => {
            let (kind, options) = (kind.as_ptr(), options.as_ptr().cast());
            // SAFETY: all strings are C strings that outlive the call.
            let result = unsafe { libc::mount(kind, target.as_ptr(), kind, *flags, options) };
            check(result, at)
        }
        Step::Bind { source, target } => {
            let flags = libc::MS_BIND | libc::MS_REC;
            // SAFETY: both paths are C strings that outlive the call; the others may be null for a bind.
            let result =
                unsafe { libc::mount(source.as_ptr(), target.as_ptr(), null, flags, null.cast()) };
            check(result, at)
        }
        Step::ReadOnly { target, devices } => read_only(target, *devices, at),
        Step::Folder { path, mode } => {
            // SAFETY: the path is a C string that outlives the call.
            let made = unsafe { libc::mkdir(path.as_ptr(), *mode) };
            if made < 0 && errno() == libc::EEXIST {
                Ok(())
            } else {
                check(made, at)
            }
        }
        Step::File {
            path,
            content,
            mode,
        } => {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
            // SAFETY: the path is a C string that outlives the call.
            let fd = unsafe { libc::open(path.as_ptr(), flags, *mode) };
            check(fd, at)?;
            // SAFETY: writes the bytes of a vector that outlives the call.
            let wrote = unsafe { libc::write(fd, content.as_ptr().cast(), content.len()) };
            // SAFETY: closes the descriptor that was opened above, which nobody else knows.
            check(unsafe { libc::close(fd) }, at)?;
            check(wrote, at)
        }
        Step::Link { path, points_to } => {
            // SAFETY: both are C strings that outlive the call.
            let result = unsafe { libc::symlink(points_to.as_ptr(), path.as_ptr()) };
            check(result, at)
        }
        Step::Root { folder } => {
            // SAFETY: the path is a C string that outlives the call.
            check(unsafe { libc::chdir(folder.as_ptr()) }, at)?;
            let here = c".".as_ptr();
            // With both the same, the old root comes to lie over the new one (man 2 pivot_root).
            // SAFETY: both are the same constant C string.
            let result = unsafe { libc::syscall(libc::SYS_pivot_root, here, here) };
            check(result, at)?;
            // SAFETY: the path is a constant C string.
            check(unsafe { libc::umount2(here, libc::MNT_DETACH) }, at)?;
            // SAFETY: the path is a constant C string.
            check(unsafe { libc::chdir(c"/".as_ptr()) }, at)
        }
    }
}

fn read_only(target: &CStr, devices: bool, at: At) -> Result<(), Failure> {
    let mut set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    if !devices {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let size = size_of::<libc::mount_attr>();
    let (fd, flags) = (libc::AT_FDCWD, libc::AT_RECURSIVE);
    // SAFETY: the path is a C string and `attributes` a `mount_attr` of the size given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            target.as_ptr(),
            flags,
            &raw const attributes,
            size,
        )
    };
    check(result, at)
}

/// Standard input from nothing, output to the pipes, and no other descriptor.
fn descriptors(program: &Program) -> Result<(), Failure> {
    let at = At::Descriptors;
    // SAFETY: the path is a constant C string.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    check(null, at)?;
    for (from, to) in [
        (null, 0),
        (program.stdout.as_raw_fd(), 1),
        (program.stderr.as_raw_fd(), 2),
    ] {
        // SAFETY: copies an open descriptor; the pipes' numbers are above 2, as the host's own are taken.
        check(unsafe { libc::dup2(from, to) }, at)?;
    }
    // SAFETY: marks descriptors of this process alone (clone without CLONE_FILES copied the table).
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(closed, at)
}

fn limits(program: &Program) -> Result<(), Failure> {
    let limits = [
        (libc::RLIMIT_NOFILE, program.files_max),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_MEMLOCK, 64 * 1024),
        (libc::RLIMIT_MSGQUEUE, 0),
        (libc::RLIMIT_NICE, 0),
        (libc::RLIMIT_RTPRIO, 0),
    ];
    for (resource, value) in limits {
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: `limit` outlives the call, which reads it.
        let result = unsafe { libc::setrlimit(resource, &raw const limit) };
        check(result, At::Limits)?;
    }
    Ok(())
}

/// Gives up every right for good. Bare system calls: the C library's would change all threads of the host.
fn unprivileged() -> Result<(), Failure> {
    let at = At::User;
    for capability in 0..=CAPABILITY_LAST {
        // SAFETY: takes integers alone.
        let dropped =
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        // A kernel that does not know a capability does not give it either.
        if dropped < 0 && errno() != libc::EINVAL {
            return check(dropped, at);
        }
    }
    // SAFETY: takes integers alone.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(result, at)?;
    // SAFETY: an empty list needs no pointer.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) }, at)?;
    // SAFETY: takes integers alone.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, GROUP, GROUP, GROUP) };
    check(result, at)?;
    // Leaving user 0 for good clears every capability set (man 7 capabilities).
    // SAFETY: takes integers alone.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) };
    check(result, at)?;
    // A new keyring of its own, in place of the host's session keyring. Without keyrings there is none to share.
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    if joined < 0 && errno() != libc::ENOSYS {
        check(joined, at)
    } else {
        Ok(())
    }
}

fn filters(program: &Program) -> Result<(), Failure> {
    for filter in &program.filters {
        let Ok(len) = u16::try_from(filter.len()) else {
            return Err(Failure {
                at: At::Filter,
                errno: libc::EINVAL,
            });
        };
        let fprog = libc::sock_fprog {
            len,
            filter: filter.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `fprog` names the instructions of a compiled filter, of the length given; both types have the
        // kernel's layout, and the kernel copies them.
        let set = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const fprog,
            )
        };
        check(set, At::Filter)?;
    }
    Ok(())
}

/// Signals as a new program expects them: none ignored, none blocked.
fn signals() {
    // Rust's runtime ignores SIGPIPE, which exec would pass on.
    // SAFETY: sets the default action in this process alone (clone without CLONE_SIGHAND copied the table).
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: a signal set is plain data, for which all zeroes is the empty set on Linux.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` outlives the call, which reads it.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

fn check<T: Default + PartialOrd>(result: T, at: At) -> Result<(), Failure> {
    // The default of every integer is zero.
    if result < T::default() {
        Err(Failure { at, errno: errno() })
    } else {
        Ok(())
    }
}

fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or_default()
}

/// All signals of this thread, blocked until drop.
struct BlockedSignals(nix::sys::signal::SigSet);

impl BlockedSignals {
    fn new() -> Self {
        let all = nix::sys::signal::SigSet::all();
        let before = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK);
        Self(before.unwrap_or_else(|_| nix::sys::signal::SigSet::empty()))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // Setting a mask that was read from the kernel cannot fail.
        self.0.thread_set_mask().unwrap_or_default();
    }
}

const STACK_BYTES: usize = 64 * 1024;
const CAPABILITY_LAST: i32 = 63;
/// Lambda's own number for the user of a function.
const USER: i32 = 993;
const GROUP: i32 = 990;
const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
