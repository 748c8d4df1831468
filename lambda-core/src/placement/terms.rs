//! The terms of the score. Each is a share of a worker's processors, unless it says otherwise;
//! lower is better.
//!
//! If a worker's processors are not counted, the number of processors stands in place of the share.

use std::fmt;

use super::fleet::{Request, WorkerView};

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

#[expect(clippy::cast_precision_loss, reason = "scores; the loss is the same everywhere")]
pub(crate) fn float(number: u32) -> f32 {
    number as f32
}
