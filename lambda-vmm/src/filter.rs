//! The system calls that each thread may make once the guest runs. Any other ends the process.

use std::collections::BTreeMap;

use kvm_bindings::{
    kvm_clock_data, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msrs, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::{During, Error};

/// A kind of thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    /// Runs a processor.
    Vcpu,
    /// Serves the devices and the control socket.
    Devices,
}

/// Restricts the calling thread for ever. Returns how many system calls it may make.
pub(crate) fn apply(thread: Thread) -> Result<u16, Error> {
    let (calls, requests) = match thread {
        Thread::Vcpu => (&VCPU[..], &VCPU_REQUESTS[..]),
        Thread::Devices => (&DEVICES[..], &DEVICES_REQUESTS[..]),
    };
    let restrict = || {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            ALL.iter().chain(calls).map(|call| (*call, Vec::new())).collect();
        let with_argument = |value: &u64| {
            let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)?;
            SeccompRule::new(vec![is])
        };
        let requests = requests.iter().map(with_argument).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_ioctl, requests);
        if cfg!(debug_assertions) && thread == Thread::Devices {
            // In such builds std checks each descriptor before it closes it.
            rules.insert(libc::SYS_fcntl, vec![with_argument(&F_GETFD)?]);
        }
        let count = u16::try_from(rules.len()).unwrap_or(u16::MAX);
        let (refuse, allow) = (SeccompAction::Trap, SeccompAction::Allow);
        let program: BpfProgram =
            SeccompFilter::new(rules, refuse, allow, TargetArch::x86_64)?.try_into()?;
        seccompiler::apply_filter(&program)?;
        Ok(count)
    };
    let restricted: Result<u16, seccompiler::Error> = restrict();
    restricted.map_err(std::io::Error::other).during("restrict the system calls of a thread")
}

/// Locks, wake-ups of other threads, growth of the heap, and the end of the process. No thread may
/// map memory: the allocator is told to grow the heap alone.
const ALL: [i64; 4] = [libc::SYS_brk, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_write];
/// The return from the signal that stops a processor.
const VCPU: [i64; 1] = [libc::SYS_rt_sigreturn];
const DEVICES: [i64; 15] = [
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_fdatasync,
    libc::SYS_getrandom,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_tgkill,
];
const VCPU_REQUESTS: [u64; 1] = [request(NONE, 0x80, 0)];
/// The requests that read the state of a machine.
const DEVICES_REQUESTS: [u64; 12] = [
    request(BOTH, 0x62, size_of::<kvm_irqchip>()),
    request(READ, 0x7c, size_of::<kvm_clock_data>()),
    request(READ, 0x81, size_of::<kvm_regs>()),
    request(READ, 0x83, size_of::<kvm_sregs>()),
    request(BOTH, 0x88, size_of::<kvm_msrs>()),
    request(READ, 0x8e, size_of::<kvm_lapic_state>()),
    request(READ, 0x98, size_of::<kvm_mp_state>()),
    request(READ, 0x9f, size_of::<kvm_vcpu_events>()),
    request(READ, 0xa1, size_of::<kvm_debugregs>()),
    request(NONE, 0xa3, 0),
    request(READ, 0xa4, size_of::<[u8; 4096]>()),
    request(READ, 0xa6, size_of::<kvm_xcrs>()),
];

/// Returns the number of a request to KVM: direction, size of its argument, KVM's letter, number.
const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | 0xae << 8 | number
}

const F_GETFD: u64 = 1;
const NONE: u64 = 0;
const READ: u64 = 2;
const BOTH: u64 = 3;
