//! The engine's record of a sandbox: 72 bytes with its slot.

use crate::command::StopReason;
use crate::id::{FunctionId, InvocationId, WorkerId};
use crate::store::slab::NONE;
use crate::store::slot::{InterfaceSlot, SandboxSlot, UNLINKED, VmSlot};
use crate::time::Time;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Sandbox {
    /// Busy: the invocation that it runs. Idle: the lower 32 bits are its place in the function's
    /// idle list; the upper 32 bits are 1 if it has run an invocation, else 0.
    work: u64,
    /// The time of its last change of state.
    pub(crate) since: Time,
    pub(crate) function: FunctionId,
    pub(crate) worker: WorkerId,
    pub(crate) vm: VmSlot,
    pub(crate) interface: InterfaceSlot,
    /// The memory that it holds, of its VM if it has one, else of its worker.
    pub(crate) memory_kib: u32,
    pub(crate) cpu_milli: u32,
    /// Its index in the function's `members`.
    pub(crate) member: u32,
    /// The neighbours in the list of its worker's sandboxes.
    pub(crate) worker_next: SandboxSlot,
    pub(crate) worker_prev: SandboxSlot,
    /// The neighbours in its list of the timer wheel.
    pub(crate) wheel_next: SandboxSlot,
    pub(crate) wheel_prev: SandboxSlot,
    /// Its list of the timer wheel.
    pub(crate) wheel_slot: u16,
    pub(crate) state: State,
    pub(crate) marks: Marks,
}

/// Flags of a sandbox, and in the upper four bits the reason of its stop.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Marks(u8);

impl Marks {
    const SLOT: u8 = 1;
    const STALE: u8 = 2;
    const OLD: u8 = 4;
    const REASON_SHIFT: u32 = 4;

    /// Returns the flags of a new sandbox. `slot`: it occupies an interface slot of its worker.
    pub(crate) fn new(slot: bool) -> Self {
        Self(if slot { Self::SLOT } else { 0 })
    }

    /// Returns whether it occupies an interface slot of its worker.
    pub(crate) fn slot(self) -> bool {
        self.0 & Self::SLOT != 0
    }

    /// Returns whether it must end after its invocation: its revision is old, or its interface is
    /// gone.
    pub(crate) fn stale(self) -> bool {
        self.0 & Self::STALE != 0
    }

    /// Marks it to end after its invocation.
    pub(crate) fn set_stale(&mut self) {
        self.0 = self.0 & !Self::OLD | Self::STALE;
    }

    /// Marks it as of the previous revision: stale, but it may serve during a rollout.
    pub(crate) fn set_old(&mut self) {
        self.0 |= Self::STALE | Self::OLD;
    }

    /// Returns whether it is of the previous revision and may serve during a rollout.
    pub(crate) fn old(self) -> bool {
        self.0 & Self::OLD != 0
    }

    /// Stores the reason of the stop.
    pub(crate) fn set_reason(&mut self, reason: StopReason) {
        let number = REASONS.iter().position(|it| *it == reason).unwrap_or_default();
        let number = u8::try_from(number).unwrap_or_default();
        self.0 = self.0 & ((1 << Self::REASON_SHIFT) - 1) | number << Self::REASON_SHIFT;
    }

    /// Returns the stored reason of the stop; `Idle` if none was stored.
    pub(crate) fn reason(self) -> StopReason {
        let number = usize::from(self.0 >> Self::REASON_SHIFT);
        REASONS.get(number).copied().unwrap_or(StopReason::Idle)
    }
}

/// The stop reasons, by the number that is stored.
const REASONS: [StopReason; 10] = [
    StopReason::Idle,
    StopReason::Draining,
    StopReason::FunctionRemoved,
    StopReason::Evicted,
    StopReason::StartTimedOut,
    StopReason::Stray,
    StopReason::PrerequisiteGone,
    StopReason::TimedOut,
    StopReason::NotReusable,
    StopReason::Gone,
];

/// The fields of a new sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) function: FunctionId,
    pub(crate) worker: WorkerId,
    pub(crate) vm: VmSlot,
    pub(crate) memory_kib: u32,
    pub(crate) cpu_milli: u32,
    pub(crate) member: u32,
    pub(crate) slot: bool,
}

impl Sandbox {
    /// Returns a sandbox without an interface, in no list.
    pub(crate) fn new(made: Made, state: State, now: Time) -> Self {
        Self {
            work: 0,
            since: now,
            function: made.function,
            worker: made.worker,
            vm: made.vm,
            interface: InterfaceSlot::NONE,
            memory_kib: made.memory_kib,
            cpu_milli: made.cpu_milli,
            member: made.member,
            worker_next: SandboxSlot::NONE,
            worker_prev: SandboxSlot::NONE,
            wheel_next: SandboxSlot::NONE,
            wheel_prev: SandboxSlot::NONE,
            wheel_slot: UNLINKED,
            state,
            marks: Marks::new(made.slot),
        }
    }

    /// Returns whether it runs this invocation.
    pub(crate) fn runs(&self, invocation: InvocationId) -> bool {
        self.state == State::Busy && self.work == invocation.0
    }

    /// Returns the invocation that it runs. Meaningful only while it is busy.
    pub(crate) fn invocation(&self) -> InvocationId {
        InvocationId(self.work)
    }

    /// Makes it busy with an invocation.
    pub(crate) fn run(&mut self, invocation: InvocationId, now: Time) {
        (self.state, self.since, self.work) = (State::Busy, now, invocation.0);
    }

    /// Returns its place in the function's idle list. Meaningful only while it is idle.
    pub(crate) fn idle_place(&self) -> u32 {
        u32::try_from(self.work & u64::from(u32::MAX)).unwrap_or(NONE)
    }

    /// Returns whether it has run an invocation. Meaningful only while it is idle.
    pub(crate) fn is_used(&self) -> bool {
        self.work >> 32 != 0
    }

    /// Stores its place in the function's idle list.
    pub(crate) fn set_idle_place(&mut self, place: u32, used: bool) {
        self.work = u64::from(used) << 32 | u64::from(place);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum State {
    /// Its VM or its network interface is not ready; no start was commanded yet.
    Waiting,
    Starting,
    Idle,
    Busy,
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_72_bytes() {
        // 64 bytes, and with the slot's generation (4 bytes) and alignment 72.
        assert_eq!(size_of::<Option<Sandbox>>(), 64);
    }

    #[test]
    fn an_idle_one_knows_its_place_and_whether_it_was_used() {
        let made = Made {
            function: FunctionId(0),
            worker: WorkerId(0),
            vm: VmSlot::NONE,
            memory_kib: 1,
            cpu_milli: 1,
            member: 0,
            slot: true,
        };
        let mut sandbox = Sandbox::new(made, State::Idle, Time::ZERO);
        for (place, used) in [(0, false), (u32::MAX, false), (7, true)] {
            sandbox.set_idle_place(place, used);
            assert_eq!((sandbox.idle_place(), sandbox.is_used()), (place, used));
        }
        sandbox.run(InvocationId(u64::MAX), Time::ZERO);
        assert!(sandbox.runs(InvocationId(u64::MAX)) && !sandbox.runs(InvocationId(7)));
        sandbox.marks.set_old();
        assert!(sandbox.marks.stale() && sandbox.marks.old());
        sandbox.marks.set_stale();
        assert!(!sandbox.marks.old());
        for reason in REASONS {
            sandbox.marks.set_reason(reason);
            assert_eq!(sandbox.marks.reason(), reason);
        }
        assert!(sandbox.marks.slot() && sandbox.marks.stale());
    }
}
