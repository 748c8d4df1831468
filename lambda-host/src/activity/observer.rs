//! The handle through which a host's parts tell what happens, and through which it is read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambda_core::{Explanation, RejectReason};
use tokio::time::Instant;

use super::invocations::{Invocation, Invocations, Outcome, Sent};
use super::rates::Rates;
use super::sandboxes::{SandboxState, Sandboxes, Worker};
use crate::clock::now_ms;
use crate::error::Error;
use crate::function::version::{Version, VersionKey};
use crate::invocation::Report;
use crate::metrics::{Registry, Throttle};
use crate::worker::protocol::{Deployment, InvocationId, SandboxId, WorkerId};

/// What a host does now and did lately, and its metrics. Clones share it.
///
/// The driver alone changes the activity, a record or two at a time. Who reads it copies what he
/// shows, and makes text of it when the lock is free again.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    /// The start of the host, from which times are counted.
    began: Instant,
    began_ms: u64,
    /// An observer that is off notes and counts nothing.
    on: bool,
    activity: Arc<Mutex<Activity>>,
    registry: Arc<Registry>,
}

/// What a host does now and did lately.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) invocations: Invocations,
    pub(crate) rates: Rates,
    /// Invocations that wait for a sandbox.
    pub(crate) waiting: u64,
}

impl Observer {
    /// Returns an observer that keeps the last `invocations_kept` invocations; `None` gives one
    /// that is off.
    pub(crate) fn new(invocations_kept: Option<usize>) -> Self {
        let activity = Activity {
            sandboxes: Sandboxes::default(),
            invocations: Invocations::new(invocations_kept.unwrap_or(0)),
            rates: Rates::default(),
            waiting: 0,
        };
        Self {
            began: Instant::now(),
            began_ms: now_ms(),
            on: invocations_kept.is_some(),
            activity: Arc::new(Mutex::new(activity)),
            registry: Arc::new(Registry::new()),
        }
    }

    /// Returns the time since the start of the host.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the start of the host, in milliseconds since 1970-01-01 UTC.
    #[cfg(feature = "http")]
    pub(crate) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// Tells whether anything is noted.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Returns the metrics, to be counted in; `None` if the observer is off.
    pub(crate) fn counted(&self) -> Option<&Registry> {
        self.on.then_some(&*self.registry)
    }

    /// Returns the metrics, to be read.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the activity; what happens meanwhile waits.
    pub(crate) fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn worker_joined(&self, worker: WorkerId, memory_bytes: u64) {
        if self.on {
            let joined_at = self.now();
            self.activity().sandboxes.workers.insert(worker, Worker { memory_bytes, joined_at });
        }
    }

    pub(crate) fn worker_gone(&self, worker: WorkerId) {
        if self.on {
            self.activity().sandboxes.workers.remove(&worker);
        }
    }

    pub(crate) fn sandbox_starting(
        &self,
        sandbox: SandboxId,
        worker: WorkerId,
        deployment: &Deployment,
        function: &str,
        placement: Option<Explanation>,
    ) {
        if self.on {
            let (now, placement) = (self.now(), placement.map(Arc::new));
            let sandboxes = &mut self.activity().sandboxes;
            sandboxes.starting(sandbox, worker, deployment, function, placement, now);
        }
    }

    pub(crate) fn sandbox_ready(&self, sandbox: SandboxId, init: Duration) {
        if !self.on {
            return;
        }
        let now = self.now();
        let mut activity = self.activity();
        activity.sandboxes.ready(sandbox, init, now);
        let started = activity.sandboxes.by_id.get(&sandbox).map(|it| it.starting_at);
        drop(activity);
        if let Some(starting_at) = started {
            let start = now.saturating_sub(starting_at).saturating_sub(init);
            self.registry.started(start);
        }
    }

    pub(crate) fn sandbox_failed(&self, by_function: bool) {
        if self.on {
            self.registry.start_failed(by_function);
        }
    }

    pub(crate) fn sandbox_stopping(&self, sandbox: SandboxId) {
        if self.on {
            let now = self.now();
            self.activity().sandboxes.set(sandbox, SandboxState::Stopping, now);
        }
    }

    pub(crate) fn sandbox_gone(&self, sandbox: SandboxId) {
        if self.on {
            self.activity().sandboxes.gone(sandbox);
        }
    }

    /// Notes an invocation of a version of `function`, as metrics name it; the caller named it by
    /// `function_arn`.
    pub(crate) fn arrived(
        &self,
        id: InvocationId,
        function: &str,
        version: Version,
        function_arn: &str,
        request_id: &str,
        trace_id: Option<&str>,
    ) {
        if !self.on {
            return;
        }
        let named = function_arn.split_once(":function:");
        let resource = named.map_or(function, |it| it.1);
        let invocation = Invocation {
            metrics: self.registry.resource(function, resource),
            request_id: request_id.to_owned(),
            version,
            trace_id: trace_id.map(str::to_owned),
            arrived_at: self.now(),
            sent: None,
            ended_at: None,
            freeze: None,
            outcome: Outcome::Waiting,
            report: None,
        };
        let mut activity = self.activity();
        activity.waiting += 1;
        activity.invocations.insert(id, invocation);
    }

