//! An index of the free resources of workers, to find any worker that fits.
//!
//! The index is a tree with eight branches. Each node has the maximum of each resource over the
//! workers below it. A search skips nodes that cannot fit. An update moves up until a node does not
//! change.

use crate::id::WorkerId;

/// Free resources of a worker, or the maximum of each over several workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Free {
    pub(crate) kib: u32,
    pub(crate) cpu_milli: u32,
    pub(crate) slots: u32,
    /// The zones, one bit each.
    pub(crate) zones: u32,
    /// What the worker has ([`Capacity::labels`](crate::Capacity::labels)), or any of several.
    pub(crate) labels: u16,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Fits {
    /// The nodes, level by level: first the seats of the workers, last the root.
    levels: Vec<Vec<Free>>,
    /// The worker of each seat.
    workers: Vec<WorkerId>,
    empty: Vec<u32>,
}

const BRANCHES: usize = 8;
/// The most nodes that one search looks at.
const LOOKED_AT_MAX: usize = 2048;

impl Free {
    pub(crate) fn holds(&self, needed: &Self) -> bool {
        self.kib >= needed.kib
            && self.cpu_milli >= needed.cpu_milli
            && self.slots >= needed.slots
            && self.zones & needed.zones != 0
            && needed.labels & !self.labels == 0
    }

    fn most(nodes: &[Self]) -> Self {
        nodes.iter().fold(Self::default(), |most, it| Self {
            kib: most.kib.max(it.kib),
            cpu_milli: most.cpu_milli.max(it.cpu_milli),
            slots: most.slots.max(it.slots),
            zones: most.zones | it.zones,
            labels: most.labels | it.labels,
        })
    }
}

impl Fits {
    /// Gives a worker a seat, with nothing free. Returns the seat.
    pub(crate) fn insert(&mut self, worker: WorkerId) -> u32 {
        if let Some(seat) = self.empty.pop() {
            self.workers[seat as usize] = worker;
            return seat;
        }
        let seat = self.workers.len();
        self.workers.push(worker);
        let mut len = self.workers.len();
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].resize(len, Free::default());
            if len == 1 {
                break;
            }
            len = len.div_ceil(BRANCHES);
            level += 1;
        }
        // Compute the maxima above the new seat. A tree that has just grown a level computes all of
        // them.
        for level in 1..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(level);
            let below = &below[level - 1];
            let at = (below.len() - 1) / BRANCHES;
            for (node, nodes) in
                above[0].iter_mut().zip(below.chunks(BRANCHES)).skip(if at < 2 { 0 } else { at })
            {
                *node = Free::most(nodes);
            }
        }
        u32::try_from(seat).unwrap_or(u32::MAX)
    }

    pub(crate) fn remove(&mut self, seat: u32) {
        self.set(seat, Free::default());
        self.empty.push(seat);
    }

    /// Returns the worker that has a seat, or had it last.
    pub(crate) fn worker(&self, seat: usize) -> Option<WorkerId> {
        self.workers.get(seat).copied()
    }

    /// Sets the free resources of the worker of a seat.
    pub(crate) fn set(&mut self, seat: u32, free: Free) {
        let mut at = seat as usize;
        let Some(node) = self.levels.first_mut().and_then(|seats| seats.get_mut(at)) else {
            return;
        };
        if *node == free {
            return;
        }
        *node = free;
        for level in 1..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(level);
            at /= BRANCHES;
            let nodes = below[level - 1].chunks(BRANCHES).nth(at).unwrap_or_default();
            let most = Free::most(nodes);
            let Some(node) = above[0].get_mut(at) else { return };
            if *node == most {
                return;
            }
            *node = most;
        }
    }

    /// Returns the maximum of each resource over all workers.
    pub(crate) fn most(&self) -> Free {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_default()
    }

    /// Returns the first worker with enough free for which `will_do` returns `true`, searching from
    /// seat `from` and wrapping around.
    pub(crate) fn find(
        &self,
        needed: &Free,
        from: usize,
        mut will_do: impl FnMut(WorkerId) -> bool,
    ) -> Option<WorkerId> {
        if !self.most().holds(needed) {
            return None;
        }
        let mut left = LOOKED_AT_MAX;
        let len = self.workers.len();
        let from = if len == 0 { 0 } else { from % len };
        self.search(needed, from..len, &mut left, &mut will_do)
            .or_else(|| self.search(needed, 0..from, &mut left, &mut will_do))
    }

    fn search(
        &self,
        needed: &Free,
        seats: std::ops::Range<usize>,
        left: &mut usize,
        will_do: &mut impl FnMut(WorkerId) -> bool,
    ) -> Option<WorkerId> {
        let mut at = seats.start;
        while at < seats.end && *left > 0 {
            // Skip the largest node that begins at this seat and cannot fit.
            let (mut level, mut node, mut width) = (0, at, 1);
            loop {
                *left = left.saturating_sub(1);
                let holds = self.levels[level].get(node).is_some_and(|it| it.holds(needed));
                if holds {
                    break;
                }
                let up = node.is_multiple_of(BRANCHES) && level + 1 < self.levels.len();
                if !up
                    || self.levels[level + 1]
                        .get(node / BRANCHES)
                        .is_some_and(|it| it.holds(needed))
                {
                    break;
                }
                (level, node, width) = (level + 1, node / BRANCHES, width * BRANCHES);
            }
            let holds = self.levels[level].get(node).is_some_and(|it| it.holds(needed));
            if holds && level == 0 && will_do(self.workers[at]) {
                return Some(self.workers[at]);
            }
            at += width;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(kib: u32, cpu_milli: u32) -> Free {
        Free { kib, cpu_milli, slots: 1, zones: 1, labels: 0 }
    }

    #[test]
    fn the_one_that_fits_is_found_wherever_it_is() {
        for len in [1_u32, 7, 8, 9, 64, 65, 513] {
            for at in [0, len / 2, len - 1] {
                let mut fits = Fits::default();
                let seats: Vec<_> =
                    (0..len).map(|worker| fits.insert(WorkerId(1000 + worker))).collect();
                for seat in &seats {
                    fits.set(*seat, if seat % 2 == 0 { free(10, 1) } else { free(1, 10) });
                }
                assert_eq!(fits.find(&free(10, 10), 3, |_| true), None);
                fits.set(seats[at as usize], free(10, 10));
                for from in 0..9 {
                    assert_eq!(
                        fits.find(&free(10, 10), from, |_| true),
                        Some(WorkerId(1000 + at)),
                        "{len} {at}"
                    );
                }
                fits.remove(seats[at as usize]);
                assert_eq!(fits.find(&free(10, 10), 0, |_| true), None);
            }
        }
    }

    #[test]
    fn a_tree_that_grows_keeps_what_it_knows() {
        let mut fits = Fits::default();
        let first = fits.insert(WorkerId(0));
        fits.set(first, free(9, 9));
        for worker in 1..600 {
            fits.insert(WorkerId(worker));
            assert_eq!(fits.find(&free(9, 9), 0, |_| true), Some(WorkerId(0)), "{worker}");
            assert_eq!(fits.most(), free(9, 9));
        }
        assert_eq!(fits.find(&free(9, 9), 0, |_| false), None);
    }
}
