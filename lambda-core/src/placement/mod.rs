//! Placement: which worker a new sandbox goes to.
//!
//! Feasible -> score -> pick, behind one seam: [`Placement`]. [`Scored`] is the engine's own, made of replaceable
//! [`Term`]s; [`baselines`] are what others do, for comparison and for use.

pub mod baselines;
pub(crate) mod fleet;
mod scored;
pub mod terms;

use std::fmt;

pub use fleet::{FleetView, Request, WorkerView};
pub use scored::{Gate, Scored};
pub use terms::{Candidate, Term};

use crate::random::Random;
use crate::{Time, WorkerId};

/// Chooses the worker of a new sandbox. Reads, and returns a value: all state is the engine's.
pub trait Placement: fmt::Debug + Send {
    /// Returns the worker, or `None` when none is found that can have the sandbox. Must return only workers that
    /// [`FleetView::refusal`] lets pass: the engine takes another for none. Every candidate that was looked at is
    /// told to `record`, which may keep it for explanation.
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId>;

    /// Is called before each [`Self::place`], before anything of the function is read: what does not depend on the function
    /// can be drawn and read here, so that the waits for memory overlap. Does nothing by default.
    fn begin(&self, fleet: &FleetView<'_>, now: Time, draw: &mut Draw<'_>) {
        let _ = (fleet, now, draw);
    }

    /// Returns whether a worker that [`FleetView::refusal`] lets pass may have the sandbox. Asked where only one worker is in
    /// question: its room has just come free, or no drawn candidate would do. `true` by default.
    fn accepts(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> bool {
        let _ = (worker, request);
        true
    }

    /// Returns its name, as reports show it.
    fn name(&self) -> &str;
}

/// Chance and memory of a policy, kept by the engine.
#[derive(Debug)]
pub struct Draw<'a> {
    pub(crate) random: &'a mut Random,
    /// A number that is kept from one placement to the next, 0 at first.
    pub cursor: &'a mut u64,
    pub(crate) scratch: &'a mut Scratch,
}

/// Lists that are used again, so that a decision allocates little.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) rooms: Vec<(usize, u32)>,
    pub(crate) picked: Vec<usize>,
    pub(crate) drawn: Vec<WorkerId>,
    /// Workers that were drawn before it was known for what.
    pub(crate) ahead: Vec<u32>,
}

impl Draw<'_> {
    /// Returns a number below `bound`, each as likely as the others; 0 when `bound` is.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }
}

/// Why a worker cannot have a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Refusal {
    /// It takes no new sandboxes.
    Draining,
    /// Its memory is given away.
    Memory,
    /// Its processor time is given away.
    Cpu,
    /// Its slots for network interfaces are taken.
    InterfaceSlots,
    /// It is not in a zone that the function's network reaches.
    Zone,
    /// It makes as many sandboxes as it may at once.
    Starting,
    /// Its starts failed lately.
    Unhealthy,
    /// Its predicted peak would be beyond the compliance goal.
    Compliance,
}

/// A worker that was looked at.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Considered {
    /// Which.
    pub worker: WorkerId,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a worker that was looked at.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Verdict {
    /// It cannot have the sandbox.
    Refused(Refusal),
    /// It can, at this score, lower is better: the sum of the named terms.
    Scored {
        /// The sum.
        score: f32,
        /// Each term's weighted part.
        terms: Vec<(String, f32)>,
    },
}

/// Keeps what was looked at, or not.
#[derive(Debug, Default)]
pub struct Record<'a>(pub(crate) Option<&'a mut Vec<Considered>>);

impl Record<'_> {
    /// Returns whether anything is kept: what is costly to tell need not be told otherwise.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of a worker that cannot have the sandbox.
    pub fn refused(&mut self, worker: WorkerId, refusal: Refusal) {
        if let Some(considered) = &mut self.0 {
            considered.push(Considered { worker, verdict: Verdict::Refused(refusal) });
        }
    }

    /// Tells of a worker's score, where it is kept.
    pub fn scored(&mut self, worker: WorkerId, terms: impl FnOnce() -> Vec<(String, f32)>) {
        if let Some(considered) = &mut self.0 {
            let terms = terms();
            let score = terms.iter().map(|(_, part)| part).sum();
            considered.push(Considered { worker, verdict: Verdict::Scored { score, terms } });
        }
    }
}
