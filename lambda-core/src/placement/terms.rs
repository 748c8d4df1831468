//! The terms of the score: each a small policy of its own, all in shares of a worker's processors, lower is better.
//!
//! Where a worker's processors are not counted a share is a number of processors.

use std::fmt;

use super::fleet::{Request, WorkerView};
use crate::stats::demand::LOAD_ONE;

/// One reason to prefer a worker to another.
pub trait Term: fmt::Debug + Send {
    /// Returns its name, as explanations show it.
    fn name(&self) -> &'static str;

    /// Returns how bad it is to give this worker the sandbox; not NaN.
    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32;

    /// Adds its part to the score of each candidate: one call for all of them. Must be what `score` says, times the weight.
    fn add_to(&self, weight: f32, candidates: &mut [Candidate<'_>], request: &Request<'_>) {
        for candidate in candidates {
            candidate.score += weight * self.score(&candidate.worker, request);
        }
    }
}

/// A worker that can have the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The worker.
    pub worker: WorkerView<'a>,
    /// The sum of the weighted terms so far.
    pub score: f32,
}

/// The peak of the worker's expected load with the sandbox's, over the minutes of the hour: what peaks together is
/// kept apart, what peaks at different times sits together.
#[derive(Clone, Copy, Debug)]
pub struct PredictedPeak {
    /// How many minutes from now on count; 60 are all. Of a sandbox that is kept for ten idle minutes more is not
    /// known.
    pub minutes: u32,
}

impl Default for PredictedPeak {
    fn default() -> Self {
        Self { minutes: 10 }
    }
}

impl Term for PredictedPeak {
    fn name(&self) -> &'static str {
        "predicted peak"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        share(peak(worker, request, self.minutes), worker)
    }
}

/// Returns the highest sum of a worker's expected load and a sandbox's, within so many minutes from now on. In this
/// minute what runs counts, if it is more than was expected, and the sandbox is busy: it is made because it will be.
pub(crate) fn peak(worker: &WorkerView<'_>, request: &Request<'_>, minutes: u32) -> u32 {
    let (bins, shift) = worker.bins();
    let (now, own) = (request.minute, request.next.bins());
    let this = bins.get(now).map_or(0, |bin| u32::from(*bin) << shift);
    let this = this.max(worker.busy_load(request)).saturating_add(request.busy_load);
    let end = now + minutes.min(60) as usize;
    let soon = highest(bins, own, now, end.min(60), shift);
    if end <= 60 {
        return this.max(soon);
    }
    this.max(soon).max(highest(bins, own, 0, (end - 60).min(now), shift))
}

/// Bins that are added and compared at once.
const LANES: usize = 16;

/// All bits of the first so many lanes.
const FIRST: [[u16; LANES]; LANES + 1] = {
    let mut first = [[0; LANES]; LANES + 1];
    let mut count = 0;
    while count <= LANES {
        let mut lane = 0;
        while lane < count {
            first[count][lane] = u16::MAX;
            lane += 1;
        }
        count += 1;
    }
    first
};

/// Returns the highest sum of two loads in the bins from `from` to `to`, where the first is divided by a power of two.
fn highest(bins: &[u16], own: &[u16], from: usize, to: usize, shift: u8) -> u32 {
    let start = from.min(bins.len().saturating_sub(LANES));
    let lanes =
        |of: &[u16]| -> Option<[u16; LANES]> { of.get(start..start + LANES)?.try_into().ok() };
    if shift == 0
        && to - start <= LANES
        && let (Some(bins), Some(own)) = (lanes(bins), lanes(own))
    {
        // Sums beyond what a bin holds are cut off, and all of them beyond any gate. Without branches, eight at a time.
        let (below, until) = (&FIRST[from - start], &FIRST[to - start]);
        let mut most = 0;
        for lane in 0..LANES {
            let sum = bins[lane].saturating_add(own[lane]);
            most = u16::max(most, sum & until[lane] & !below[lane]);
        }
        return u32::from(most);
    }
    let (Some(bins), Some(own)) = (bins.get(from..to), own.get(from..to)) else { return 0 };
    let sum = |(bin, own): (&u16, &u16)| (u32::from(*bin) << shift).saturating_add(u32::from(*own));
    bins.iter().zip(own).map(sum).fold(0, u32::max)
}

