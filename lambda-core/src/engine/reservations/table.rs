//! The table of reservations: room on workers that is kept for sandboxes which wait for it.

use std::collections::BTreeMap;

use crate::id::{FunctionId, WorkerId};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Reservations {
    /// Reservations by worker and number, oldest first.
    pub(super) of: BTreeMap<WorkerId, BTreeMap<u64, Reservation>>,
    pub(super) next: u64,
    /// The number of reservations that gather.
    pub(super) gathering: u32,
}

impl Reservations {
    /// Returns whether any reservation gathers room.
    pub(in crate::engine) fn gather(&self) -> bool {
        self.gathering > 0
    }
}

/// Room that is reserved for one sandbox of a function.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(in crate::engine) struct Reservation {
    pub(in crate::engine) function: FunctionId,
    pub(super) memory_kib: u32,
    pub(super) cpu_milli: u32,
    pub(super) slot: bool,
    /// Gathering: idle sandboxes on the worker are stopped for it until there is enough room.
    pub(in crate::engine) gathers: bool,
}
