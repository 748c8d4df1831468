//! Keeps a new process on the processor of the thread that makes it and waits for it. Otherwise the
//! kernel wakes an idle processor. On virtual machines with sleeping processors the wake-up takes
//! longer than the first half of a sandbox's start.

use crate::linux::start::raw::call;

/// A set of processors as the kernel reads it. 8,192 bits are as many as a kernel can be built for.
pub(in crate::linux) type Processors = [u64; 128];

/// All processors that exist or may be added. A thread with this set is bound to none.
const ALL: Processors = [u64::MAX; 128];

/// Binds the calling thread to the processor it runs on, if it may run on all `count` processors.
///
/// Returns the set that removes the binding, for the new process ([`set`]) and for the thread
/// ([`free`]). Returns `None` if the host chose processors for the thread; the choice is left in
/// force.
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

/// Lets the calling thread run on these processors.
pub(in crate::linux) fn free(processors: &Processors) {
    // The kernel cannot refuse a set that was allowed before.
    let _allowed = set(processors);
}

/// Sets the calling thread's processors. Allocates nothing and takes no lock.
pub(in crate::linux) fn set(processors: &Processors) -> libc::c_long {
    let size = size_of::<Processors>();
    call(libc::SYS_sched_setaffinity, [0, size, processors.as_ptr().addr(), 0, 0])
}

/// Returns the number of processors configured on this machine.
pub(in crate::linux) fn count() -> usize {
    // SAFETY: sysconf takes a number and reads no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(0)
}
