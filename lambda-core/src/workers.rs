//! The table of workers: resources and use of each.
//!
//! A worker has a seat in dense arrays as long as it is present. Memory grows with the most workers
//! that were present at once, not with their ids.

mod kinds;
mod rooms;
mod row;
mod uses;

use std::collections::BTreeMap;

use self::kinds::{Kind, Kinds};
pub(crate) use self::row::{Phase, Worker};
use self::row::{ROOMS, Use};
use crate::engine::health::Health;
use crate::id::{WorkerId, ZONES_MAX};
use crate::sandbox::{Sandbox, State};
use crate::settings::Capacity;
use crate::store::fits::{Fits, Free};
use crate::store::paged::Paged;
use crate::store::slab::Slab;
use crate::store::slot::SandboxSlot;
use crate::time::Time;

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Workers {
    /// The seat of each worker. The arrays below have an entry for each seat.
    seats: Paged<WorkerId, u32>,
    rows: Vec<Worker>,
    /// What the sandboxes of each worker use now. Warm traffic reads only this and `open` of a
    /// worker, so these arrays are small enough to stay in the processor's cache.
    uses: Vec<Use>,
    /// Memory of idle sandboxes: for each block of 64 seats, and of all workers.
    idle_blocks: Vec<u64>,
    idle_kib: u64,
    /// An index of the free resources of each worker. It gives the seats.
    fits: Fits,
    /// One bit for each worker, set while it is present and neither draining nor lost: its idle
    /// sandboxes are kept.
    open: Vec<u64>,
    sides: Vec<Side>,
    /// The health of suspect workers that are gone, at most [`DEPARTED_MAX`].
    departed: BTreeMap<WorkerId, Health>,
    ejected: usize,
    /// Workers that take sandboxes, one list for each zone and power of two of their free memory.
    /// The second half of the lists has those in [`Phase::Quiet`] and [`Phase::Suspect`].
    rooms: Vec<Vec<WorkerId>>,
    /// For each zone, one bit for each non-empty list; then the same for the second half of the
    /// lists.
    occupied: Vec<u64>,
    /// One bit for each zone with a non-empty list; then the same for the second half of the lists.
    zones: [u32; 2],
    /// The sums of the workers of each zone and set of labels, empty ones excepted.
    kinds: Kinds,
    count: u32,
}

/// The most workers that are gone whose health is remembered.
const DEPARTED_MAX: usize = 1024;

/// The fields of a worker that are seldom read.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Side {
    pub(crate) lease_until: Time,
    pub(crate) drain_at: Time,
    pub(crate) health: Health,
    /// The worker has sent a report since it joined.
    pub(crate) reported: bool,
    /// The lease was renewed although no heartbeat came.
    pub(crate) graced: bool,
    /// The worker drains soon ([`Recycling::quiet`](crate::Recycling::quiet)).
    pub(crate) near_end: bool,
    /// The worker is under pressure ([`Event::WorkerPressed`](crate::Event::WorkerPressed)).
    pub(crate) pressed: bool,
}

