//! Current use by a worker's sandboxes: counts that change with warm traffic.

use super::row::Use;
use super::{Worker, Workers};
use crate::id::WorkerId;

impl Workers {
    fn use_of(&self, at: WorkerId) -> Use {
        self.seat(at).and_then(|seat| self.uses.get(seat)).copied().unwrap_or_default()
    }

    fn use_mut(&mut self, at: WorkerId) -> Option<&mut Use> {
        let seat = self.seat(at)?;
        self.uses.get_mut(seat)
    }

    /// Returns the share of a worker's processors that its busy sandboxes may use, in parts of
    /// 2^16; thousandths of a processor if its processors are not counted.
    pub(crate) fn busy_share(&self, at: WorkerId) -> u64 {
        let Some(row) = self.get(at) else { return u64::MAX };
        let busy = u64::from(self.busy_milli_of(row));
        match row.cpu_real_milli {
            u32::MAX => busy,
            real => (busy << 16) / u64::from(real.max(1)),
        }
    }

    /// Returns the processor time of the busy sandboxes of the worker with this row.
    pub(crate) fn busy_milli_of(&self, row: &Worker) -> u32 {
        self.uses.get(row.seat as usize).copied().unwrap_or_default().busy_milli
    }

    /// Counts one more busy sandbox of a worker.
    pub(crate) fn add_busy(&mut self, at: WorkerId, cpu_milli: u32) {
        if let Some(it) = self.use_mut(at) {
            it.busy_milli = it.busy_milli.saturating_add(cpu_milli);
        }
    }

    /// Counts one busy sandbox less.
    pub(crate) fn take_busy(&mut self, at: WorkerId, cpu_milli: u32) {
        if let Some(it) = self.use_mut(at) {
            it.busy_milli = it.busy_milli.saturating_sub(cpu_milli);
        }
    }

    /// Returns the memory of a worker's idle sandboxes.
    pub(crate) fn idle_kib(&self, at: WorkerId) -> u32 {
        self.use_of(at).idle_kib
    }

    /// Returns the memory of all idle sandboxes.
    pub(crate) fn idle_kib_all(&self) -> u64 {
        self.idle_kib
    }

    /// Returns the memory of the idle sandboxes in a block of 64 seats.
    pub(crate) fn idle_kib_of_block(&self, block: usize) -> Option<u64> {
        self.idle_blocks.get(block).copied()
    }

    /// Counts one more idle sandbox of a worker.
    pub(crate) fn add_idle(&mut self, at: WorkerId, kib: u32) {
        if let Some(seat) = self.seat(at) {
            self.add_idle_in(seat, kib);
        }
    }

    /// Counts one more idle sandbox of a worker if its idle sandboxes are kept; see
    /// [`Self::is_open`]. Returns whether they are.
    pub(crate) fn settle(&mut self, at: WorkerId, kib: u32) -> bool {
        let Some(seat) = self.seat(at).filter(|seat| self.seat_is_open(*seat)) else {
            return false;
        };
        self.add_idle_in(seat, kib);
        true
    }

    fn add_idle_in(&mut self, seat: usize, kib: u32) {
        if let Some(it) = self.uses.get_mut(seat) {
            it.idle_kib = it.idle_kib.saturating_add(kib);
            self.idle_blocks[seat / 64] += u64::from(kib);
            self.idle_kib += u64::from(kib);
        }
    }

    /// Counts one idle sandbox less.
    pub(crate) fn take_idle(&mut self, at: WorkerId, kib: u32) {
        if let Some(seat) = self.seat(at) {
            self.take_idle_in(seat, kib);
        }
    }

    fn take_idle_in(&mut self, seat: usize, kib: u32) {
        if let Some(it) = self.uses.get_mut(seat) {
            it.idle_kib = it.idle_kib.saturating_sub(kib);
            self.idle_blocks[seat / 64] -= u64::from(kib);
            self.idle_kib -= u64::from(kib);
        }
    }

    /// Counts an idle sandbox as no longer idle, and as busy if its worker keeps idle sandboxes;
    /// see [`Self::is_open`]. Returns whether it does.
    pub(crate) fn wake(&mut self, at: WorkerId, kib: u32, cpu_milli: u32) -> bool {
        let Some(seat) = self.seat(at) else { return false };
        self.take_idle_in(seat, kib);
        let open = self.seat_is_open(seat);
        if let Some(it) = self.uses.get_mut(seat).filter(|_| open) {
            it.busy_milli = it.busy_milli.saturating_add(cpu_milli);
        }
        open
    }
}
