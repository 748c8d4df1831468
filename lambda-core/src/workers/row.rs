//! A worker's row, and what it is made of.

use crate::id::{ZONES_MAX, Zone};
use crate::settings::Isolation;
use crate::store::fits::Free;
use crate::store::slab::NONE;
use crate::store::slot::SandboxSlot;

/// The number of lists of a zone: one for each power of two of free memory.
pub(super) const CLASSES: u32 = 33;
/// The number of lists.
pub(super) const ROOMS: usize = ZONES_MAX as usize * CLASSES as usize;
/// No list.
pub(super) const NO_ROOM: u32 = u32::MAX;

/// The fields of a worker that placement reads: a cache line.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C, align(64))]
pub(crate) struct Worker {
    pub(crate) memory_kib: u32,
    pub(crate) memory_used_kib: u32,
    /// Processor time that sandboxes may be given.
    pub(crate) cpu_milli: u32,
    /// Processor time that the machine has.
    pub(crate) cpu_real_milli: u32,
    pub(crate) cpu_used_milli: u32,
    pub(crate) slots: u32,
    pub(crate) slots_used: u32,
    pub(crate) starting: u32,
    pub(crate) sandboxes: u32,
    pub(crate) vms: u32,
    pub(crate) labels: u16,
    pub(super) room: u32,
    pub(super) room_place: u32,
    pub(crate) zone: Zone,
    pub(crate) isolation: Isolation,
    pub(crate) phase: Phase,
    /// The head of the list of its sandboxes.
    pub(crate) head: SandboxSlot,
    /// Its seat.
    pub(crate) seat: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Phase {
    Serving,
    /// Near the end of its life: takes sandboxes only if no serving worker can.
    Quiet,
    /// Its starts fail, or its lease was renewed without a heartbeat: as [`Self::Quiet`], with one
    /// start at a time.
    Suspect,
    /// Its starts failed too often: takes no sandboxes for a while and keeps those it has.
    Ejected,
    /// Under pressure, as its driver reports: takes no sandboxes and keeps those it has.
    Pressed,
    Draining,
    /// Lost: for the driver it is gone. What the engine still has of it is removed in parts; no
    /// command names the worker any more.
    Lost,
    /// The seat is empty.
    Absent,
}

impl Phase {
    /// Returns whether the worker takes sandboxes now.
    pub(crate) fn takes(self) -> bool {
        matches!(self, Self::Serving | Self::Quiet | Self::Suspect)
    }
}

/// The current use by the sandboxes of a worker.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Use {
    /// Processor time of the busy sandboxes, in thousandths of a processor.
    pub(super) busy_milli: u32,
    /// Memory of the idle sandboxes.
    pub(super) idle_kib: u32,
}

impl Worker {
    pub(super) fn absent() -> Self {
        Self {
            memory_kib: 0,
            memory_used_kib: 0,
            cpu_milli: 0,
            cpu_real_milli: 0,
            cpu_used_milli: 0,
            slots: 0,
            slots_used: 0,
            starting: 0,
            sandboxes: 0,
            room: NO_ROOM,
            room_place: 0,
            zone: Zone(0),
            isolation: Isolation::Sandbox,
            phase: Phase::Absent,
            head: SandboxSlot::NONE,
            seat: NONE,
            vms: 0,
            labels: 0,
        }
    }

    /// Returns its free resources.
    pub(crate) fn free(&self) -> Free {
        let cpu_milli = match self.cpu_milli {
            u32::MAX => u32::MAX,
            all => all.saturating_sub(self.cpu_used_milli),
        };
        Free {
            kib: self.free_kib(),
            cpu_milli,
            slots: self.slots.saturating_sub(self.slots_used),
            zones: 1 << self.zone.0,
            labels: self.labels,
        }
    }

    pub(crate) fn free_kib(&self) -> u32 {
        self.memory_kib.saturating_sub(self.memory_used_kib)
    }

    /// Returns whether it has no sandboxes and no VMs.
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes == 0 && self.vms == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_cache_line() {
        assert_eq!((size_of::<Worker>(), align_of::<Worker>()), (64, 64));
    }
}
