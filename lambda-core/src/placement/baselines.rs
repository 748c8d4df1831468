//! Placement policies of other systems, for comparison and for use.

use super::fleet::{FleetView, Request, WorkerView};
use super::terms::{BusyNow, Term};
use super::{Draw, Placement, Record};
use crate::id::WorkerId;

/// Draws a worker at random among those with room (OpenWhisk's new scheduler).
#[derive(Clone, Copy, Debug, Default)]
pub struct AtRandom;

/// Takes the next worker in turn that has room.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

/// Takes the worker with the smallest share of memory given away. Looks at every worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

/// Draws two workers and takes the one with the smaller share of memory given away (Mitzenmacher,
/// "The Power of Two Choices").
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo;

/// Draws two workers and takes the one with the smaller load of busy and starting sandboxes
/// ([`BusyNow`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwoByLoad;

/// OpenWhisk's policy: starts at a home worker, chosen by a hash of the function, and takes steps
/// of a size coprime to the number of workers until one has room.
#[derive(Clone, Copy, Debug, Default)]
pub struct HomeWorker;

/// Takes the worker with the least free memory that still has room. Looks at every worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFit;

/// Takes the worker that ranks best by kube-scheduler's `LeastAllocated` and
/// `BalancedAllocation`, over memory and processor time. Looks at every worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastAllocated;

/// Returns every baseline.
#[must_use]
pub fn all() -> Vec<Box<dyn Placement>> {
    vec![
        Box::new(AtRandom),
        Box::new(RoundRobin),
        Box::new(LeastLoaded),
        Box::new(PowerOfTwo),
        Box::new(PowerOfTwoByLoad),
        Box::new(HomeWorker),
        Box::new(BestFit),
        Box::new(LeastAllocated),
    ]
}

impl Placement for AtRandom {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        drawn(fleet, request, draw, record, 1, |_| 0.0)
    }

    fn name(&self) -> &'static str {
        "random"
    }
}

impl Placement for PowerOfTwo {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        drawn(fleet, request, draw, record, 2, WorkerView::memory_share)
    }

    fn name(&self) -> &'static str {
        "power-of-two"
    }
}

impl Placement for PowerOfTwoByLoad {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        drawn(fleet, request, draw, record, 2, |worker| BusyNow.score(worker, request))
    }

    fn name(&self) -> &'static str {
        "power-of-two-by-load"
    }
}

impl Placement for RoundRobin {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        let seats = fleet.seats() as u64;
        for _ in 0..seats {
            let seat = *draw.cursor % seats;
            *draw.cursor = seat + 1;
            let worker = usize::try_from(seat).ok().and_then(|seat| fleet.in_seat(seat));
            if let Some(worker) = worker.filter(|it| fits(fleet, it, request, record)) {
                return Some(worker.id());
            }
        }
        None
    }

    fn name(&self) -> &'static str {
        "round-robin"
    }
}

impl Placement for HomeWorker {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        _draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        let seats = fleet.seats();
        if seats == 0 {
            return None;
        }
        let hash = hash(request.function.0) as usize;
        let coprime = (1..=seats).filter(|step| divisor(*step, seats) == 1);
        let steps: Vec<_> = coprime.take(64).collect();
        let step = steps.get(hash % steps.len().max(1)).copied().unwrap_or(1);
        let mut at = hash % seats;
        for _ in 0..seats {
            let worker = fleet.in_seat(at);
            if let Some(worker) = worker.filter(|it| fits(fleet, it, request, record)) {
                return Some(worker.id());
            }
            at = (at + step) % seats;
        }
        None
    }

    fn name(&self) -> &'static str {
        "home-worker"
    }
}

impl Placement for LeastLoaded {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        _draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        least(fleet, request, record, WorkerView::memory_share)
    }

    fn name(&self) -> &'static str {
        "least-loaded"
    }
}

impl Placement for BestFit {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        _draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        least(fleet, request, record, |worker| super::terms::float(worker.memory_free_kib()))
    }

    fn name(&self) -> &'static str {
        "best-fit"
    }
}

impl Placement for LeastAllocated {
    fn place(
        &self,
        fleet: &FleetView<'_>,
        request: &Request<'_>,
        _draw: &mut Draw<'_>,
        record: &mut Record<'_>,
    ) -> Option<WorkerId> {
        least(fleet, request, record, |worker| {
            let (memory, cpu) = (worker.memory_share(), worker.cpu_share());
            // The standard deviation of two shares is half their difference.
            f32::midpoint(memory, cpu) + (memory - cpu).abs() / 2.0
        })
    }

    fn name(&self) -> &'static str {
        "least-allocated"
    }
}

fn fits(
    fleet: &FleetView<'_>,
    worker: &WorkerView<'_>,
    request: &Request<'_>,
    record: &mut Record<'_>,
) -> bool {
    match fleet.refusal(worker, request) {
        Some(refusal) => {
            record.refused(worker.id(), refusal);
            false
        }
        None => {
            record.scored(worker.id(), Vec::new);
            true
        }
    }
}

/// Returns the worker with the lowest score; ties break by id.
fn lowest<'a>(
    workers: impl Iterator<Item = WorkerView<'a>>,
    fleet: &FleetView<'_>,
    request: &Request<'_>,
    record: &mut Record<'_>,
    score: impl Fn(&WorkerView<'a>) -> f32,
) -> Option<WorkerId> {
    let mut best: Option<(f32, WorkerId)> = None;
    for worker in workers {
        if let Some(refusal) = fleet.refusal(&worker, request) {
            record.refused(worker.id(), refusal);
            continue;
        }
        let score = score(&worker);
        record.scored(worker.id(), || vec![("load".to_owned(), score)]);
        if best.is_none_or(|(least, id)| score.total_cmp(&least).then(worker.id().cmp(&id)).is_lt())
        {
            best = Some((score, worker.id()));
        }
    }
    best.map(|(_, worker)| worker)
}

fn least<'a>(
    fleet: &FleetView<'a>,
    request: &Request<'_>,
    record: &mut Record<'_>,
    score: impl Fn(&WorkerView<'a>) -> f32,
) -> Option<WorkerId> {
    lowest(fleet.workers(), fleet, request, record, score)
}

fn drawn<'a>(
    fleet: &FleetView<'a>,
    request: &Request<'_>,
    draw: &mut Draw<'_>,
    record: &mut Record<'_>,
    count: usize,
    score: impl Fn(&WorkerView<'a>) -> f32,
) -> Option<WorkerId> {
    let mut candidates = Vec::with_capacity(count);
    for _ in 0..8 {
        fleet.sample(request, draw, &mut candidates, count);
        let workers = candidates.iter().filter_map(|id| fleet.worker(*id));
        if let Some(worker) = lowest(workers, fleet, request, record, &score) {
            return Some(worker);
        }
    }
    None
}

fn hash(number: u32) -> u32 {
    let mut hash = number.wrapping_mul(0x9e37_79b9);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^ hash >> 13
}

fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_without_a_common_divisor_reach_every_worker() {
        assert_eq!((divisor(12, 18), divisor(5, 9), divisor(1, 7)), (6, 1, 1));
    }
}
