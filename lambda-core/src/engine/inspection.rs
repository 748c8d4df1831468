//! Inspection of the engine: counts, statistics, explanations and the journal.

use std::time::Duration;

use super::Engine;
use crate::explain::Explanation;
use crate::id::{AccountId, FunctionId};
use crate::journal::Decision;
use crate::placement::fleet::{FleetView, WorkerView};
use crate::time::Time;

/// The state of a function.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FunctionStatus {
    /// The number of running invocations.
    pub running: u32,
    /// The number of invocations that wait for a sandbox.
    pub waiting: u32,
    /// The number of sandboxes in any state, and of those for which room is reserved.
    pub sandboxes: u32,
    /// The number of idle sandboxes.
    pub idle: u32,
    /// The median duration of invocations; `None` before the first one ended.
    pub duration_median: Option<Duration>,
    /// The 99th percentile of durations; `None` before the first invocation ended.
    pub duration_p99: Option<Duration>,
    /// The median of the invocations' highest memory use, in MiB; `None` if none was reported.
    pub memory_median_mib: Option<u64>,
    /// The 99th percentile of the invocations' highest memory use, in MiB; `None` if none was
    /// reported.
    pub memory_p99_mib: Option<u64>,
}

/// The state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountStatus {
    /// Its concurrency limit.
    pub concurrency_max: u32,
    /// The sum of its functions' reserved and provisioned concurrency.
    pub claimed: u64,
    /// The number of accepted invocations that count against the rest of the limit.
    pub unreserved: u32,
}

impl Engine {
    /// Returns the engine's current time, in the driver's time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.state.clock.outside(self.state.now)
    }

    /// Returns the engine's own time: the driver's, without steps of its clock.
    #[must_use]
    pub fn elapsed(&self) -> Time {
        self.state.now
    }

    /// Returns the fleet as placement policies see it.
    #[must_use]
    pub fn fleet(&self) -> FleetView<'_> {
        let state = &self.state;
        FleetView { workers: &state.workers, functions: &state.functions, config: &state.config }
    }

    /// Returns every worker, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.fleet().workers()
    }

    /// Returns the number of sandboxes, in any state.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.state.sandboxes.len()
    }

    /// Returns the number of VMs, in any state.
    #[must_use]
    pub fn vms(&self) -> usize {
        self.state.vms.len()
    }

    /// Returns the number of ready VMs in each pool, in the order of
    /// [`VmConfig::pool_sizes_bytes`](crate::VmConfig::pool_sizes_bytes).
    #[must_use]
    pub fn vms_pooled(&self) -> Vec<usize> {
        self.state.vms.pooled()
    }

    /// Returns the number of network interfaces, in any state.
    #[must_use]
    pub fn interfaces(&self) -> usize {
        self.state.interfaces.len()
    }

    /// Returns the number of invocations that wait for a sandbox.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.waiting as usize
    }

    /// Returns whether a function's id is in use: by a function, or by sandboxes of a removed one.
    #[must_use]
    pub fn knows_function(&self, function: FunctionId) -> bool {
        self.function(function).is_some()
    }

    /// Returns the state of a function, or `None` if its id is not in use.
    #[must_use]
    pub fn function_status(&self, function: FunctionId) -> Option<FunctionStatus> {
        let it = self.function(function)?;
        let durations = it.durations();
        Some(FunctionStatus {
            running: it.meter.busy(),
            waiting: it.waiting_count(),
            sandboxes: u32::try_from(it.members.len())
                .unwrap_or(u32::MAX)
                .saturating_add(it.reserved),
            idle: u32::try_from(it.idle().count()).unwrap_or(u32::MAX),
            duration_median: durations.quantile(500),
            duration_p99: durations.quantile(990),
            memory_median_mib: it.memory_peaks_mib.quantile_number(500),
            memory_p99_mib: it.memory_peaks_mib.quantile_number(990),
        })
    }

    /// Returns the state of an account. An unknown account has the default limit.
    #[must_use]
    pub fn account_status(&self, account: AccountId) -> AccountStatus {
        let it = self.state.accounts.get(account);
        AccountStatus {
            concurrency_max: it.concurrency_max(self.state.config.account_concurrency_max),
            claimed: it.claimed(),
            unreserved: it.unreserved(),
        }
    }

    /// Returns the explanations of the last decisions, oldest first: at most
    /// [`Config::explanations_kept`](crate::Config::explanations_kept).
    pub fn explanations(&self) -> impl Iterator<Item = &Explanation> {
        self.state.explanations.iter()
    }

    /// Returns how many decisions were dropped because the journal was full. A
    /// [`Ledger`](crate::Ledger) of the journal is then incomplete.
    #[must_use]
    pub fn journal_dropped(&self) -> u64 {
        self.state.journal_dropped
    }

    /// Returns the next decision of the journal and removes it; `None` if there is none, or no
    /// journal ([`Config::journal`](crate::Config::journal)).
    pub fn poll_journal(&mut self) -> Option<Decision> {
        self.state.journal.pop_front()
    }
}
