//! Measurements of a simulation, by minute.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::report::{Report, Shape, lower_bound, peak_and_p999};
use super::trace::Trace;
use crate::*;

/// How far ahead the need of memory is forecast.
const FORECAST: Duration = Duration::from_secs(300);

/// Measures what happens after training.
#[derive(Debug)]
pub(super) struct Meter {
    train_minutes: usize,
    minutes: usize,
    wants_shape: bool,
    memory_bytes: u64,
    /// The number of ready sandboxes, and their memory.
    alive: u32,
    alive_memory_mib: u64,
    /// The number of workers that take sandboxes.
    serving: u32,
    load: Vec<Vec<f64>>,
    /// GB-seconds of busy sandboxes by minute and account.
    accounts: Vec<Vec<f64>>,
    /// The part of each minute for which each sandbox is busy, if the shape is wanted.
    sandboxes: Vec<BTreeMap<SandboxId, f64>>,
    waits: Vec<f32>,
    pub(super) report: Report,
    shape: Shape,
}

pub(super) const MINUTE: u64 = 60_000_000_000;
/// The number of functions, those with the most sandboxes, whose spread is measured.
const SPREAD_FUNCTIONS: usize = 8;

impl Meter {
    pub(super) fn new(trace: &Trace, settings: &super::Settings, engine: &Engine) -> Self {
        let train_minutes = settings.train_minutes;
        let minutes = trace.minutes.saturating_sub(train_minutes);
        let memory_gb = (settings.capacity.memory_bytes >> 20) as f64 / 1024.0;
        let report = Report {
            policy: engine.placement.name().to_owned(),
            idle: engine.idle.name(),
            trace: trace.name.clone(),
            seed: settings.seed,
            workers: settings.workers,
            bad_workers: settings.faults.bad_workers,
            minutes,
            capacity_gb_seconds: f64::from(settings.workers) * memory_gb * (minutes * 60) as f64,
            workers_min: u32::MAX,
            digest: 0xcbf2_9ce4_8422_2325,
            ..Report::default()
        };
        Self {
            train_minutes,
            minutes: trace.minutes,
            wants_shape: settings.shape,
            memory_bytes: settings.capacity.memory_bytes,
            alive: 0,
            alive_memory_mib: 0,
            serving: 0,
            load: vec![vec![0.0; settings.workers as usize]; trace.minutes],
            accounts: vec![Vec::new(); trace.minutes],
            sandboxes: vec![BTreeMap::new(); trace.minutes],
            waits: Vec::new(),
            report,
            shape: Shape::default(),
        }
    }

    pub(super) fn measures(&self, now: Time) -> bool {
        self.minute(now) >= self.train_minutes
    }

    fn minute(&self, now: Time) -> usize {
        let last = (self.minutes as u64).saturating_sub(1);
        usize::try_from((now.as_nanos() / MINUTE).min(last)).unwrap_or(0)
    }

    /// Records a dispatch, `waited` after the arrival.
    pub(super) fn dispatched(&mut self, now: Time, waited: Duration) {
        if !self.measures(now) || waited.is_zero() {
            return;
        }
        self.report.cold += 1;
        self.report.waited_seconds += waited.as_secs_f64();
        self.waits.push(waited.as_secs_f32());
        if self.wants_shape {
            let at = self.minute(now) - self.train_minutes;
            grow(&mut self.shape.cold, at);
            self.shape.cold[at] += 1;
        }
    }

    /// Records a rejection.
    pub(super) fn rejected(&mut self, now: Time) {
        if !self.measures(now) {
            return;
        }
        self.report.rejected += 1;
        if self.wants_shape {
            let at = self.minute(now) - self.train_minutes;
            grow(&mut self.shape.rejected, at);
            self.shape.rejected[at] += 1;
        }
    }

