//! What is counted for one function as one resource: the function itself, or a version or alias of it.

use std::time::Duration;

use super::histogram::{Histogram, Sum};

/// Why an invocation waited for a new sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ColdStart {
    /// The version had no sandbox since the host started.
    First,
    /// The function's code or settings changed.
    Deployment,
    /// Its sandboxes had ended: after their idle time, for room, or by a failure.
    Expired,
    /// All its sandboxes were busy.
    ScaleOut,
}

impl ColdStart {
    pub(crate) const ALL: [Self; 4] =
        [Self::First, Self::Deployment, Self::Expired, Self::ScaleOut];

    /// Returns the name of the cause, as it stands in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Deployment => "deployment",
            Self::Expired => "expired",
            Self::ScaleOut => "scale_out",
        }
    }
}

/// Which limit an invocation met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Throttle {
    /// The function's reserved concurrency.
    Reserved,
    /// The account's concurrency.
    Account,
    /// The function's scaling rate.
    ScalingRate,
    /// The number of invocations that may wait.
    Waiting,
    /// The memory of all workers.
    Capacity,
}

impl Throttle {
    pub(crate) const ALL: [Self; 5] =
        [Self::Reserved, Self::Account, Self::ScalingRate, Self::Waiting, Self::Capacity];

    /// Returns the name of the limit, as it stands in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved_concurrency",
            Self::Account => "account_concurrency",
            Self::ScalingRate => "scaling_rate",
            Self::Waiting => "waiting",
            Self::Capacity => "capacity",
        }
    }
}

/// The counts of one resource.
#[derive(Clone, Debug)]
pub(super) struct FunctionMetrics {
    pub(super) invocations: u64,
    pub(super) errors: u64,
    /// In the order of [`Throttle::ALL`].
    pub(super) throttles: [u64; 5],
    /// Refused for another reason than a limit.
    pub(super) refused: u64,
    pub(super) running: u64,
    pub(super) duration: Histogram,
    pub(super) init: Sum,
    pub(super) queued: Sum,
    /// In the order of [`ColdStart::ALL`].
    pub(super) cold_starts: [u64; 4],
    pub(super) events: EventMetrics,
}

/// The counts of event invocations and of polled sources.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventMetrics {
    pub(super) received: u64,
    pub(super) dropped: u64,
    pub(super) dead_letter_errors: u64,
    pub(super) delivery_failures: u64,
    pub(super) recursive_dropped: u64,
    pub(super) age: Sum,
    pub(super) iterator_age: Sum,
}

impl FunctionMetrics {
    pub(super) fn new() -> Self {
        Self {
            invocations: 0,
            errors: 0,
            throttles: [0; 5],
            refused: 0,
            running: 0,
            duration: Histogram::new(DURATION_BOUNDS),
            init: Sum::default(),
            queued: Sum::default(),
            cold_starts: [0; 4],
            events: EventMetrics::default(),
        }
    }

    pub(super) fn ended(&mut self, duration: Duration, init: Option<Duration>, failed: bool) {
        self.invocations += 1;
        self.errors += u64::from(failed);
        self.duration.observe(duration);
        if let Some(init) = init {
            self.init.observe(init);
        }
    }

    pub(super) fn throttled(&mut self, throttle: Throttle) {
        let at = Throttle::ALL.iter().position(|it| *it == throttle).unwrap_or_default();
        self.throttles[at] += 1;
    }

    pub(super) fn cold_start(&mut self, cause: ColdStart) {
        let at = ColdStart::ALL.iter().position(|it| *it == cause).unwrap_or_default();
        self.cold_starts[at] += 1;
    }
}

/// In seconds; up to Lambda's longest timeout.
const DURATION_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 900.0];
