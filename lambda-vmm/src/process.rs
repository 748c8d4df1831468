//! What a machine's process sets for itself: signals, the allocator, and its end.

use std::os::fd::AsRawFd;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::{During, Error};

/// Prepares the process. Called before there are other threads.
pub(crate) fn prepare() -> Result<(), Error> {
    // SAFETY: the call takes numbers. One arena in the heap, and nothing outside of it: the filters
    // permit no mapping of memory.
    let has_arena = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // SAFETY: as above.
    let has_heap = unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) };
    if has_arena == 0 || has_heap == 0 {
        return Err(Error::invalid("the allocator", "it does not take its settings"));
    }
    // Without SA_RESTART the signal ends KVM_RUN.
    handle(Signal::SIGUSR1, SigHandler::Handler(interrupted), SaFlags::empty())?;
    handle(Signal::SIGSYS, SigHandler::SigAction(refused), SaFlags::SA_SIGINFO)
}

fn handle(signal: Signal, handler: SigHandler, flags: SaFlags) -> Result<(), Error> {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: both handlers call only functions that are safe in signal handlers.
    let done = unsafe { sigaction(signal, &action) };
    done.map(drop).during("set a signal's handler")
}

/// The signal's only effect is that a processor leaves the guest.
extern "C" fn interrupted(_signal: i32) {}

/// A filter refused a system call: names it on standard error, and ends the process.
extern "C" fn refused(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to a structure that it has filled. For SIGSYS the number
    // of the call lies 24 bytes from its start, behind the common fields and the call's address,
    // within the 128 bytes of the structure.
    let number = unsafe { info.cast::<[i32; 7]>().read() }[6];
    let mut text = *b"lambda-vmm: the filter refused system call    \n";
    let end = text.len() - 2;
    let mut rest = number.unsigned_abs() % 1000;
    for at in (end - 2..=end).rev() {
        // Digits, from the last on.
        text[at] = b"0123456789"[(rest % 10) as usize];
        rest /= 10;
    }
    // SAFETY: pointer and length are those of one array.
    let _written =
        unsafe { libc::write(std::io::stderr().as_raw_fd(), text.as_ptr().cast(), text.len()) };
    exit(REFUSED)
}

/// Ends the process at once. The usual way makes system calls that the filters refuse.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: the call takes a number, and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// The exit status after a refused system call: the one of a shell for SIGSYS.
const REFUSED: i32 = 128 + libc::SIGSYS;
