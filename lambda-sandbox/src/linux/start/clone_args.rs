//! The arguments of clone3(2).

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    pub(super) cgroup: u64,
}

/// Starts in the control group of `cgroup`.
pub(super) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// New user, network and mount namespaces.
pub(super) const OWN_EVERYTHING: u64 =
    (libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS).cast_unsigned() as u64;

impl CloneArgs {
    /// Returns the arguments of a process that borrows this thread's memory until it executes, in
    /// new pid and uts namespaces.
    pub(super) fn new() -> Self {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
        let flags = flags.cast_unsigned() as u64 | CLONE_CLEAR_SIGHAND;
        Self { flags, ..Self::default() }
    }
}
