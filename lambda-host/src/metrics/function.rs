//! What is counted for one function as one resource: the function itself, or a version or alias of
//! it.

use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The limit on the number of waiting invocations.
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

/// The counts of one resource. Each is an atomic number: who counts waits for nobody.
#[derive(Debug)]
pub(crate) struct ResourceMetrics {
    /// The function, as metrics name it.
    pub(crate) function: Box<str>,
    /// As callers named it: `name` or `name:qualifier`.
    pub(crate) resource: Box<str>,
    pub(super) invocations: Count,
    pub(super) errors: Count,
    /// In the order of [`Throttle::ALL`].
    pub(super) throttles: [Count; 5],
    /// Refused for another reason than a limit.
    pub(super) refused: Count,
    pub(super) running: Count,
    pub(super) duration: Histogram,
    pub(super) init: Sum,
    pub(super) queued: Sum,
    /// In the order of [`ColdStart::ALL`].
    pub(super) cold_starts: [Count; 4],
    pub(super) events: EventMetrics,
}

/// A number that many count in.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// The counts of event invocations and of polled sources.
#[derive(Debug, Default)]
pub(super) struct EventMetrics {
    pub(super) received: Count,
    pub(super) dropped: Count,
    pub(super) dead_letter_errors: Count,
    pub(super) delivery_failures: Count,
    pub(super) recursive_dropped: Count,
    pub(super) age: Sum,
    pub(super) iterator_age: Sum,
}

impl Count {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn subtract(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ResourceMetrics {
    pub(super) fn new(function: &str, resource: &str) -> Self {
        Self {
            function: function.into(),
            resource: resource.into(),
            invocations: Count::default(),
            errors: Count::default(),
            throttles: Default::default(),
            refused: Count::default(),
            running: Count::default(),
            duration: Histogram::new(DURATION_BOUNDS),
            init: Sum::default(),
            queued: Sum::default(),
            cold_starts: Default::default(),
            events: EventMetrics::default(),
        }
    }

    /// Counts the start of an invocation in a sandbox, after `queued` in which it waited for one.
    pub(crate) fn began(&self, queued: Duration, cold: Option<ColdStart>) {
        self.running.add(1);
        self.queued.observe(queued);
        let cause = cold.and_then(|cause| ColdStart::ALL.iter().position(|it| *it == cause));
        if let Some(at) = cause {
            self.cold_starts[at].add(1);
        }
    }

    /// Counts the end of an invocation. `ran` tells whether [`Self::began`] was called for it.
    pub(crate) fn ended(
        &self,
        duration: Duration,
        init: Option<Duration>,
        failed: bool,
        ran: bool,
    ) {
        self.running.subtract(u64::from(ran));
        self.invocations.add(1);
        self.errors.add(u64::from(failed));
        self.duration.observe(duration);
        if let Some(init) = init {
            self.init.observe(init);
        }
    }

    /// Counts the end of an invocation that goes to another sandbox.
    pub(crate) fn handed_back(&self) {
        self.running.subtract(1);
    }

    /// Counts an invocation that was refused, by the limit that it met.
    pub(crate) fn refused(&self, throttle: Option<Throttle>) {
        let at = throttle.and_then(|throttle| Throttle::ALL.iter().position(|it| *it == throttle));
        match at {
            Some(at) => self.throttles[at].add(1),
            None => self.refused.add(1),
        }
    }

    pub(crate) fn event_received(&self) {
        self.events.received.add(1);
    }

    /// Counts the age of an event when it is invoked.
    pub(crate) fn event_begun(&self, age: Duration) {
        self.events.age.observe(age);
    }

    pub(crate) fn event_dropped(&self) {
        self.events.dropped.add(1);
    }

    pub(crate) fn dead_letter_error(&self) {
        self.events.dead_letter_errors.add(1);
    }

    pub(crate) fn delivery_failure(&self) {
        self.events.delivery_failures.add(1);
    }

    pub(crate) fn recursion_dropped(&self) {
        self.events.recursive_dropped.add(1);
    }

    /// Counts the age of the last record of a batch of a stream when the function gets it.
    #[cfg_attr(not(feature = "services"), expect(dead_code, reason = "only sources have an age"))]
    pub(crate) fn iterator_age(&self, age: Duration) {
        self.events.iterator_age.observe(age);
    }
}

/// In seconds; up to Lambda's longest timeout.
const DURATION_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 900.0];
