//! Reservations of room on workers. They keep the room for a function until the evicted sandboxes
//! are gone, so that a smaller function cannot take it.

mod table;

use std::collections::BTreeMap;

use self::table::Reservation;
pub(crate) use self::table::Reservations;
use super::{Agenda, Engine};
use crate::command::StopReason;
use crate::id::{FunctionId, WorkerId};
use crate::placement::fleet::{Needs, needed_kib};
use crate::sandbox::State;
use crate::settings::Isolation;
use crate::settings::kib;
use crate::workers::{Phase, Worker};

/// The most workers that one search for a gathering place looks at.
const GATHERED_ON_MAX: usize = 256;

impl Engine {
    /// Reserves room on a worker for one more sandbox of a function. `memory_kib` is the memory
    /// that the sandbox takes of the worker, with a VM if it needs one.
    pub(super) fn reserve(&mut self, worker: WorkerId, id: FunctionId, memory_kib: u32) {
        self.hold_room(worker, id, memory_kib, false);
    }

    fn hold_room(&mut self, worker: WorkerId, id: FunctionId, memory_kib: u32, gathers: bool) {
        // At most the worker's processor time: a larger sum would saturate, and its release would
        // free time that is in use.
        let cpu_all_milli = self.state.workers.get(worker).map_or(0, |row| row.cpu_milli);
        let Some(function) = self.function_mut(id) else { return };
        function.reserved += 1;
        let cpu_milli = function.settings.cpu_milli.min(cpu_all_milli);
        let slot = function.settings.network.is_some();
        let function = id;
        let held = Reservation { function, memory_kib, cpu_milli, slot, gathers };
        let reservations = &mut self.state.reservations;
        let number = reservations.next;
        reservations.next += 1;
        reservations.gathering += u32::from(gathers);
        reservations.of.entry(worker).or_default().insert(number, held);
        self.count_reserved(worker, &held, 1);
        let until = self.state.now + self.state.config.start_timeout;
        self.state.agenda.insert((until, Agenda::Reserved(worker, number)));
    }

    /// Starts to gather room for a function that cannot have a sandbox even if all idle ones of a
    /// worker end. Chooses a worker that could hold the sandbox if it were empty. Sandboxes that
    /// become idle there are stopped, so that small functions do not take the room for ever. A
    /// worker gathers for one function at a time; only a function without reservations gathers.
    pub(super) fn gather(&mut self, id: FunctionId, zones: u32) {
        let Some(function) = self.function(id).filter(|it| it.reserved == 0) else { return };
        let settings = function.settings;
        let (memory_kib, config) = (kib(settings.memory_bytes), &self.state.config);
        let needs = Needs::of(&settings, memory_kib, zones);
        let workers = &self.state.workers;
        let could = |(at, row): &(WorkerId, &Worker)| {
            let needed = needed_kib(config, row.isolation, memory_kib);
            let serves = matches!(row.phase, Phase::Serving | Phase::Quiet);
            let large = row.memory_kib >= needed && row.cpu_milli >= settings.cpu_milli;
            let slot = settings.network.is_none() || row.slots > 0;
            serves && large && slot && needs.suits(row) && !self.has_reserved(*at)
        };
        let seats = workers.seats();
        let first = self.state.eviction_cursor % seats.max(1);
        let looked_at = (first..seats).chain(0..first).take(GATHERED_ON_MAX);
        let most = workers.in_seats(looked_at).filter(could).max_by_key(|(at, row)| {
            let free = row.free_kib().saturating_add(workers.idle_kib(*at));
            (free, std::cmp::Reverse(*at))
        });
        self.state.eviction_cursor = first + GATHERED_ON_MAX;
        let Some((worker, _)) = most else { return };
        let isolation = workers.get(worker).map_or(Isolation::Sandbox, |row| row.isolation);
        let needed = needed_kib(config, isolation, memory_kib);
        let idle: Vec<_> = (workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, held)| held.state == State::Idle && self.may_evict(held, id))
            .map(|(at, _)| at)
            .collect();
        self.hold_room(worker, id, needed, true);
        self.stop_all(&idle, StopReason::Evicted);
        self.stop_empty_vms(worker);
    }

    /// Returns the function for which a worker gathers room.
    pub(super) fn gathers_on(&self, worker: WorkerId) -> Option<FunctionId> {
        let mut of = self.state.reservations.of.get(&worker)?.values();
        of.find(|held| held.gathers).map(|held| held.function)
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
        let of = self.state.reservations.of.get_mut(&worker)?;
        let held = of.remove(&number)?;
        self.state.reservations.gathering -= u32::from(held.gathers);
        let of = &self.state.reservations.of;
        if of.get(&worker).is_some_and(BTreeMap::is_empty) {
            self.state.reservations.of.remove(&worker);
        }
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

    fn count_reserved(&mut self, worker: WorkerId, held: &Reservation, by: i64) {
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

    /// Handles a reservation that was not used in time: the sandboxes that were to end have not
    /// ended.
    pub(super) fn on_reserved_too_long(&mut self, worker: WorkerId, number: u64) {
        let Some(held) = self.unreserve(worker, number) else { return };
        self.start_missing(held.function);
        self.on_room_freed(worker);
    }
}