    /// Notes how long the engine decided on an invocation.
    pub(crate) fn placed(&self, duration: Duration) {
        self.registry.placed(duration);
    }

    pub(crate) fn dispatched(&self, id: InvocationId, sandbox_id: SandboxId) {
        if !self.on {
            return;
        }
        let now = self.now();
        let mut activity = self.activity();
        let Activity { sandboxes, invocations, rates, waiting } = &mut *activity;
        let Some(invocation) = invocations.get_mut(id) else { return };
        let Some(sandbox) = sandboxes.by_id.get_mut(&sandbox_id) else { return };
        *waiting = waiting.saturating_sub(1);
        let ready_at = sandbox.ready_at.unwrap_or(now);
        let waited = sandbox.invocations == 0 && ready_at >= invocation.arrived_at;
        let cold = waited.then_some(sandbox.cause);
        rates.at(now).cold_starts += u32::from(waited);
        invocation.outcome = Outcome::Running;
        invocation.sent = Some(Sent {
            at: now,
            sandbox: sandbox_id,
            worker: sandbox.worker,
            served_before: sandbox.invocations,
            starting_at: sandbox.starting_at,
            ready_at,
            init: sandbox.init,
            cold,
            placement: sandbox.placement.clone(),
        });
        sandbox.invocations += 1;
        invocation.metrics.began(now.saturating_sub(invocation.arrived_at), cold);
        sandboxes.set(sandbox_id, SandboxState::Busy, now);
    }

    /// Notes the end of an invocation with an answer.
    pub(crate) fn ended(&self, id: InvocationId, failed: bool, report: &Report) {
        if !self.on {
            return;
        }
        let now = self.now();
        let mut activity = self.activity();
        let Activity { sandboxes, invocations, rates, waiting } = &mut *activity;
        let Some(invocation) = invocations.get_mut(id) else { return };
        let counts = rates.at(now);
        counts.invocations += 1;
        counts.errors += u32::from(failed);
        invocation.ended_at = Some(now);
        invocation.report = Some(*report);
        invocation.outcome = if failed { Outcome::FunctionError } else { Outcome::Succeeded };
        match &invocation.sent {
            Some(sent) => {
                sandboxes.set(sent.sandbox, SandboxState::Idle, now);
                if let Some(sandbox) = sandboxes.by_id.get_mut(&sent.sandbox) {
                    sandbox.memory_peak_bytes = report.memory_peak_bytes;
                }
            }
            None => *waiting = waiting.saturating_sub(1),
        }
        let ran = invocation.sent.is_some();
        invocation.metrics.ended(report.duration, report.init_duration, failed, ran);
        invocations.end(id);
    }

    /// Notes an invocation that goes to another sandbox, as a new one.
    pub(crate) fn handed_back(&self, id: InvocationId) {
        if self.on
            && let Some(invocation) = self.activity().invocations.remove(id)
        {
            invocation.metrics.handed_back();
        }
    }

    /// Notes an invocation that was refused.
    pub(crate) fn refused(&self, id: InvocationId, reason: Option<RejectReason>, error: &Error) {
        if !self.on {
            return;
        }
        let now = self.now();
        let throttle = reason.and_then(throttle);
        let words = error.to_string();
        let mut activity = self.activity();
        let Activity { invocations, rates, waiting, .. } = &mut *activity;
        let Some(invocation) = invocations.get_mut(id) else { return };
        rates.at(now).throttles += u32::from(throttle.is_some());
        invocation.ended_at = Some(now);
        invocation.outcome = match throttle {
            Some(_) => Outcome::Throttled(words),
            None => Outcome::Refused(words),
        };
        match invocation.sent {
            Some(_) => invocation.metrics.handed_back(),
            None => *waiting = waiting.saturating_sub(1),
        }
        invocation.metrics.refused(throttle);
        invocations.end(id);
    }

    /// Notes how long it took from an answer until its sandbox was frozen.
    pub(crate) fn frozen(&self, id: InvocationId, duration: Duration) {
        if !self.on {
            return;
        }
        if let Some(invocation) = self.activity().invocations.get_mut(id) {
            invocation.freeze = Some(duration);
        }
        self.registry.frozen(duration);
    }

    pub(crate) fn function_removed(&self, key: &VersionKey, function: &str) {
        if !self.on {
            return;
        }
        self.activity().sandboxes.forget(key);
        if key.version == Version::Latest {
            self.registry.forget(function);
        }
    }
}

fn throttle(reason: RejectReason) -> Option<Throttle> {
    Some(match reason {
        RejectReason::ReservedConcurrency => Throttle::Reserved,
        RejectReason::AccountConcurrency => Throttle::Account,
        RejectReason::ScalingRate => Throttle::ScalingRate,
        RejectReason::WaitingFull => Throttle::Waiting,
        RejectReason::NoCapacity | RejectReason::FunctionTooLarge => Throttle::Capacity,
        _ => return None,
    })
}
