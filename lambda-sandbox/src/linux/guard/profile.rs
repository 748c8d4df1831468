//! Named profiles of system calls: the default list of functions, and stricter and wider lists.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The system calls that a program may make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SystemCalls {
    /// For functions and ordinary programs: [`crate::linux::guard::seccomp::ALLOWED`].
    #[default]
    Default,
    /// For programs that only compute: no sockets, no System V memory, no watching of files
    /// ([`STRICT_LESS`]). Not for functions, which reach the Runtime API by a socket.
    Strict,
    /// As [`SystemCalls::Strict`], and a program is killed by SIGSYS if it makes a call that only
    /// attacks make ([`TRIPWIRES`]). The cause of death shows the attack.
    Tripwire,
    /// For debuggers and programs that place their memory: also tracing of the sandbox's own
    /// processes ([`WIDE_MORE`]).
    Wide,
    /// For virtual machine monitors: nothing but [`MONITOR_ONLY`], and filters of their own. No
    /// file is opened by name, and no socket made but pairs.
    Monitor,
}

macro_rules! calls {
    ($($number:ident)*) => { &[$((stringify!($number).split_at(4).1, libc::$number)),*] };
}

/// The calls of the default list that [`SystemCalls::Strict`] refuses.
pub const STRICT_LESS: &[(&str, libc::c_long)] = calls!(
    SYS_socket SYS_socketpair SYS_connect SYS_accept SYS_accept4 SYS_bind SYS_listen SYS_sendto
    SYS_recvfrom SYS_sendmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_getsockname
    SYS_getpeername SYS_setsockopt SYS_getsockopt SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt
    SYS_semget SYS_semop SYS_semctl SYS_semtimedop SYS_inotify_init SYS_inotify_init1
    SYS_inotify_add_watch SYS_inotify_rm_watch SYS_memfd_create SYS_timer_create
);
/// The calls that [`SystemCalls::Wide`] allows in addition to the default list. All of them reach
/// only the sandbox's own processes and memory: the user and pid namespaces decide who may trace
/// whom.
pub const WIDE_MORE: &[(&str, libc::c_long)] = calls!(
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_mbind
    SYS_set_mempolicy SYS_process_madvise
);

/// The calls for which [`SystemCalls::Tripwire`] kills. No library tries one of them before a
/// fallback.
pub const TRIPWIRES: &[(&str, libc::c_long)] = calls!(
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_unshare SYS_setns SYS_mount
    SYS_umount2 SYS_pivot_root SYS_chroot SYS_fsopen SYS_open_tree SYS_move_mount SYS_bpf
    SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_init_module SYS_finit_module
    SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot SYS_swapon SYS_swapoff
    SYS_add_key SYS_request_key SYS_keyctl SYS_open_by_handle_at SYS_syslog SYS_settimeofday
    SYS_clock_settime SYS_sethostname SYS_quotactl SYS_iopl SYS_ioperm
);

/// The calls that [`SystemCalls::Monitor`] allows, with the rules of the default list about their
/// arguments: of `ioctl` only terminals' and KVM's requests, for example. The first two rows serve
/// the start of a static program.
pub const MONITOR_ONLY: &[(&str, libc::c_long)] = calls!(
    SYS_execve SYS_arch_prctl SYS_set_tid_address SYS_set_robust_list SYS_rseq SYS_prlimit64
    SYS_readlink SYS_readlinkat SYS_prctl SYS_uname SYS_sigaltstack SYS_sched_getaffinity
    SYS_brk SYS_mmap SYS_mprotect SYS_munmap SYS_mremap SYS_madvise SYS_rt_sigaction SYS_rt_sigprocmask
    SYS_rt_sigreturn SYS_clone SYS_gettid SYS_getpid SYS_tgkill SYS_futex SYS_sched_yield
    SYS_exit SYS_exit_group SYS_restart_syscall SYS_clock_gettime SYS_clock_nanosleep SYS_getrandom
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_lseek SYS_fstat SYS_newfstatat
    SYS_statx SYS_fdatasync SYS_close SYS_dup SYS_fcntl SYS_ioctl SYS_poll SYS_ppoll
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_eventfd2 SYS_socketpair
    SYS_sendmsg SYS_recvmsg SYS_sendto SYS_recvfrom SYS_shutdown SYS_seccomp
);
/// The call that [`SystemCalls::Monitor`] allows and the default list restricts.
const MONITOR_MORE: &[(&str, libc::c_long)] = calls!(SYS_seccomp);

impl SystemCalls {
    /// Every profile.
    pub const ALL: [Self; 5] =
        [Self::Default, Self::Strict, Self::Tripwire, Self::Wide, Self::Monitor];

    /// Returns the profile's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
            Self::Tripwire => "tripwire",
            Self::Wide => "wide",
            Self::Monitor => "monitor",
        }
    }

    /// Returns the calls that this profile refuses and the default list allows.
    pub(in crate::linux) fn less(self) -> &'static [(&'static str, libc::c_long)] {
        if matches!(self, Self::Strict | Self::Tripwire) { STRICT_LESS } else { &[] }
    }

    /// Returns the calls for which this profile kills.
    pub(in crate::linux) fn deadly(self) -> &'static [(&'static str, libc::c_long)] {
        if self == Self::Tripwire { TRIPWIRES } else { &[] }
    }

    /// Returns the calls that this profile allows and the default list refuses.
    pub(in crate::linux) fn more(self) -> &'static [(&'static str, libc::c_long)] {
        match self {
            Self::Wide => WIDE_MORE,
            Self::Monitor => MONITOR_MORE,
            _ => &[],
        }
    }

    /// Returns the only calls that this profile allows, or `None` if its list is the default one.
    pub(in crate::linux) fn only(self) -> Option<&'static [(&'static str, libc::c_long)]> {
        (self == Self::Monitor).then_some(MONITOR_ONLY)
    }
}

impl fmt::Display for SystemCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SystemCalls {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        (Self::ALL.into_iter().find(|it| it.name() == name)).ok_or_else(|| {
            Error::invalid("linux.system_calls", name, "default, strict, tripwire, wide or monitor")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for profile in SystemCalls::ALL {
            assert_eq!(profile.to_string().parse::<SystemCalls>().expect("known"), profile);
        }
        assert!("lax".parse::<SystemCalls>().is_err());
    }
}
