//! Placement: the choice of the worker for a new sandbox.
//!
//! A policy implements [`Placement`]. The engine's default is [`Scored`], which filters feasible
//! workers, scores them by replaceable [`Term`]s and picks the lowest. [`baselines`] has the
//! policies of other systems.

pub mod baselines;
pub(crate) mod fleet;
mod scored;
pub mod terms;

use std::fmt;

pub use fleet::{FleetView, Request, WorkerView};
pub use scored::{Gate, Scored};
pub use terms::{Candidate, Term};

use crate::id::WorkerId;
use crate::random::Random;

/// Chooses the worker of a new sandbox. A policy only reads the fleet and returns a worker; the
/// engine changes the state.
pub trait Placement: fmt::Debug + Send {
    /// Returns the chosen worker, or `None` if no worker that it looked at can have the sandbox.
    ///
    /// The implementor must return only workers for which [`FleetView::refusal`] returns `None`;
    /// the engine treats any other as `None`. It must pass every worker that it looked at to
    /// `record`.
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId>;

    /// Prepares a [`Self::place`] before anything of the function is read. The implementor can draw
    /// and read here what does not depend on the function, so that memory latencies overlap. Does
    /// nothing by default.
    fn begin(&self, fleet: &FleetView<'_>, draw: &mut Draw<'_>) {
        let _ = (fleet, draw);
    }

    /// Returns whether a worker for which [`FleetView::refusal`] returns `None` may have the
    /// sandbox. Called for a worker whose room just came free, and for workers from an index when
    /// [`Self::place`] returned `None`. `true` by default.
    fn accepts(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> bool {
        let _ = (worker, request);
        true
    }

    /// Returns the policy's name for reports.
    fn name(&self) -> &str;
}

/// A policy's random numbers and memory between calls, held by the engine.
#[derive(Debug)]
pub struct Draw<'a> {
    pub(crate) random: &'a mut Random,
    /// A number that is kept from one placement to the next, initially 0.
    pub cursor: &'a mut u64,
    pub(crate) scratch: &'a mut Scratch,
}

/// Lists that are reused, so that a decision allocates little.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) rooms: Vec<(usize, u32)>,
    pub(crate) picked: Vec<usize>,
    pub(crate) drawn: Vec<WorkerId>,
    /// Seats of workers that were drawn before the function was known.
    pub(crate) ahead: Vec<usize>,
}

impl Draw<'_> {
    /// Returns a uniform random number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }
}

/// Why a worker cannot have a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Refusal {
    /// It is draining.
    Draining,
    /// It has too little free memory.
    Memory,
    /// It has too little free processor time.
    Cpu,
    /// All its slots for network interfaces are taken.
    InterfaceSlots,
    /// It is in a zone that the function's network does not reach.
    Zone,
    /// It lacks one of the labels that the function needs
    /// ([`FunctionSettings::labels`](crate::FunctionSettings::labels)).
    Labels,
    /// It already starts as many sandboxes as it may at once.
    Starting,
    /// It is ejected, since starts on it failed lately.
    Unhealthy,
    /// It is under pressure ([`Event::WorkerPressed`](crate::Event::WorkerPressed)).
    Pressure,
    /// Its live load would exceed the compliance goal ([`Gate`]).
    Compliance,
}

/// A worker that a policy looked at.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Considered {
    /// The worker that the policy looked at.
    pub worker: WorkerId,
    /// Whether it can have the sandbox, and its score.
    pub verdict: Verdict,
}

/// The result of looking at a worker.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Verdict {
    /// The worker cannot have the sandbox.
    Refused(Refusal),
    /// The worker can have the sandbox.
    Scored {
        /// The sum of `terms`; the lowest score wins.
        score: f32,
        /// The name of each term, and its score times its weight.
        terms: Vec<(String, f32)>,
    },
}

/// Collects the workers that a policy looked at, if explanations are wanted.
#[derive(Debug, Default)]
pub struct Record<'a>(pub(crate) Option<&'a mut Vec<Considered>>);

impl Record<'_> {
    /// Returns whether anything is collected. If not, the policy can skip costly inputs of the
    /// records.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Records a worker that cannot have the sandbox.
    pub fn refused(&mut self, worker: WorkerId, refusal: Refusal) {
        if let Some(considered) = &mut self.0 {
            considered.push(Considered { worker, verdict: Verdict::Refused(refusal) });
        }
    }

    /// Records a worker's terms. `terms` is only called if records are collected.
    pub fn scored(&mut self, worker: WorkerId, terms: impl FnOnce() -> Vec<(String, f32)>) {
        if let Some(considered) = &mut self.0 {
            let terms = terms();
            let score = terms.iter().map(|(_, part)| part).sum();
            considered.push(Considered { worker, verdict: Verdict::Scored { score, terms } });
        }
    }
}