impl Workers {
    pub(crate) fn insert(
        &mut self,
        id: WorkerId,
        capacity: &Capacity,
        percent: (u32, u32),
        lease_until: Time,
        drain_at: Time,
    ) {
        let seat = self.fits.insert(id);
        self.seats.insert(id, seat);
        let at = seat as usize;
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, Worker::absent);
            self.uses.resize(at + 1, Use::default());
            self.idle_blocks.resize(at / 64 + 1, 0);
            self.open.resize(at / 64 + 1, 0);
            self.sides.resize_with(at + 1, Side::default);
        }
        if self.rooms.is_empty() {
            self.rooms.resize_with(ROOMS * 2, Vec::new);
            self.occupied.resize(ZONES_MAX as usize * 2, 0);
        }
        let given = |real: u64, percent: u32| {
            u32::try_from(real.saturating_mul(u64::from(percent)) / 100).unwrap_or(u32::MAX)
        };
        self.rows[at] = Worker {
            memory_kib: given(capacity.memory_bytes >> 10, percent.0),
            cpu_milli: given(u64::from(capacity.cpu_milli), percent.1),
            cpu_real_milli: capacity.cpu_milli,
            slots: capacity.interface_slots,
            zone: capacity.zone,
            isolation: capacity.isolation,
            labels: capacity.labels,
            phase: Phase::Serving,
            seat,
            ..Worker::absent()
        };
        self.uses[at] = Use::default();
        let health = self.departed.remove(&id).unwrap_or_default();
        self.sides[at] = Side { lease_until, drain_at, health, ..Side::default() };
        self.set_open(id, true);
        self.count += 1;
        self.count_kind(id, true);
        self.sort(id);
        self.refit(id);
    }

    /// Removes a worker. Its health at `now` is kept if it is suspect, since the same machine may
    /// join again.
    pub(crate) fn remove(&mut self, at: WorkerId, now: Time) -> Option<Worker> {
        self.leave_room(at);
        self.set_open(at, false);
        self.count_kind(at, false);
        let seat = self.seats.remove(at)?;
        self.fits.remove(seat);
        let seat = seat as usize;
        let health = self.sides[seat].health;
        if health.is_suspect(now) {
            if self.departed.len() >= DEPARTED_MAX {
                self.departed.retain(|_, it| it.is_suspect(now));
            }
            if self.departed.len() < DEPARTED_MAX {
                self.departed.insert(at, health);
            }
        }
        let worker = std::mem::replace(&mut self.rows[seat], Worker::absent());
        self.ejected -= usize::from(worker.phase == Phase::Ejected);
        self.count -= 1;
        Some(worker)
    }

    #[inline]
    fn seat(&self, at: WorkerId) -> Option<usize> {
        self.seats.get(at).map(|seat| *seat as usize)
    }

    pub(crate) fn get(&self, at: WorkerId) -> Option<&Worker> {
        self.rows.get(self.seat(at)?)
    }

    pub(crate) fn get_mut(&mut self, at: WorkerId) -> Option<&mut Worker> {
        let seat = self.seat(at)?;
        self.rows.get_mut(seat)
    }

    pub(crate) fn side(&self, at: WorkerId) -> Option<&Side> {
        self.sides.get(self.seat(at)?)
    }

    pub(crate) fn side_mut(&mut self, at: WorkerId) -> Option<&mut Side> {
        let seat = self.seat(at)?;
        self.sides.get_mut(seat)
    }

    /// Returns whether there are workers and all have sent a report since they joined.
    pub(crate) fn all_reported(&self) -> bool {
        let mut there = self.iter().map(|(_, it)| self.sides[it.seat as usize].reported).peekable();
        there.peek().is_some() && there.all(|reported| reported)
    }

    /// Returns the number of ejected workers.
    pub(crate) fn ejected(&self) -> usize {
        self.ejected
    }

    /// Returns every worker, by seat.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.in_seats(0..self.rows.len())
    }

    /// Returns the workers of these seats.
    pub(crate) fn in_seats(
        &self,
        seats: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = (WorkerId, &Worker)> {
        seats.into_iter().filter_map(|seat| self.in_seat(seat))
    }

    /// Returns the worker of a seat, or `None` if the seat is empty.
    pub(crate) fn in_seat(&self, seat: usize) -> Option<(WorkerId, &Worker)> {
        let worker = self.rows.get(seat).filter(|it| it.phase != Phase::Absent)?;
        Some((self.fits.worker(seat)?, worker))
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns the number of seats: the most workers that were present at once.
    pub(crate) fn seats(&self) -> usize {
        self.rows.len()
    }

    /// Reads the cache lines that a decision about a worker needs. The reads do not depend on each
    /// other, so that the memory latencies of several workers overlap.
    ///
    /// The code must stay short: the processor then reaches the reads of all candidates before the
    /// first one completes.
    pub(crate) fn touch(&self, seat: usize) -> u32 {
        let (Some(it), Some(uses)) = (self.rows.get(seat), self.uses.get(seat)) else { return 0 };
        it.memory_kib ^ uses.busy_milli
    }

    /// Changes the memory that a worker has given away, and updates the indexes.
    pub(crate) fn hold_memory(&mut self, at: WorkerId, kib: i64) {
        self.hold(at, kib, 0, 0);
    }

    /// Changes the memory, processor time and interface slots that a worker has given away, and
    /// updates the indexes.
    pub(crate) fn hold(&mut self, at: WorkerId, kib: i64, cpu_milli: i64, slots: i64) {
        let Some(worker) = self.get_mut(at) else { return };
        let add = |used: u32, more: i64| {
            u32::try_from((i64::from(used) + more).max(0)).unwrap_or(u32::MAX)
        };
        worker.memory_used_kib = add(worker.memory_used_kib, kib);
        worker.cpu_used_milli = add(worker.cpu_used_milli, cpu_milli);
        worker.slots_used = add(worker.slots_used, slots);
        if kib != 0 {
            self.sort(at);
        }
        self.refit(at);
    }

    /// Updates the worker's entry in the index of free resources.
    fn refit(&mut self, at: WorkerId) {
        let Some(worker) = self.get(at) else { return };
        let free = if worker.phase.takes() { worker.free() } else { Free::default() };
        let seat = worker.seat;
        self.fits.set(seat, free);
    }

    /// Returns the index of free resources.
    pub(crate) fn fits(&self) -> &Fits {
        &self.fits
    }

    /// Returns the sums over the workers in `zones`, one bit each, that have all of `labels`.
    pub(crate) fn kind(&self, zones: u32, labels: u16) -> Kind {
        self.kinds.sum(zones, labels)
    }

    /// Counts a worker in its phase in or out.
    fn count_kind(&mut self, at: WorkerId, counts: bool) {
        let Some(worker) = self.get(at) else { return };
        let (key, own) = ((worker.zone, worker.labels), Kind::of(worker));
        self.kinds.count(key, &own, counts);
    }

    pub(crate) fn set_phase(&mut self, at: WorkerId, phase: Phase) {
        self.count_kind(at, false);
        if let Some(worker) = self.get_mut(at) {
            let before = std::mem::replace(&mut worker.phase, phase);
            self.count_kind(at, true);
            self.ejected += usize::from(phase == Phase::Ejected);
            self.ejected -= usize::from(before == Phase::Ejected);
            self.set_open(at, !matches!(phase, Phase::Draining | Phase::Lost));
            self.sort(at);
            self.refit(at);
        }
    }

    fn set_open(&mut self, at: WorkerId, open: bool) {
        let Some(at) = self.seat(at) else { return };
        let Some(bits) = self.open.get_mut(at / 64) else { return };
        let bit = 1 << (at % 64);
        if open { *bits |= bit } else { *bits &= !bit }
    }

    /// Returns whether the worker is present and neither draining nor lost: its idle sandboxes are
    /// kept.
    pub(crate) fn is_open(&self, at: WorkerId) -> bool {
        self.seat(at).is_some_and(|seat| self.seat_is_open(seat))
    }

    fn seat_is_open(&self, seat: usize) -> bool {
        self.open.get(seat / 64).is_some_and(|bits| bits >> (seat % 64) & 1 == 1)
    }

    /// Returns whether the worker is lost and not yet removed.
    pub(crate) fn is_lost(&self, at: WorkerId) -> bool {
        self.get(at).is_some_and(|it| it.phase == Phase::Lost)
    }

    /// Puts a sandbox at the head of its worker's list.
    pub(crate) fn link(&mut self, sandboxes: &mut Slab<SandboxSlot, Sandbox>, at: SandboxSlot) {
        let Some(worker) = sandboxes.get(at).map(|it| it.worker) else { return };
        let Some(worker) = self.get_mut(worker) else { return };
        let head = std::mem::replace(&mut worker.head, at);
        worker.sandboxes += 1;
        if let Some(head) = sandboxes.get_mut(head) {
            head.worker_prev = at;
        }
        if let Some(sandbox) = sandboxes.get_mut(at) {
            (sandbox.worker_next, sandbox.worker_prev) = (head, SandboxSlot::NONE);
        }
    }

    pub(crate) fn unlink(&mut self, sandboxes: &mut Slab<SandboxSlot, Sandbox>, at: SandboxSlot) {
        let Some(sandbox) = sandboxes.get(at) else { return };
        let (worker, next, prev) = (sandbox.worker, sandbox.worker_next, sandbox.worker_prev);
        if let Some(prev) = sandboxes.get_mut(prev) {
            prev.worker_next = next;
        }
        if let Some(next) = sandboxes.get_mut(next) {
            next.worker_prev = prev;
        }
        if let Some(worker) = self.get_mut(worker) {
            worker.sandboxes -= 1;
            if prev == SandboxSlot::NONE {
                worker.head = next;
            }
        }
    }

    /// Returns the sandboxes of a worker, newest first.
    pub(crate) fn sandboxes<'a>(
        &'a self,
        sandboxes: &'a Slab<SandboxSlot, Sandbox>,
        at: WorkerId,
    ) -> impl Iterator<Item = (SandboxSlot, &'a Sandbox)> + 'a {
        let mut next = self.get(at).map_or(SandboxSlot::NONE, |worker| worker.head);
        std::iter::from_fn(move || {
            let at = next;
            let sandbox = sandboxes.get(at)?;
            next = sandbox.worker_next;
            Some((at, sandbox))
        })
    }
}

impl State {
    /// Returns whether a sandbox in this state is being made.
    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Waiting | Self::Starting)
    }
}