    /// Adds the load of one invocation to the minutes in which it runs.
    pub(super) fn carry(
        &mut self,
        (worker, account, sandbox): (WorkerId, u32, SandboxId),
        (from, to): (Time, Time),
        memory_mib: u32,
    ) {
        if self.measures(from) {
            let seconds = to.since(from).as_secs_f64();
            self.report.busy_gb_seconds += seconds * f64::from(memory_mib) / 1024.0;
        }
        let (mut at, end) = (from.as_nanos(), to.as_nanos());
        while at < end {
            let minute = at / MINUTE;
            let until = end.min((minute + 1) * MINUTE);
            let Some(loads) = usize::try_from(minute).ok().and_then(|it| self.load.get_mut(it))
            else {
                return;
            };
            let worker = worker.0 as usize;
            if loads.len() <= worker {
                loads.resize(worker + 1, 0.0);
            }
            let minutes = (until - at) as f64 / MINUTE as f64;
            loads[worker] += minutes;
            let sandboxes = usize::try_from(minute).ok().and_then(|it| self.sandboxes.get_mut(it));
            if let Some(sandboxes) = sandboxes.filter(|_| self.wants_shape) {
                *sandboxes.entry(sandbox).or_default() += minutes;
            }
            if let Some(accounts) =
                usize::try_from(minute).ok().and_then(|it| self.accounts.get_mut(it))
            {
                let account = account as usize;
                if accounts.len() <= account {
                    accounts.resize(account + 1, 0.0);
                }
                accounts[account] += minutes * 60.0 * f64::from(memory_mib) / 1024.0;
            }
            at = until;
        }
    }

    pub(super) fn sandbox_began(&mut self, memory_mib: u32) {
        self.alive += 1;
        self.alive_memory_mib += u64::from(memory_mib);
    }

    pub(super) fn sandbox_ended(&mut self, now: Time, since: Time, memory_mib: u32) {
        self.alive -= 1;
        self.alive_memory_mib -= u64::from(memory_mib);
        self.count_alive(now, since, memory_mib);
    }

    /// Adds the lifetime of a sandbox after training. `finish` subtracts the busy time.
    pub(super) fn count_alive(&mut self, now: Time, since: Time, memory_mib: u32) {
        let start = Time::from_nanos(self.train_minutes as u64 * MINUTE);
        let lived = now.since(since.max(start)).as_secs_f64();
        self.report.idle_gb_seconds += lived * f64::from(memory_mib) / 1024.0;
        self.report.sandboxes_mean += lived;
    }

    pub(super) fn worker_serves(&mut self, now: Time, serves: bool) {
        if serves {
            self.serving += 1;
        } else {
            self.serving = self.serving.saturating_sub(1);
        }
        if self.measures(now) {
            self.report.workers_min = self.report.workers_min.min(self.serving);
        }
    }

    /// Measures the fleet at the end of a minute.
    pub(super) fn look(&mut self, minute: usize, trace: &Trace, engine: &Engine) {
        if minute < self.train_minutes {
            return;
        }
        self.report.workers_min = self.report.workers_min.min(self.serving);
        self.report.sandboxes_peak = self.report.sandboxes_peak.max(self.alive);
        let spread = spread(trace, engine);
        let excess: f64 = spread
            .iter()
            .map(|counts| {
                let all: u32 = counts.iter().sum();
                let least = all.div_ceil(u32::try_from(counts.len()).unwrap_or(1).max(1)).max(1);
                f64::from(counts.iter().copied().max().unwrap_or(0).max(1)) / f64::from(least)
            })
            .sum();
        self.report.spread += excess / spread.len().max(1) as f64;
        if !self.wants_shape {
            return;
        }
        let used = engine.workers().filter(|worker| worker.sandboxes() > 0).count();
        let bound = self.alive_memory_mib.div_ceil((self.memory_bytes >> 20).max(1));
        grow(&mut self.shape.cold, minute - self.train_minutes);
        grow(&mut self.shape.rejected, minute - self.train_minutes);
        self.shape.sandboxes.push(self.alive);
        let zones = engine.forecast(FORECAST);
        if !zones.is_empty() {
            self.shape.memory.push([
                gib(zones.iter().map(|zone| zone.now_bytes).sum()),
                gib(zones.iter().map(|zone| zone.expected_bytes).sum()),
            ]);
        }
        self.shape.workers_used.push(u32::try_from(used).unwrap_or(u32::MAX));
        self.shape.workers_bound.push(u32::try_from(bound).unwrap_or(u32::MAX));
        if minute + 1 == self.minutes {
            self.shape.spread = spread;
        }
    }

