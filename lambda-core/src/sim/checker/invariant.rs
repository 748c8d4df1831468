//! The invariants by name, and what breaks one.

/// What holds at all times, whatever the driver says and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Invariant {
    /// A sandbox runs one function, and one revision of it, all its life.
    OneFunctionPerSandbox,
    /// A VM is one customer's; where VMs are each one's, one sandbox's.
    OneCustomerPerVm,
    /// A sandbox runs one invocation at a time.
    OneInvocationAtATime,
    /// Nothing is dispatched to, or placed on, what drains, failed, was stopped or is gone.
    NothingToWhatEnds,
    /// Nothing busy is stopped, but for its timeout.
    BusyIsNotStopped,
    /// Memory and processor time of workers and VMs are given away within their limits.
    CapacityHolds,
    /// A worker's slots for network interfaces hold, and an interface is shared by no more than may.
    InterfaceSlotsHold,
    /// Account, reserved and provisioned concurrency, and starts at once, hold.
    LimitsHold,
    /// Every accepted invocation ends exactly once.
    InvocationsEndOnce,
    /// Idle sandboxes are gone by the idle timeout.
    IdleIsGoneInTime,
    /// A worker's end is within its window.
    WorkersEndInTheirWindow,
    /// A worker that joins or leaves moves no sandbox that it does not hold.
    OthersStayWhereTheyAre,
    /// The state is bounded by the live fleet and the configured limits.
    StateIsBounded,
    /// Commands make sense: ids are new, places are right, timers that are due have fired.
    CommandsMakeSense,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Which rule of it, in words.
    pub rule: &'static str,
    /// What happened.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}: {}", self.invariant, self.rule, self.detail)
    }
}

impl std::error::Error for Violation {}

pub(super) type Checked = Result<(), Violation>;

pub(super) fn hold(
    holds: bool,
    invariant: Invariant,
    rule: &'static str,
    detail: impl FnOnce() -> String,
) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, rule, detail: detail() }) }
}
