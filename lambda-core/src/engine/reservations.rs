//! Reservations of room on workers. They keep the room for a function until the evicted sandboxes
//! are gone, so that a smaller function cannot take it.

mod table;

pub(in crate::engine) use self::table::Reservation;
pub(crate) use self::table::Reservations;
use super::gathering::GATHER_AFTER;
use super::{Agenda, Engine};
use crate::id::{FunctionId, WorkerId};

impl Engine {
    /// Reserves room on a worker for one more sandbox of a function. `memory_kib` is the memory
    /// that the sandbox takes of the worker, with a VM if it needs one.
    pub(super) fn reserve(&mut self, worker: WorkerId, id: FunctionId, memory_kib: u32) {
        self.hold_room(worker, id, memory_kib, false);
    }

    /// As [`Self::reserve`]. With `gathers`, sandboxes on the worker end until there is enough room.
    pub(super) fn hold_room(
        &mut self,
        worker: WorkerId,
        id: FunctionId,
        memory_kib: u32,
        gathers: bool,
    ) {
        // At most the worker's processor time: a larger sum would saturate, and its release would
        // free time that is in use.
        let cpu_all_milli = self.state.workers.get(worker).map_or(0, |row| row.cpu_milli);
        let Some(function) = self.function_mut(id) else { return };
        function.reserved += 1;
        let cpu_milli = function.settings.cpu_milli.min(cpu_all_milli);
        let slot = function.settings.network.is_some();
        let gathers = gathers.then_some(function.settings.account);
        let function = id;
        let held = Reservation { function, memory_kib, cpu_milli, slot, gathers };
        let number = self.state.reservations.insert(worker, held);
        self.count_reserved(worker, &held, 1);
        let start_timeout = self.state.config.start_timeout;
        let until = self.state.now + if gathers.is_some() { GATHER_AFTER } else { start_timeout };
        self.state.agenda.insert((until, Agenda::Reserved(worker, number)));
    }

    /// Returns the reservations on a worker, oldest first.
    pub(super) fn reserved_on(&self, worker: WorkerId) -> Vec<(u64, Reservation)> {
        let of = self.state.reservations.of.get(&worker);
        of.into_iter().flatten().map(|(number, held)| (*number, *held)).collect()
    }

    /// Returns whether room is reserved on a worker.
    pub(super) fn has_reserved(&self, worker: WorkerId) -> bool {
        self.state.reservations.of.contains_key(&worker)
    }

    /// Releases a reservation.
    pub(super) fn unreserve(&mut self, worker: WorkerId, number: u64) -> Option<Reservation> {
        let held = self.state.reservations.remove(worker, number)?;
        self.state.agenda.clear(Agenda::Reserved(worker, number));
        self.count_reserved(worker, &held, -1);
        if let Some(function) = self.function_mut(held.function) {
            function.reserved = function.reserved.saturating_sub(1);
        }
        Some(held)
    }

    /// Makes the reserved room on a worker usable until [`Self::hold_again`]. Returns the
    /// reservations.
    pub(super) fn free_reserved(&mut self, worker: WorkerId) -> Vec<(u64, Reservation)> {
        let all = self.reserved_on(worker);
        for (_, held) in &all {
            self.count_reserved(worker, held, -1);
        }
        all
    }

    /// Reserves room again after [`Self::free_reserved`].
    pub(super) fn hold_again(&mut self, worker: WorkerId, held: &Reservation) {
        self.count_reserved(worker, held, 1);
    }

    pub(super) fn count_reserved(&mut self, worker: WorkerId, held: &Reservation, by: i64) {
        let (kib, milli) = (i64::from(held.memory_kib), i64::from(held.cpu_milli));
        self.state.workers.hold(worker, by * kib, by * milli, by * i64::from(held.slot));
    }

    /// Releases all reservations on a worker. Returns their functions.
    pub(super) fn unreserve_all(&mut self, worker: WorkerId) -> Vec<FunctionId> {
        let numbers: Vec<_> =
            self.reserved_on(worker).into_iter().map(|(number, _)| number).collect();
        let let_go = numbers.into_iter().filter_map(|number| self.unreserve(worker, number));
        let_go.map(|held| held.function).collect()
    }

    /// Handles a reservation that was not used in time: sandboxes that were to end have not ended,
    /// or those that would end run for longer.
    pub(super) fn on_reserved_too_long(&mut self, worker: WorkerId, number: u64) {
        if self.goes_on_gathering(worker, number) {
            let until = self.state.now + GATHER_AFTER;
            return self.state.agenda.insert((until, Agenda::Reserved(worker, number)));
        }
        let Some(held) = self.unreserve(worker, number) else { return };
        self.start_missing(held.function);
        self.on_room_freed(worker);
    }
}
