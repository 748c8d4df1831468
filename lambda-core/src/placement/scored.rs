//! The default placement: sampled candidates, a compliance gate, and a weighted sum of terms.

use super::fleet::{FleetView, Request, WorkerView};
use super::terms::{BusyNow, Candidate, NotReady, SameFunction, Term};
use super::{Draw, Placement, Record, Refusal};
use crate::id::WorkerId;

/// Draws a few candidates, drops those that cannot have the sandbox or fail the gate, and returns
/// the one with the lowest weighted sum of terms.
#[derive(Debug)]
pub struct Scored {
    name: String,
    candidates: usize,
    gate: Option<Gate>,
    terms: Vec<(f32, Box<dyn Term>)>,
}

/// The compliance goal as a bound on a worker's live load: its busy and starting sandboxes and the
/// new one must fit its processors. Workers whose processors are not counted pass.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The share of the worker's processors that may be used; 1 is all.
    pub cpu_share: f32,
}

impl Default for Gate {
    fn default() -> Self {
        Self { cpu_share: 1.0 }
    }
}

impl Default for Scored {
    /// Returns a placement with four candidates, the default gate and every term.
    fn default() -> Self {
        Self::new("ours", 4)
            .with_gate(Gate::default())
            .with_term(1.0, BusyNow)
            .with_term(0.4, SameFunction)
            .with_term(0.5, NotReady)
    }
}

impl Scored {
    /// Returns a placement that draws `candidates` workers, at least 1, without gate and terms. It
    /// returns the first drawn candidate that can have the sandbox.
    #[must_use]
    pub fn new(name: impl Into<String>, candidates: usize) -> Self {
        let candidates = candidates.max(1);
        Self { name: name.into(), candidates, gate: None, terms: Vec::new() }
    }

    /// Sets the number of candidates, at least 1. Fewer decide faster, more pack better.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates.max(1);
        self
    }

    /// Sets the gate.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Adds a term with its weight.
    #[must_use]
    pub fn with_term(mut self, weight: f32, term: impl Term + 'static) -> Self {
        self.terms.push((weight, Box::new(term)));
        self
    }

    /// Returns the best of the drawn workers, or `None` if none can have the sandbox.
    fn best<'a>(
        &self,
        fleet: &FleetView<'a>,
        request: &Request<'_>,
        drawn: &[WorkerId],
        candidates: &mut Vec<Candidate<'a>>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        candidates.clear();
        for worker in drawn.iter().filter_map(|id| fleet.worker(*id)) {
            let refusal = fleet.refusal(&worker, request);
            let refusal =
                refusal.or_else(|| (!self.passes(&worker, request)).then_some(Refusal::Compliance));
            match refusal {
                Some(refusal) => record.refused(worker.id(), refusal),
                None => candidates.push(Candidate { worker, score: 0.0 }),
            }
        }
        for (weight, term) in &self.terms {
            term.add_to(*weight, candidates, request);
        }
        if record.keeps() {
            for Candidate { worker, .. } in &*candidates {
                let part = |(weight, term): &(f32, Box<dyn Term>)| {
                    (term.name().to_owned(), weight * term.score(worker, request))
                };
                record.scored(worker.id(), || self.terms.iter().map(part).collect());
            }
        }
        // Of equal scores, the first drawn wins: the draw favours no worker.
        let best = candidates.iter().min_by(|a, b| a.score.total_cmp(&b.score))?;
        Some(best.worker.id())
    }

    fn passes(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> bool {
        let gate = self.gate.filter(|_| worker.counts_cpus());
        gate.is_none_or(|gate| worker.busy_share(request) <= gate.cpu_share)
    }
}

/// How often candidates are drawn before the policy gives up.
const ROUNDS: usize = 3;

impl Placement for Scored {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        let mut drawn = std::mem::take(&mut draw.scratch.drawn);
        let mut candidates = Vec::with_capacity(self.candidates);
        let mut best = None;
        for _ in 0..ROUNDS {
            let touched = !draw.scratch.ahead.is_empty();
            fleet.sample(request, draw, &mut drawn, self.candidates);
            if !touched {
                fleet.touch(&drawn, request);
            }
            best = self.best(fleet, request, &drawn, &mut candidates, record);
            if best.is_some() {
                break;
            }
        }
        draw.scratch.drawn = drawn;
        best
    }

    fn begin(&self, fleet: &FleetView<'_>, draw: &mut Draw<'_>) {
        fleet.draw_ahead(draw, self.candidates);
    }

    fn accepts(&self, worker: &WorkerView<'_>, request: &Request<'_>) -> bool {
        self.passes(worker, request)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
