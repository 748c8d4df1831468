//! The invocations that run, and the last ones that ended, with their phases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lambda_core::Explanation;

use crate::function::version::Version;
use crate::invocation::Report;
use crate::metrics::{ColdStart, ResourceMetrics};
use crate::worker::protocol::{InvocationId, SandboxId, WorkerId};

/// An invocation. Times are since the start of the host.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// Its function and the resource that the caller named, with their counts.
    pub(crate) metrics: Arc<ResourceMetrics>,
    pub(crate) request_id: String,
    pub(crate) version: Version,
    pub(crate) trace_id: Option<String>,
    pub(crate) arrived_at: Duration,
    pub(crate) sent: Option<Sent>,
    pub(crate) ended_at: Option<Duration>,
    /// From the answer until the sandbox was frozen.
    pub(crate) freeze: Option<Duration>,
    pub(crate) outcome: Outcome,
    pub(crate) report: Option<Report>,
}

/// Where an invocation was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) sandbox: SandboxId,
    pub(crate) worker: WorkerId,
    /// What the sandbox ran before.
    pub(crate) served_before: u64,
    /// When the sandbox was begun, when it was ready, and how long its init took.
    pub(crate) starting_at: Duration,
    pub(crate) ready_at: Duration,
    pub(crate) init: Duration,
    /// Why it waited for a new sandbox; `None` if the sandbox was there.
    pub(crate) cold: Option<ColdStart>,
    /// Why the sandbox is on its worker.
    pub(crate) placement: Option<Arc<Explanation>>,
}

/// How an invocation ended, or that it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Waiting,
    Running,
    Succeeded,
    FunctionError,
    /// It met a limit, in words.
    Throttled(String),
    /// It was refused, in words.
    Refused(String),
}

/// A part of an invocation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    /// Since the start of the host.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Invocation {
    /// Returns the phases so far in their order; those that took no time are left out.
    pub(crate) fn phases(&self, now: Duration) -> Vec<Phase> {
        let arrived = self.arrived_at;
        let mut phases = Vec::new();
        let mut add = |name, from: Duration, to: Duration| {
            if to > from {
                phases.push(Phase { name, from, to });
            }
        };
        let Some(sent) = &self.sent else {
            add("queue", arrived, self.ended_at.unwrap_or(now));
            return phases;
        };
        // A sandbox that others waited for may have been begun before this invocation came.
        let init_from = sent.ready_at.saturating_sub(sent.init).max(sent.starting_at);
        let within = |at: Duration| at.clamp(arrived, sent.at);
        match sent.cold {
            Some(_) => {
                add("queue", arrived, within(sent.starting_at));
                add("start", within(sent.starting_at), within(init_from));
                add("init", within(init_from), within(sent.ready_at));
                add("queue", within(sent.ready_at), sent.at);
            }
            None => add("queue", arrived, sent.at),
        }
        let ended = self.ended_at.unwrap_or(now);
        add("run", sent.at, ended);
        if let Some(freeze) = self.freeze {
            add("freeze", ended, ended + freeze);
        }
        phases
    }
}

/// The invocations that run, and the last ones that ended.
#[derive(Debug)]
pub(crate) struct Invocations {
    /// By number, which grows with time.
    pub(crate) by_id: BTreeMap<u64, Invocation>,
    /// Those that ended, in the order of their ends.
    ended: VecDeque<u64>,
    kept: usize,
}

impl Invocations {
    /// Returns a record that keeps so many invocations that ended.
    pub(super) fn new(kept: usize) -> Self {
        Self { by_id: BTreeMap::new(), ended: VecDeque::new(), kept }
    }

    pub(super) fn get_mut(&mut self, id: InvocationId) -> Option<&mut Invocation> {
        self.by_id.get_mut(&id.0)
    }

    pub(super) fn insert(&mut self, id: InvocationId, invocation: Invocation) {
        self.by_id.insert(id.0, invocation);
    }

    pub(super) fn remove(&mut self, id: InvocationId) -> Option<Invocation> {
        self.by_id.remove(&id.0)
    }

    /// Notes an end; the oldest end is forgotten if there are too many.
    pub(super) fn end(&mut self, id: InvocationId) {
        self.ended.push_back(id.0);
        while self.ended.len() > self.kept {
            if let Some(oldest) = self.ended.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    fn invocation() -> Invocation {
        Invocation {
            metrics: Registry::new().resource("f", "f"),
            request_id: "r".to_owned(),
            version: Version::Latest,
            trace_id: None,
            arrived_at: Duration::from_millis(100),
            sent: None,
            ended_at: None,
            freeze: None,
            outcome: Outcome::Waiting,
            report: None,
        }
    }

    fn sent(starting: u64, ready: u64, init: u64, at: u64, cold: Option<ColdStart>) -> Sent {
        let ms = Duration::from_millis;
        Sent {
            at: ms(at),
            sandbox: SandboxId(1),
            worker: WorkerId(0),
            served_before: 0,
            starting_at: ms(starting),
            ready_at: ms(ready),
            init: ms(init),
            cold,
            placement: None,
        }
    }

    fn check(invocation: &Invocation, expected: &[(&str, u64, u64)]) {
        let ms = |it: Duration| u64::try_from(it.as_millis()).unwrap();
        let phases = invocation.phases(Duration::from_millis(1000));
        let phases: Vec<_> = phases.iter().map(|it| (it.name, ms(it.from), ms(it.to))).collect();
        assert_eq!(phases, expected);
    }

    #[test]
    fn phases_follow_one_another_without_a_gap() {
        let mut it = invocation();
        check(&it, &[("queue", 100, 1000)]);
        it.sent = Some(sent(110, 150, 30, 150, Some(ColdStart::First)));
        it.ended_at = Some(Duration::from_millis(160));
        it.freeze = Some(Duration::from_millis(2));
        let rest = [("run", 150, 160), ("freeze", 160, 162)];
        check(
            &it,
            &[&[("queue", 100, 110), ("start", 110, 120), ("init", 120, 150)], &rest[..]].concat(),
        );
        // The sandbox was begun for another invocation, before this one came.
        it.sent = Some(sent(50, 150, 30, 150, Some(ColdStart::ScaleOut)));
        check(&it, &[&[("start", 100, 120), ("init", 120, 150)], &rest[..]].concat());
        it.sent = Some(sent(10, 20, 5, 100, None));
        check(&it, &[("run", 100, 160), ("freeze", 160, 162)]);
    }

    #[test]
    fn the_oldest_ends_are_forgotten_and_what_runs_is_not() {
        let mut invocations = Invocations::new(10);
        for id in 0..100 {
            invocations.insert(InvocationId(id), invocation());
        }
        (1..100).for_each(|id| invocations.end(InvocationId(id)));
        let kept: Vec<_> = invocations.by_id.keys().copied().collect();
        assert_eq!(kept, [&[0][..], &(90..100).collect::<Vec<_>>()].concat());
    }
}