/// How much the bound of the worker's load, its mean and some deviations, grows by the sandbox: the sum of means
/// plus a multiple of the root of the summed variances (Cohen et al., "Overcommitment in Cloud Services").
#[derive(Clone, Copy, Debug)]
pub struct DeviationBound {
    /// How many standard deviations; 3.7 leave 99.99 % below, were loads normal.
    pub deviations: f32,
}

impl Default for DeviationBound {
    fn default() -> Self {
        Self { deviations: 3.7 }
    }
}

impl Term for DeviationBound {
    fn name(&self) -> &'static str {
        "deviation bound"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        let (mean, peak) = (request.next.mean, request.next.peak);
        let variance = worker.load_variance();
        let more = variance + mean * (peak - mean).max(0.0);
        worker.share_of_cpus(mean + self.deviations * (more.sqrt() - worker.load_deviation()))
    }
}

/// What runs on the worker now, or is about to.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusyNow;

impl Term for BusyNow {
    fn name(&self) -> &'static str {
        "busy now"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        let one = float(request.settings.cpu_milli) / 1000.0;
        let starting = float(worker.starting()) * one;
        worker.share_of_cpus(worker.busy_cpus() + starting)
    }
}

/// How many sandboxes of the same function are there: its spikes shall not meet on one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameFunction;

impl Term for SameFunction {
    fn name(&self) -> &'static str {
        "same function"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        each(worker.of_same(request), worker, request)
    }
}

/// How many sandboxes of the same owner are there: an owner's functions behave as one workload in part.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameOwner;

impl Term for SameOwner {
    fn name(&self) -> &'static str {
        "same owner"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        each(worker.of_owner(request), worker, request)
    }
}

/// Which part of the worker's sandboxes has the same class of runtime: many kinds are better than one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameRuntime;

impl Term for SameRuntime {
    fn name(&self) -> &'static str {
        "same runtime"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        float(worker.of_runtime(request)) / float(worker.sandboxes().max(1))
    }
}

/// The share of the worker's memory that is given away.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryShare;

impl Term for MemoryShare {
    fn name(&self) -> &'static str {
        "memory share"
    }

    fn score(&self, worker: &WorkerView<'_>, _request: &Request<'_>) -> f32 {
        worker.memory_share()
    }
}

/// 1 where a VM would have to be started, or a network interface made, first.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotReady;

impl Term for NotReady {
    fn name(&self) -> &'static str {
        "not ready"
    }

    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
        let vm = !request.ready.is_empty() && !worker.has_vm_for(request);
        let interface = !worker.has_interface_for(request);
        float(u32::from(vm)) + float(u32::from(interface))
    }
}

fn each(count: u32, worker: &WorkerView<'_>, request: &Request<'_>) -> f32 {
    let one = float(request.settings.cpu_milli.max(1)) / 1000.0;
    worker.share_of_cpus(float(count) * one)
}

pub(crate) fn share(load: u32, worker: &WorkerView<'_>) -> f32 {
    worker.share_of_cpus(float(load) / float(LOAD_ONE))
}

#[expect(clippy::cast_precision_loss, reason = "scores; the loss is the same everywhere")]
pub(crate) fn float(number: u32) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_of_lanes_is_the_highest_of_each(
            bins in prop::collection::vec(0..30_000_u16, 60),
            own in prop::collection::vec(0..30_000_u16, 60),
            from in 0..60_usize,
            length in 0..60_usize,
            shift in 0..3_u8,
        ) {
            let to = (from + length).min(60);
            let each = (from..to).map(|at| (u32::from(bins[at]) << shift) + u32::from(own[at]));
            prop_assert_eq!(highest(&bins, &own, from, to, shift), each.max().unwrap_or(0));
        }
    }
}
