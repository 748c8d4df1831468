//! What the engine tells of itself: counts, explanations, the journal, statistics.

use std::time::Duration;

use super::Engine;
use crate::explain::Explanation;
use crate::journal::Decision;
use crate::{AccountId, FleetView, FunctionId, Time, WorkerView};

/// How a function stands.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FunctionStatus {
    /// Invocations that run.
    pub running: u32,
    /// Invocations that wait for a sandbox.
    pub waiting: u32,
    /// Sandboxes in any state.
    pub sandboxes: u32,
    /// Sandboxes that are idle.
    pub idle: u32,
    /// Its expected concurrency in this minute of the hour.
    pub expected_concurrency: f32,
    /// How far its concurrency is from what is expected, as a standard deviation.
    pub deviation: f32,
    /// Half of its invocations take no longer; `None` before the first ended.
    pub duration_median: Option<Duration>,
    /// 99 of 100 take no longer.
    pub duration_p99: Option<Duration>,
    /// Half of its sandboxes used no more memory, in MiB, where that was told.
    pub memory_median_mib: Option<u64>,
    /// 99 of 100 used no more.
    pub memory_p99_mib: Option<u64>,
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountStatus {
    /// Its limit.
    pub concurrency_max: u32,
    /// What its functions have for themselves, reserved or provisioned.
    pub claimed: u64,
    /// Accepted invocations beyond that.
    pub unreserved: u32,
}

impl Engine {
    /// Returns the time of the last call.
    #[must_use]
    pub fn now(&self) -> Time {
        self.state.clock.outside(self.state.now)
    }

    /// Returns the time that has passed by the engine's own reckoning: the driver's, without steps of its clock.
    #[must_use]
    pub fn elapsed(&self) -> Time {
        self.state.now
    }

    /// Returns the fleet as policies see it.
    #[must_use]
    pub fn fleet(&self) -> FleetView<'_> {
        let state = &self.state;
        FleetView { workers: &state.workers, functions: &state.functions, config: &state.config }
    }

    /// Returns every worker, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.fleet().workers()
    }

    /// Returns how many sandboxes there are, those included that are being made or ended.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.state.sandboxes.len()
    }

    /// Returns how many VMs there are, in any state.
    #[must_use]
    pub fn vms(&self) -> usize {
        self.state.vms.len()
    }

    /// Returns how many VMs are ready in each pool, in the order of their sizes.
    #[must_use]
    pub fn vms_pooled(&self) -> Vec<usize> {
        self.state.vms.pooled()
    }

    /// Returns how many network interfaces there are, in any state.
    #[must_use]
    pub fn interfaces(&self) -> usize {
        self.state.interfaces.len()
    }

    /// Returns how many invocations wait for a sandbox.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.waiting as usize
    }

    /// Returns whether a function's id is in use: it is there, or something of it is.
    #[must_use]
    pub fn knows_function(&self, function: FunctionId) -> bool {
        self.function(function.0).is_some()
    }

    /// Returns how a function stands.
    #[must_use]
    pub fn function_status(&self, function: FunctionId) -> Option<FunctionStatus> {
        let it = self.function(function.0)?;
        let durations = it.durations();
        let (expected_concurrency, deviation) = it.demand.expected(self.state.now);
        Some(FunctionStatus {
            running: it.meter.busy(),
            waiting: it.waiting_count(),
            sandboxes: u32::try_from(it.members.len())
                .unwrap_or(u32::MAX)
                .saturating_add(it.reserved),
            idle: u32::try_from(it.idle().count()).unwrap_or(u32::MAX),
            expected_concurrency,
            deviation,
            duration_median: durations.quantile(500),
            duration_p99: durations.quantile(990),
            memory_median_mib: it.memory_peaks_mib.quantile_number(500),
            memory_p99_mib: it.memory_peaks_mib.quantile_number(990),
        })
    }

    /// Returns how an account stands.
    #[must_use]
    pub fn account_status(&self, account: AccountId) -> AccountStatus {
        let it = self.state.accounts.get(account);
        AccountStatus {
            concurrency_max: it.concurrency_max(self.state.config.account_concurrency_max),
            claimed: it.claimed(),
            unreserved: it.unreserved(),
        }
    }

    /// Returns the decisions that are kept, oldest first: [`Config::explanations_kept`](crate::Config) of them.
    pub fn explanations(&self) -> impl Iterator<Item = &Explanation> {
        self.state.explanations.iter()
    }

    /// Returns how many decisions were dropped as the journal was full: a ledger of it is then incomplete.
    #[must_use]
    pub fn journal_dropped(&self) -> u64 {
        self.state.journal_dropped
    }

    /// Returns the next decision of the journal, where one is kept: each once, in order.
    pub fn poll_journal(&mut self) -> Option<Decision> {
        self.state.journal.pop_front()
    }
}
