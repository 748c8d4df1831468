//! The invariants by name, and their violations.

/// A property that holds at all times, whatever the driver reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Invariant {
    /// A sandbox runs one function, and one revision of it, for its whole life.
    OneFunctionPerSandbox,
    /// A VM runs sandboxes of one customer; with
    /// [`Isolation::VmPerSandbox`](crate::Isolation::VmPerSandbox), one sandbox.
    OneCustomerPerVm,
    /// A sandbox runs one invocation at a time.
    OneInvocationAtATime,
    /// Nothing is dispatched to or placed on a sandbox, VM or worker that drains, failed, was
    /// stopped or is gone.
    NothingToWhatEnds,
    /// A busy sandbox is stopped only when its invocation is timed out.
    BusyIsNotStopped,
    /// The memory and processor time that workers and VMs give away stay within their limits, and
    /// a worker under pressure gives away nothing.
    CapacityHolds,
    /// A worker has no more sandboxes with an interface than slots, and an interface no more
    /// sandboxes than its limit.
    InterfaceSlotsHold,
    /// A sandbox starts only on a worker with the labels that its function needs.
    LabelsHold,
    /// Account, reserved and provisioned concurrency and the number of a function's sandboxes are
    /// within their limits.
    LimitsHold,
    /// Every accepted invocation ends exactly once.
    InvocationsEndOnce,
    /// An idle sandbox is stopped within the idle timeout.
    IdleIsGoneInTime,
    /// A worker drains, and its last invocation ends, within its window
    /// ([`Recycling`](crate::Recycling)).
    WorkersEndInTheirWindow,
    /// A worker that joins or leaves causes no stops on other workers.
    OthersStayWhereTheyAre,
    /// The engine's state is bounded by the live fleet and the configured limits.
    StateIsBounded,
    /// Commands are consistent: ids are new, workers and deadlines are right, due timers have
    /// fired.
    CommandsMakeSense,
}

/// A violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant that does not hold.
    pub invariant: Invariant,
    /// The violated rule of the invariant, in words.
    pub rule: &'static str,
    /// The command or values that violate it.
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
