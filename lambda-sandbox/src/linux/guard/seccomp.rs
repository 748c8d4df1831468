//! The system calls that a function may make, as data. Every other call fails with EPERM or ENOSYS.

pub use crate::linux::guard::arguments::{BY_ARGUMENT, ByArgument};

/// A group of allowed system calls with the reason for allowing them.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Why programs need them and what they cannot reach.
    pub reason: &'static str,
    /// Their names and x86-64 numbers.
    pub calls: &'static [(&'static str, libc::c_long)],
}

macro_rules! calls {
    ($($number:ident)*) => { &[$((name_of(stringify!($number)), libc::$number)),*] };
}

/// Strips `SYS_`.
const fn name_of(constant: &'static str) -> &'static str {
    constant.split_at(4).1
}

/// The calls that are allowed whatever their arguments.
pub const ALLOWED: &[Group] = &[
    Group {
        reason: "files and folders: what the mount namespace shows, as the permissions allow",
        calls: calls!(
            SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek
            SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_access SYS_pipe SYS_select SYS_dup
            SYS_dup2 SYS_sendfile SYS_flock SYS_truncate
            SYS_ftruncate SYS_getdents SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_mkdir
            SYS_rmdir SYS_creat SYS_link SYS_unlink SYS_symlink SYS_readlink SYS_chmod SYS_fchmod
            SYS_chown SYS_fchown SYS_lchown SYS_umask SYS_utime SYS_utimes SYS_getdents64
            SYS_openat SYS_mkdirat SYS_newfstatat SYS_unlinkat SYS_renameat
            SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmodat SYS_faccessat SYS_fchownat
            SYS_futimesat SYS_utimensat SYS_fallocate SYS_dup3 SYS_pipe2 SYS_preadv SYS_pwritev
            SYS_renameat2 SYS_copy_file_range SYS_statx SYS_close_range
            SYS_openat2 SYS_faccessat2 SYS_fchmodat2 SYS_statfs SYS_fstatfs
            SYS_splice SYS_tee SYS_vmsplice SYS_readahead SYS_getxattr
            SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr

        ),
    },
    Group {
        reason: "watching files, which frameworks do to read their settings again. Who shares files with others (a root of the \
                 machine's own programs) sees when they open them: give customers files of their own where that matters",
        calls: calls!(
            SYS_inotify_init SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
        ),
    },
    Group {
        reason: "memory: its own, counted by the memory limit",
        calls: calls!(
            SYS_mprotect SYS_munmap SYS_brk SYS_mremap SYS_mincore
            SYS_mlock SYS_munlock SYS_mlockall SYS_munlockall SYS_mlock2 SYS_membarrier
            SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free SYS_get_mempolicy
        ),
    },
    Group {
        reason: "signals and processes: the pid namespace holds only its own",
        calls: calls!(
            SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending
            SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend
            SYS_sigaltstack SYS_kill SYS_tkill SYS_tgkill SYS_fork SYS_vfork SYS_execve
            SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_getpid SYS_getppid
            SYS_gettid SYS_getpgid SYS_setpgid SYS_getpgrp SYS_setsid SYS_getsid
            SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_futex SYS_futex_waitv
            SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam
            SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_setparam SYS_sched_get_priority_max SYS_sched_get_priority_min
            SYS_sched_rr_get_interval SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_restart_syscall SYS_arch_prctl
            SYS_rseq SYS_signalfd SYS_signalfd4 SYS_pidfd_open SYS_pidfd_send_signal
            SYS_getcpu SYS_capget SYS_capset SYS_landlock_create_ruleset SYS_landlock_add_rule
            SYS_landlock_restrict_self
        ),
    },
    Group {
        reason: "who and what am I: answers only, or changes that need capabilities nobody here has",
        calls: calls!(
            SYS_getuid SYS_getgid SYS_geteuid SYS_getegid SYS_getresuid SYS_getresgid
            SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid
            SYS_setresgid SYS_getrlimit SYS_getrusage SYS_sysinfo
            SYS_times SYS_uname SYS_getrandom
        ),
    },
    Group {
        reason: "time: reading and waiting",
        calls: calls!(
            SYS_nanosleep SYS_clock_nanosleep SYS_getitimer SYS_setitimer SYS_alarm SYS_pause
            SYS_gettimeofday SYS_time SYS_clock_gettime SYS_clock_getres SYS_timer_create
            SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
            SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime
        ),
    },
    Group {
        reason: "events, and sockets of the families below: the network namespace holds only a loopback",
        calls: calls!(
            SYS_connect SYS_accept SYS_accept4 SYS_recvfrom SYS_recvmsg
            SYS_recvmmsg SYS_shutdown SYS_bind SYS_listen SYS_getsockname
            SYS_getpeername SYS_getsockopt SYS_eventfd SYS_eventfd2
            SYS_epoll_create SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_ctl_old SYS_epoll_wait
            SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_pselect6
        ),
    },
    Group {
        reason: "System V shared memory and semaphores: the ipc namespace holds only its own",
        calls: calls!(
            SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semctl
            SYS_semtimedop
        ),
    },
];

/// Calls that fail with ENOSYS, so that libraries fall back to clone, whose flags a filter can
/// read.
pub const ABSENT: &[(&str, libc::c_long)] = calls!(SYS_clone3);
/// From this number on, calls that are not allowed fail with ENOSYS. These calls are so new that
/// their callers have a fallback for kernels without them, and take it only after ENOSYS.
pub const NEW_FIRST: libc::c_long = 450;
/// Calls that are answered with success and not executed. They would write other processes' dirty
/// pages to the host's disks, or flush a disk, even for a file that is only readable. A program's
/// own writes are in memory, where every other process sees them. The host writes out a writable
/// folder of its own when it does so for all.
pub const IGNORED: &[(&str, libc::c_long)] =
    calls!(SYS_sync SYS_syncfs SYS_fsync SYS_fdatasync SYS_sync_file_range);
/// Calls that fail with EOPNOTSUPP, as on a file system without extended attributes: programs that
/// copy files then continue.
pub const NOT_SUPPORTED: &[(&str, libc::c_long)] = calls!(
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_calls_are_not_in_the_list() {
        let names: Vec<&str> =
            (ALLOWED.iter().flat_map(|group| group.calls)).map(|(name, _)| *name).collect();
        for name in [
            "unshare",
            "setns",
            "mount",
            "ptrace",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "userfaultfd",
            "perf_event_open",
            "open_by_handle_at",
            "process_vm_readv",
            "syslog",
            "reboot",
            "mknod",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }
}
