//! The threads that run the processors, and the gate at which they stop.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::sys::signal::Signal;
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{Bus, Next};
use crate::control::Cause;

/// A processor and the thread that runs it.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: Mutex<VcpuFd>,
    process: u32,
    /// The thread's number, or 0 before it has begun.
    thread: AtomicI32,
}

/// Where the processors of a machine wait while it is paused, and after its end.
#[derive(Debug)]
pub(crate) struct Gate {
    is_closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    attention: Arc<EventFd>,
}

#[derive(Debug)]
struct State {
    /// How many processors wait at the gate.
    waiting: usize,
    ended: Option<Cause>,
}

impl Gate {
    /// A closed gate. `attention` is written to when the machine ends.
    pub(crate) fn closed(attention: Arc<EventFd>) -> Self {
        let state = Mutex::new(State { waiting: 0, ended: None });
        Self { is_closed: AtomicBool::new(true), state, changed: Condvar::new(), attention }
    }

    /// Waits until all processors stand still. Returns false if one does not come after
    /// [`SIGNALS_MAX`] signals. The gate is then open again.
    pub(crate) fn close(&self, vcpus: &[Arc<Vcpu>]) -> bool {
        self.is_closed.store(true, Ordering::SeqCst);
        let mut state = self.state();
        let mut signals = 0;
        while state.waiting < vcpus.len() {
            if signals == SIGNALS_MAX {
                drop(state);
                self.open();
                return false;
            }
            signals += 1;
            // A signal that arrives just before the processor is entered is lost: send another.
            vcpus.iter().for_each(|vcpu| vcpu.interrupt());
            let (next, _) = self
                .changed
                .wait_timeout(state, Duration::from_millis(1))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        true
    }

    pub(crate) fn open(&self) {
        let _state = self.state();
        self.is_closed.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Returns why the machine has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Cause> {
        self.state().ended.clone()
    }

    /// Called by a processor's thread: waits while the gate is closed.
    fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        self.changed.notify_all();
        while self.is_closed() || state.ended.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    fn end(&self, cause: Cause) {
        self.state().ended.get_or_insert(cause);
        // The counter overflows after 2^64 - 2 writes that nobody reads.
        drop(self.attention.write(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many signals a processor gets, a millisecond apart, until it counts as stuck. One is enough
/// as a rule; a machine without time for it takes more.
const SIGNALS_MAX: u32 = 5000;

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd) -> Self {
        Self { fd: Mutex::new(fd), process: std::process::id(), thread: AtomicI32::new(0) }
    }

    /// Returns KVM's descriptor. Waits while the processor runs.
    pub(crate) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calling thread the one that will run the processor.
    pub(crate) fn enter_thread(&self) {
        self.thread.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
    }

    /// Runs the processor in this thread. Never returns: after the machine's end it waits.
    pub(crate) fn run(&self, bus: &Bus, gate: &Gate) -> ! {
        loop {
            gate.pass();
            let cause = step(&mut self.fd(), bus, gate);
            if let Some(cause) = cause {
                gate.end(cause);
            }
        }
    }

    #[expect(unsafe_code, reason = "tgkill has no safe wrapper")]
    fn interrupt(&self) {
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: the call takes numbers alone. The thread never ends before the process, so
            // that its number is not used again.
            let _code =
                unsafe { libc::syscall(libc::SYS_tgkill, self.process, thread, Signal::SIGUSR1) };
        }
    }
}

/// Runs a processor until the gate is closed, or the machine ends and the cause is returned.
fn step(vcpu: &mut VcpuFd, bus: &Bus, gate: &Gate) -> Option<Cause> {
    loop {
        let is_closed = gate.is_closed();
        // An access that was handled is completed by the next entry, without running the guest: a
        // state that is saved before would repeat it.
        vcpu.set_kvm_immediate_exit(u8::from(is_closed));
        match vcpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if bus.port_write(port, data) == Next::Reset {
                    return Some(Cause::Shutdown);
                }
            }
            // A triple fault is how the kernel resets the machine.
            Ok(VcpuExit::Shutdown | VcpuExit::Hlt | VcpuExit::SystemEvent(..)) => {
                return Some(Cause::Shutdown);
            }
            Ok(VcpuExit::Intr) => bus.count_other(),
            Ok(other) => {
                return Some(Cause::Failed(format!("run a processor: unexpected exit {other:?}")));
            }
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                bus.count_other();
                if is_closed {
                    return None;
                }
            }
            Err(error) => {
                return Some(Cause::Failed(format!("run a processor: {error}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let attention = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let gate = Gate::closed(Arc::new(attention));
        gate.open();
        gate
    }

    /// A processor that never came to the gate kept the thread of the devices for ever.
    #[test]
    fn a_processor_that_does_not_stop_is_given_up() {
        let gate = gate();
        assert!(gate.close(&[]), "nobody is waited for");
        gate.open();
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            return test_support::left_out("a processor that does not stop", "no /dev/kvm");
        };
        let vm = kvm.create_vm().unwrap();
        let vcpu = Arc::new(Vcpu::new(vm.create_vcpu(0).unwrap()));
        assert!(!gate.close(&[vcpu]), "no thread runs it");
        assert!(!gate.is_closed(), "the machine goes on");
    }
}
