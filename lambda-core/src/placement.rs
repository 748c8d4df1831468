//! Chooses the worker of a new sandbox: feasible, then score, then pick.

use std::collections::BTreeMap;

use crate::contract::{Capacity, WorkerId};

/// A worker as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) capacity: Capacity,
    /// Memory of its sandboxes, in bytes, those included that are starting or stopping.
    pub(crate) memory_used_bytes: u64,
    pub(crate) draining: bool,
}

impl Worker {
    /// Tells whether a sandbox of `memory_bytes` may be made here now.
    pub(crate) fn is_feasible(&self, memory_bytes: u64) -> bool {
        !self.draining && self.free_bytes() >= memory_bytes
    }

    /// Returns the memory that is not taken.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.capacity.memory_bytes.saturating_sub(self.memory_used_bytes)
    }

    /// The share of memory that is taken, in parts of 2^32; lower is better.
    fn score(&self) -> u64 {
        let share = (u128::from(self.memory_used_bytes) << 32)
            / u128::from(self.capacity.memory_bytes.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Picks the feasible worker with the lowest score; ties break by id.
pub(crate) fn place(workers: &BTreeMap<WorkerId, Worker>, memory_bytes: u64) -> Option<WorkerId> {
    let feasible = workers.iter().filter(|(_, worker)| worker.is_feasible(memory_bytes));
    feasible.min_by_key(|(id, worker)| (worker.score(), **id)).map(|(id, _)| *id)
}
