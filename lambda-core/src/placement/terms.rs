//! The terms of the score. Each is a share of a worker's processors, unless it says otherwise;
//! lower is better.
//!
//! If a worker's processors are not counted, the number of processors stands in place of the share.

use std::fmt;

use super::fleet::{Request, WorkerView};
use crate::stats::demand::LOAD_ONE;

/// A reason to prefer one worker to another.
pub trait Term: fmt::Debug + Send {
    /// Returns the term's name for explanations.
    fn name(&self) -> &'static str;

    /// Returns the term for a worker: the lower, the better. Must not be NaN.
    fn score(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> f32;

    /// Adds the weighted term to the score of each candidate, in one call for all of them. Must add
    /// `weight` times [`Self::score`], which it does by default.
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

/// The peak of the worker's expected load plus the sandbox's, over the minutes of the hour. It
/// separates sandboxes that peak together and joins those that peak at different times.
#[derive(Clone, Copy, Debug)]
pub struct PredictedPeak {
    /// How many minutes from now count, at most 60. The default is ten: how long the sandbox will
    /// live after that is unknown.
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

/// Returns the highest sum of a worker's and a sandbox's load within `minutes` from now, in units
/// of 1 / [`LOAD_ONE`] processor. For the current minute, the worker's load is the current one if
/// that is higher, and the sandbox is busy.
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

/// Masks: entry `n` has all bits of the first `n` lanes.
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

/// Returns the highest sum of two loads in the bins from `from` to `to`. The first load is divided
/// by 2^`shift`.
fn highest(bins: &[u16], own: &[u16], from: usize, to: usize, shift: u8) -> u32 {
    let start = from.min(bins.len().saturating_sub(LANES));
    let lanes =
        |of: &[u16]| -> Option<[u16; LANES]> { of.get(start..start + LANES)?.try_into().ok() };
    if shift == 0
        && to - start <= LANES
        && let (Some(bins), Some(own)) = (lanes(bins), lanes(own))
    {
        // A sum too large for a bin saturates, and then exceeds any gate. Without branches, the
        // compiler adds eight lanes at a time.
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

/// The growth of a bound on the worker's load by the sandbox. The bound is the sum of the means
/// plus a multiple of the root of the summed variances (Cohen et al., "Overcommitment in Cloud
/// Services").
#[derive(Clone, Copy, Debug)]
pub struct DeviationBound {
    /// The number of standard deviations. With normally distributed load, 3.7 cover 99.99 %.
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

/// The load of the worker's busy and starting sandboxes.
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

/// The number of the function's sandboxes on the worker, times the sandbox's processors. A spike of
/// the function then does not meet on one worker.
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

/// The number of the owner's sandboxes on the worker, times the sandbox's processors. The functions
/// of an owner partly behave as one workload.
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

/// The share of the worker's sandboxes with the same class of runtime. A mix of classes is better
/// than one.
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

/// 1 if some other worker has a VM with room for the sandbox and this one has none, plus 1 if the
/// sandbox needs a network interface and none is ready in the worker's zone.
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
