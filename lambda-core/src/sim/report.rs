//! What came of a simulation, as data.

use serde::{Deserialize, Serialize};

/// What came of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The placement policy.
    pub policy: String,
    /// The idle policy.
    pub idle: String,
    /// The trace.
    pub trace: String,
    /// The seed of the workload's and the engine's chance.
    pub seed: u64,
    /// Workers at the start.
    pub workers: u32,
    /// Minutes that were measured, after those of training.
    pub minutes: usize,
    /// Invocations that were measured.
    pub invocations: u64,
    /// Those that had to wait for a sandbox.
    pub cold: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Time that the cold ones waited, in seconds, together.
    pub waited_seconds: f64,
    /// Those of the refused that had been accepted and were lost with a sandbox or a worker.
    pub lost: u64,
    /// How long half of the cold ones waited at most, in seconds.
    pub wait_p50_seconds: f64,
    /// How long 99 of 100 cold ones waited at most, in seconds.
    pub wait_p99_seconds: f64,
    /// VMs that were started.
    pub vms_started: u64,
    /// Network interfaces that were made, training included.
    pub interfaces_started: u64,
    /// Workers that joined.
    pub workers_joined: u64,
    /// Workers that were given back, empty.
    pub workers_retired: u64,
    /// Fewest workers that took sandboxes at any time.
    pub workers_min: u32,
    /// Load of a worker in a minute that 99.9 % do not exceed, over the mean of all.
    pub load_p999: f64,
    /// The highest load of a worker in a minute over the mean of all.
    pub load_peak: f64,
    /// What the two would be, were every minute's load spread evenly.
    pub bound_p999: f64,
    /// See [`Report::bound_p999`].
    pub bound_peak: f64,
    /// Sandboxes alive, on average.
    pub sandboxes_mean: f64,
    /// Sandboxes alive, at most, at the end of a minute.
    pub sandboxes_peak: u32,
    /// Sandboxes that were started.
    pub started: u64,
    /// Memory of idle sandboxes times their time.
    pub idle_gb_seconds: f64,
    /// Memory of busy sandboxes times their time.
    pub busy_gb_seconds: f64,
    /// The most sandboxes of a function on one worker, over the fewest that it could be, on average over the functions
    /// with most sandboxes.
    pub spread: f64,
    /// Commands that the engine gave.
    pub commands: u64,
    /// A digest of all commands, in order: two runs of one seed have the same.
    pub digest: u64,
    /// By minute, where it was wanted.
    pub shape: Option<Shape>,
}

/// A run by minute, measured minutes only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shape {
    /// Busy processors of each worker, by minute and worker.
    pub load: Vec<Vec<f32>>,
    /// Cold starts.
    pub cold: Vec<u32>,
    /// Sandboxes alive at the end of the minute.
    pub sandboxes: Vec<u32>,
    /// Workers with a sandbox at the end of the minute.
    pub workers_used: Vec<u32>,
    /// As many as would do, were sandboxes packed without a gap.
    pub workers_bound: Vec<u32>,
    /// For the functions with most sandboxes at the last minute: how many each worker has.
    pub spread: Vec<Vec<u32>>,
}

/// Returns peak and 99.9th percentile of the load of a worker in a minute over the mean, were each minute's load
/// spread evenly: what no placement can better, since minutes differ.
#[must_use]
pub fn lower_bound(load: &[Vec<f64>]) -> (f64, f64) {
    let even: Vec<_> = load
        .iter()
        .map(|minute| vec![minute.iter().sum::<f64>() / minute.len().max(1) as f64; minute.len()])
        .collect();
    peak_and_p999(&even)
}

/// Returns the peak and the 99.9th percentile, by nearest rank, of the load of a worker in a minute over the mean of
/// all.
pub(super) fn peak_and_p999(load: &[Vec<f64>]) -> (f64, f64) {
    let mut all: Vec<f64> = load.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let rank = (all.len() * 999).div_ceil(1000);
    let of = |load: Option<&f64>| load.map_or(0.0, |load| load / mean.max(f64::MIN_POSITIVE));
    (of(all.last()), of(all.get(rank.saturating_sub(1))))
}