    pub(super) fn finish(mut self) -> Report {
        let measured = &self.load[self.train_minutes.min(self.load.len())..];
        let widest = measured.iter().map(Vec::len).max().unwrap_or_default();
        let measured: Vec<Vec<f64>> = measured
            .iter()
            .map(|minute| {
                let mut minute = minute.clone();
                minute.resize(widest, 0.0);
                minute
            })
            .collect();
        let accounts = &mut self.accounts[self.train_minutes.min(self.minutes)..];
        let all = accounts.iter().map(Vec::len).max().unwrap_or_default();
        accounts.iter_mut().for_each(|minute| minute.resize(all, 0.0));
        let of = |account: usize| accounts.iter().map(|minute| minute[account]).sum();
        let report = &mut self.report;
        report.account_gb_seconds = (0..all).map(of).collect();
        (report.load_peak, report.load_p999) = peak_and_p999(&measured);
        (report.bound_peak, report.bound_p999) = lower_bound(&measured);
        report.idle_gb_seconds = (report.idle_gb_seconds - report.busy_gb_seconds).max(0.0);
        report.sandboxes_mean /= (report.minutes.max(1) * 60) as f64;
        report.spread /= report.minutes.max(1) as f64;
        self.waits.sort_by(f32::total_cmp);
        let at = |share: usize| {
            let rank = (self.waits.len() * share).div_ceil(1000).saturating_sub(1);
            self.waits.get(rank).map_or(0.0, |wait| f64::from(*wait))
        };
        (report.wait_p50_seconds, report.wait_p99_seconds) = (at(500), at(990));
        if self.wants_shape {
            #[expect(clippy::cast_possible_truncation, reason = "for drawing")]
            let narrow = |minute: Vec<f64>| minute.into_iter().map(|load| load as f32).collect();
            let sandboxes = self.sandboxes.into_iter().skip(self.train_minutes);
            self.shape.sandbox_load =
                sandboxes.map(|minute| narrow(minute.into_values().collect())).collect();
            self.shape.account_gb_seconds = accounts.iter().cloned().map(narrow).collect();
            self.shape.load = measured.into_iter().map(narrow).collect();
            report.shape = Some(self.shape);
        }
        self.report
    }

    /// Updates the digest (FNV-1a) with a command.
    pub(super) fn digest(&mut self, now: Time, command: &Command) {
        self.report.commands += 1;
        let words = match *command {
            Command::StartSandbox { sandbox, worker, .. } => [1, sandbox.0, u64::from(worker.0)],
            Command::StopSandbox { sandbox, worker, .. } => [2, sandbox.0, u64::from(worker.0)],
            Command::Dispatch { invocation, sandbox, .. } => [3, invocation.0, sandbox.0],
            Command::TimeOut { invocation, sandbox, .. } => [4, invocation.0, sandbox.0],
            Command::Reject { invocation, .. } => [5, invocation.0, 0],
            Command::StartVm { vm, worker, .. } => [6, vm.0, u64::from(worker.0)],
            Command::StopVm { vm, .. } => [7, vm.0, 0],
            Command::StartInterface { interface, .. } => [8, interface.0, 0],
            Command::StopInterface { interface } => [9, interface.0, 0],
            Command::AskWorker { zone, labels } => [10, u64::from(zone.0), u64::from(labels)],
            Command::DrainWorker { worker } => [11, u64::from(worker.0), 0],
            Command::RetireWorker { worker } => [12, u64::from(worker.0), 0],
            Command::LoseWorker { worker } => [13, u64::from(worker.0), 0],
        };
        for word in words.into_iter().chain([now.as_nanos()]) {
            self.report.digest = (self.report.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Returns the number of sandboxes on each worker, for the functions with the most sandboxes.
fn spread(trace: &Trace, engine: &Engine) -> Vec<Vec<u32>> {
    let ids = (0..).zip(&trace.functions).map(|(id, _)| FunctionId(id));
    let of = |id: FunctionId| engine.function_status(id).map_or(0, |it| it.sandboxes);
    let mut most: Vec<_> = ids.map(|id| (Reverse(of(id)), id)).collect();
    most.sort_unstable();
    (most.into_iter().take(SPREAD_FUNCTIONS))
        .map(|(_, id)| engine.workers().map(|worker| worker.of_function(id)).collect())
        .collect()
}

fn grow(list: &mut Vec<u32>, at: usize) {
    if list.len() <= at {
        list.resize(at + 1, 0);
    }
}

fn gib(bytes: u64) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "for drawing")]
    let kib = (bytes >> 10) as f32;
    kib / 1024.0 / 1024.0
}
