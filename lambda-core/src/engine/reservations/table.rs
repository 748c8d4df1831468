//! The table of reservations: room on workers that is kept for sandboxes which wait for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{AccountId, FunctionId, WorkerId};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Reservations {
    /// Reservations by worker and number, oldest first.
    pub(in crate::engine) of: BTreeMap<WorkerId, BTreeMap<u64, Reservation>>,
    next: u64,
    /// The reservations of each account that gather.
    gathering: BTreeMap<AccountId, BTreeSet<u64>>,
}

impl Reservations {
    /// Returns whether any reservation gathers room.
    pub(in crate::engine) fn gather(&self) -> bool {
        !self.gathering.is_empty()
    }

    /// Adds a reservation. Returns its number.
    pub(super) fn insert(&mut self, worker: WorkerId, held: Reservation) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(account) = held.gathers {
            self.gathering.entry(account).or_default().insert(number);
        }
        self.of.entry(worker).or_default().insert(number, held);
        number
    }

    /// Removes a reservation. Returns it as it was.
    pub(super) fn remove(&mut self, worker: WorkerId, number: u64) -> Option<Reservation> {
        let held = *self.of.get(&worker)?.get(&number)?;
        self.end_gathering(worker, number);
        if let Some(of) = self.of.get_mut(&worker) {
            of.remove(&number);
            if of.is_empty() {
                self.of.remove(&worker);
            }
        }
        Some(held)
    }

    /// Makes a reservation one that no longer gathers.
    pub(in crate::engine) fn end_gathering(&mut self, worker: WorkerId, number: u64) {
        let held = self.of.get_mut(&worker).and_then(|of| of.get_mut(&number));
        let Some(account) = held.and_then(|held| held.gathers.take()) else { return };
        let Some(of) = self.gathering.get_mut(&account) else { return };
        of.remove(&number);
        if of.is_empty() {
            self.gathering.remove(&account);
        }
    }

    /// Returns whether a reservation is the oldest of its account that gathers.
    pub(in crate::engine) fn is_oldest_gathering(&self, number: u64, held: &Reservation) -> bool {
        let of = held.gathers.and_then(|account| self.gathering.get(&account));
        of.and_then(BTreeSet::first) == Some(&number)
    }
}

/// Room that is reserved for one sandbox of a function.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(in crate::engine) struct Reservation {
    pub(in crate::engine) function: FunctionId,
    pub(in crate::engine) memory_kib: u32,
    pub(super) cpu_milli: u32,
    pub(super) slot: bool,
    /// The account for which it gathers: sandboxes on the worker end until there is enough room.
    pub(in crate::engine) gathers: Option<AccountId>,
}
