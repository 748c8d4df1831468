//! The result of a simulation, as data.

use serde::{Deserialize, Serialize};

/// The result of one run. Unless stated otherwise, values are of the measured minutes only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The name of the placement policy.
    pub policy: String,
    /// The name of the idle policy.
    pub idle: String,
    /// The name of the trace.
    pub trace: String,
    /// The seed of [`Settings::seed`](super::Settings::seed).
    pub seed: u64,
    /// The number of workers at the start.
    pub workers: u32,
    /// The number of bad workers ([`Faults::bad_workers`](super::Faults::bad_workers)).
    pub bad_workers: u32,
    /// The number of measured minutes, which follow those of training.
    pub minutes: usize,
    /// Invocations that arrived.
    pub invocations: u64,
    /// Invocations that waited for a sandbox.
    pub cold: u64,
    /// Invocations that were rejected.
    pub rejected: u64,
    /// The total time that invocations waited, in seconds.
    pub waited_seconds: f64,
    /// Rejected invocations that had been accepted and were lost with a sandbox or a worker.
    pub lost: u64,
    /// The median of the non-zero waits, in seconds.
    pub wait_p50_seconds: f64,
    /// The 99th percentile of the non-zero waits, in seconds.
    pub wait_p99_seconds: f64,
    /// VMs that were started.
    pub vms_started: u64,
    /// Network interfaces that were made, including training.
    pub interfaces_started: u64,
    /// Workers that joined.
    pub workers_joined: u64,
    /// Workers that were given back.
    pub workers_retired: u64,
    /// The lowest number of workers that took sandboxes.
    pub workers_min: u32,
    /// The 99.9th percentile of a worker's load in a minute, divided by the mean load.
    pub load_p999: f64,
    /// The highest load of a worker in a minute, divided by the mean load.
    pub load_peak: f64,
    /// The value of `load_p999` if the load of each minute were spread evenly over the workers.
    pub bound_p999: f64,
    /// The value of `load_peak` if the load of each minute were spread evenly over the workers.
    pub bound_peak: f64,
    /// The mean number of ready sandboxes.
    pub sandboxes_mean: f64,
    /// The highest number of ready sandboxes at the end of a minute.
    pub sandboxes_peak: u32,
    /// Sandboxes whose start was commanded.
    pub started: u64,
    /// Those of them on bad workers ([`Faults::bad_workers`](super::Faults::bad_workers)).
    pub started_on_bad: u64,
    /// Memory of idle sandboxes times their idle time, in GB-seconds.
    pub idle_gb_seconds: f64,
    /// Memory of busy sandboxes times their busy time, in GB-seconds.
    pub busy_gb_seconds: f64,
    /// Memory of the workers at the start times the measured time, in GB-seconds.
    pub capacity_gb_seconds: f64,
    /// Memory of busy sandboxes times their busy time within the measured minutes, in GB-seconds,
    /// by account: the owner of the trace's function.
    pub account_gb_seconds: Vec<f64>,
    /// The most sandboxes of one function on one worker, divided by the lowest possible maximum.
    /// Mean over the functions with the most sandboxes and over the minutes.
    pub spread: f64,
    /// Commands of the engine, including training.
    pub commands: u64,
    /// A digest of all commands in order. Two runs with the same seed have the same digest.
    pub digest: u64,
    /// Values by minute, if [`Settings::shape`](super::Settings::shape) is set.
    pub shape: Option<Shape>,
}

/// Values by minute, for the measured minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shape {
    /// The busy sandboxes of each worker, by minute and worker.
    pub load: Vec<Vec<f32>>,
    /// The part of the minute for which each sandbox was busy, by minute, in any order. Sandboxes
    /// that were not busy are left out.
    pub sandbox_load: Vec<Vec<f32>>,
    /// Invocations that waited for a sandbox.
    pub cold: Vec<u32>,
    /// Invocations that were rejected.
    pub rejected: Vec<u32>,
    /// Memory of busy sandboxes times their busy time, in GB-seconds, by minute and account.
    pub account_gb_seconds: Vec<Vec<f32>>,
    /// Ready sandboxes at the end of the minute.
    pub sandboxes: Vec<u32>,
    /// Workers with a sandbox at the end of the minute.
    pub workers_used: Vec<u32>,
    /// Workers that would be enough if the sandboxes were packed by memory without gaps.
    pub workers_bound: Vec<u32>,
    /// Memory of sandboxes at the end of the minute, in GiB, and what the engine then expected as
    /// the highest within five minutes ([`Engine::forecast`](crate::Engine::forecast)). Empty if
    /// the engine does not size the fleet.
    pub memory: Vec<[f32; 2]>,
    /// For each function with the most sandboxes in the last minute, their number on each worker.
    pub spread: Vec<Vec<u32>>,
}

/// Returns peak and 99.9th percentile of a worker's load in a minute, divided by the mean load, if
/// the load of each minute were spread evenly. No placement can have lower values.
#[must_use]
pub fn lower_bound(load: &[Vec<f64>]) -> (f64, f64) {
    let even: Vec<_> = load
        .iter()
        .map(|minute| vec![minute.iter().sum::<f64>() / minute.len().max(1) as f64; minute.len()])
        .collect();
    peak_and_p999(&even)
}

/// Returns peak and 99.9th percentile (nearest rank) of a worker's load in a minute, divided by the
/// mean load.
pub(super) fn peak_and_p999(load: &[Vec<f64>]) -> (f64, f64) {
    let mut all: Vec<f64> = load.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let rank = (all.len() * 999).div_ceil(1000);
    let of = |load: Option<&f64>| load.map_or(0.0, |load| load / mean.max(f64::MIN_POSITIVE));
    (of(all.last()), of(all.get(rank.saturating_sub(1))))
}
