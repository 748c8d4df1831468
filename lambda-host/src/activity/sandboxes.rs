//! Workers and sandboxes as an observer sees them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lambda_core::Explanation;

use crate::function::version::VersionKey;
use crate::metrics::{ColdStart, WorkerGauges};
use crate::worker::protocol::{Deployment, SandboxId, WorkerId};

/// A sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) worker: WorkerId,
    /// As metrics name it: functions of other accounts than the host's own bear their account's
    /// number.
    pub(crate) function: Box<str>,
    pub(crate) key: VersionKey,
    pub(crate) deployment: u64,
    pub(crate) memory_mb: u32,
    pub(crate) state: SandboxState,
    /// Times since the start of the host.
    pub(crate) starting_at: Duration,
    pub(crate) ready_at: Option<Duration>,
    pub(crate) changed_at: Duration,
    pub(crate) init: Duration,
    /// How many invocations were sent to it.
    pub(crate) invocations: u64,
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Why the invocations that wait for it do.
    pub(crate) cause: ColdStart,
    /// Why it is on its worker.
    pub(crate) placement: Option<Arc<Explanation>>,
}

/// What a sandbox does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SandboxState {
    Starting,
    Idle,
    Busy,
    Stopping,
}

impl SandboxState {
    pub(crate) const ALL: [Self; 4] = [Self::Starting, Self::Idle, Self::Busy, Self::Stopping];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }
}

/// A worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    pub(crate) memory_bytes: u64,
    /// Since the start of the host.
    pub(crate) joined_at: Duration,
}

/// The sandboxes of a version so far.
#[derive(Clone, Copy, Debug)]
struct Origin {
    deployment: u64,
    live: u32,
}

/// The workers and sandboxes of a host.
#[derive(Debug, Default)]
pub(crate) struct Sandboxes {
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) by_id: BTreeMap<SandboxId, Sandbox>,
    origins: BTreeMap<VersionKey, Origin>,
}

impl Sandboxes {
    pub(super) fn starting(
        &mut self,
        id: SandboxId,
        worker: WorkerId,
        deployment: &Deployment,
        function: &str,
        placement: Option<Arc<Explanation>>,
        now: Duration,
    ) {
        let number = deployment.number;
        let cause = match self.origins.get(&deployment.key()) {
            None => ColdStart::First,
            Some(origin) if origin.deployment != number => ColdStart::Deployment,
            Some(Origin { live: 0, .. }) => ColdStart::Expired,
            Some(_) => ColdStart::ScaleOut,
        };
        let none = Origin { deployment: number, live: 0 };
        let origin = self.origins.entry(deployment.key()).or_insert(none);
        if origin.deployment != number {
            *origin = none;
        }
        origin.live += 1;
        let sandbox = Sandbox {
            worker,
            function: function.into(),
            key: deployment.key(),
            deployment: number,
            memory_mb: deployment.config.memory_mb,
            state: SandboxState::Starting,
            starting_at: now,
            ready_at: None,
            changed_at: now,
            init: Duration::ZERO,
            invocations: 0,
            memory_peak_bytes: None,
            cause,
            placement,
        };
        self.by_id.insert(id, sandbox);
    }

    pub(super) fn ready(&mut self, id: SandboxId, init: Duration, now: Duration) {
        if let Some(sandbox) = self.by_id.get_mut(&id) {
            sandbox.ready_at = Some(now);
            sandbox.init = init;
        }
        self.set(id, SandboxState::Idle, now);
    }

    /// Changes the state of a sandbox. One that ends stays so.
    pub(super) fn set(&mut self, id: SandboxId, state: SandboxState, now: Duration) {
        if let Some(sandbox) = self.by_id.get_mut(&id)
            && sandbox.state != SandboxState::Stopping
        {
            (sandbox.state, sandbox.changed_at) = (state, now);
        }
    }

    pub(super) fn gone(&mut self, id: SandboxId) {
        let Some(sandbox) = self.by_id.remove(&id) else { return };
        if let Some(origin) = self.origins.get_mut(&sandbox.key)
            && origin.deployment == sandbox.deployment
        {
            origin.live = origin.live.saturating_sub(1);
        }
    }

    pub(super) fn forget(&mut self, key: &VersionKey) {
        self.origins.remove(key);
    }

    /// Returns the state of each worker.
    pub(crate) fn gauges(&self) -> Vec<WorkerGauges> {
        let gauges = |(id, worker): (&WorkerId, &Worker)| WorkerGauges {
            worker: id.0,
            memory_bytes: worker.memory_bytes,
            reserved_bytes: 0,
            sandboxes: SandboxState::ALL.map(|state| (state.name(), 0)).to_vec(),
        };
        let mut all: BTreeMap<u32, WorkerGauges> =
            self.workers.iter().map(|it| (it.0.0, gauges(it))).collect();
        for sandbox in self.by_id.values() {
            let Some(gauges) = all.get_mut(&sandbox.worker.0) else { continue };
            gauges.reserved_bytes += u64::from(sandbox.memory_mb) << 20;
            let at = SandboxState::ALL.iter().position(|it| *it == sandbox.state);
            if let Some((_, count)) = at.and_then(|at| gauges.sandboxes.get_mut(at)) {
                *count += 1;
            }
        }
        all.into_values().collect()
    }
}
