//! Keeps a new process on the processor of the thread that makes it and then waits for it: the kernel would rather wake an idle
//! one, which takes longer than the first half of a sandbox's start on a virtual machine whose processors are put to sleep.

use crate::linux::start::raw::call;

/// A set of processors as the kernel takes it: as many as it can be built for at most.
pub(in crate::linux) type Processors = [u64; 128];

/// All that there are and ever will be: a thread that may run on these is not held to any.
const ALL: Processors = [u64::MAX; 128];

/// Holds the calling thread where it runs, if it is free to run anywhere.
///
/// Returns what a process that is made now has to be given to be as free as the thread was, and [`free`] gives the thread:
/// nothing where the host has chosen processors, which are left as they are.
pub(in crate::linux) fn hold(count: usize) -> Option<&'static Processors> {
    let mut allowed: Processors = [0; 128];
    let size = size_of::<Processors>();
    let read = call(libc::SYS_sched_getaffinity, [0, size, allowed.as_mut_ptr().addr(), 0, 0]);
    let found: u32 = allowed.iter().map(|word| word.count_ones()).sum();
    if read < 0 || usize::try_from(found) != Ok(count) {
        return None;
    }
    // SAFETY: sched_getcpu takes nothing and reads no memory of ours.
    let here = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
    let mut one: Processors = [0; 128];
    *one.get_mut(here / 64)? = 1 << (here % 64);
    (set(&one) == 0).then_some(&ALL)
}

/// Lets the calling thread run on these.
pub(in crate::linux) fn free(processors: &Processors) {
    // What was allowed before cannot be refused.
    let _allowed = set(processors);
}

/// Allocates nothing and takes no lock.
pub(in crate::linux) fn set(processors: &Processors) -> libc::c_long {
    let size = size_of::<Processors>();
    call(libc::SYS_sched_setaffinity, [0, size, processors.as_ptr().addr(), 0, 0])
}

/// Returns how many there can be on this machine.
pub(in crate::linux) fn count() -> usize {
    // SAFETY: sysconf takes a number and reads no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(0)
}
