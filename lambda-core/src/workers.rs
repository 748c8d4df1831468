//! The fleet: what each worker has, holds and is expected to carry.

use crate::sandbox::{Sandbox, State};
use crate::settings::{Capacity, Isolation};
use crate::stats::demand::{BINS, Load};
use crate::store::slab::{NONE, Slab};
use crate::{Time, WorkerId, ZONES_MAX, Zone};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Workers {
    by_id: Vec<Option<Worker>>,
    /// Expected load by minute of the hour, [`BINS`] for each worker.
    loads: Vec<u32>,
    kinds: Vec<Kinds>,
    /// Workers that take sandboxes, by zone and by their free memory's power of two; then those that are near their
    /// end.
    rooms: Vec<Vec<u32>>,
    /// One bit for each class whose list is not empty, by zone; then those that are near their end.
    occupied: Vec<u64>,
    count: u32,
}

/// Hot: what is looked at for each candidate.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Worker {
    pub(crate) memory_kib: u32,
    pub(crate) memory_used_kib: u32,
    /// What may be given away.
    pub(crate) cpu_milli: u32,
    /// What is there.
    pub(crate) cpu_real_milli: u32,
    pub(crate) cpu_used_milli: u32,
    /// Of busy sandboxes.
    pub(crate) cpu_busy_milli: u32,
    pub(crate) slots: u32,
    pub(crate) slots_used: u32,
    pub(crate) starting: u32,
    pub(crate) sandboxes: u32,
    pub(crate) vms: u32,
    /// The first of its sandboxes.
    pub(crate) head: u32,
    room: u32,
    room_place: u32,
    pub(crate) zone: Zone,
    pub(crate) isolation: Isolation,
    pub(crate) phase: Phase,
    pub(crate) lease_until: Time,
    pub(crate) drain_at: Time,
    /// Sum of its sandboxes' mean loads times what is left to one: a bound of the variance of a sum of coins.
    pub(crate) variance: u64,
    /// The highest bin of its load.
    pub(crate) peak: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Phase {
    Serving,
    /// Near its end: takes sandboxes only where no other worker can.
    Quiet,
    Draining,
}

/// How many sandboxes of each kind a worker has. Owners share counters by their number: a hint, not a count.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Kinds {
    pub(crate) owners: [u16; 32],
    pub(crate) runtimes: [u16; 16],
}

const CLASSES: u32 = 33;
const ROOMS: usize = ZONES_MAX as usize * CLASSES as usize;
const NO_ROOM: u32 = u32::MAX;

impl Workers {
    pub(crate) fn insert(
        &mut self,
        id: WorkerId,
        capacity: &Capacity,
        percent: (u32, u32),
        lease_until: Time,
        drain_at: Time,
    ) {
        let at = id.0 as usize;
        if self.by_id.len() <= at {
            self.by_id.resize_with(at + 1, || None);
            self.loads.resize((at + 1) * BINS, 0);
            self.kinds.resize_with(at + 1, Kinds::default);
        }
        if self.rooms.is_empty() {
            self.rooms.resize_with(ROOMS * 2, Vec::new);
            self.occupied.resize(ZONES_MAX as usize * 2, 0);
        }
        let given = |real: u64, percent: u32| {
            u32::try_from(real.saturating_mul(u64::from(percent)) / 100).unwrap_or(u32::MAX)
        };
        self.by_id[at] = Some(Worker {
            memory_kib: given(capacity.memory_bytes >> 10, percent.0),
            memory_used_kib: 0,
            cpu_milli: given(u64::from(capacity.cpu_milli), percent.1),
            cpu_real_milli: capacity.cpu_milli,
            cpu_used_milli: 0,
            cpu_busy_milli: 0,
            slots: capacity.interface_slots,
            slots_used: 0,
            starting: 0,
            sandboxes: 0,
            vms: 0,
            head: NONE,
            room: NO_ROOM,
            room_place: 0,
            zone: capacity.zone,
            isolation: capacity.isolation,
            phase: Phase::Serving,
            lease_until,
            drain_at,
            variance: 0,
            peak: 0,
        });
        self.loads[at * BINS..(at + 1) * BINS].fill(0);
        self.kinds[at] = Kinds::default();
        self.count += 1;
        self.sort(id.0);
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<Worker> {
        self.leave_room(at);
        let worker = self.by_id.get_mut(at as usize)?.take()?;
        self.count -= 1;
        Some(worker)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Worker> {
        self.by_id.get(at as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Worker> {
        self.by_id.get_mut(at as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Worker)> {
        (0..).zip(&self.by_id).filter_map(|(at, worker)| Some((at, worker.as_ref()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// One past the highest id.
    pub(crate) fn ids(&self) -> u32 {
        u32::try_from(self.by_id.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn load(&self, at: u32) -> &[u32] {
        let at = at as usize * BINS;
        self.loads.get(at..at + BINS).unwrap_or_default()
    }

    pub(crate) fn kinds(&self, at: u32) -> Option<&Kinds> {
        self.kinds.get(at as usize)
    }

    pub(crate) fn kinds_mut(&mut self, at: u32) -> Option<&mut Kinds> {
        self.kinds.get_mut(at as usize)
    }

    pub(crate) fn add_load(&mut self, at: u32, load: &Load) {
        self.change_load(at, load, u32::wrapping_add, u64::wrapping_add);
    }

    pub(crate) fn take_load(&mut self, at: u32, load: &Load) {
        self.change_load(at, load, u32::wrapping_sub, u64::wrapping_sub);
    }

    fn change_load(
        &mut self,
        at: u32,
        load: &Load,
        change: impl Fn(u32, u32) -> u32,
        change_variance: impl Fn(u64, u64) -> u64,
    ) {
        let start = at as usize * BINS;
        let Some(sums) = self.loads.get_mut(start..start + BINS) else { return };
        let mut peak = 0;
        for (sum, load) in sums.iter_mut().zip(load) {
            *sum = change(*sum, *load);
            peak = peak.max(*sum);
        }
        if let Some(worker) = self.get_mut(at) {
            worker.variance = change_variance(worker.variance, variance(load));
            worker.peak = peak;
        }
    }

    /// Changes what a worker holds of memory, and where it is found.
    pub(crate) fn hold_memory(&mut self, at: u32, kib: i64) {
        if let Some(worker) = self.get_mut(at) {
            let used = i64::from(worker.memory_used_kib) + kib;
            worker.memory_used_kib = u32::try_from(used).unwrap_or(0);
            self.sort(at);
        }
    }

    pub(crate) fn set_phase(&mut self, at: u32, phase: Phase) {
        if let Some(worker) = self.get_mut(at) {
            worker.phase = phase;
            self.sort(at);
        }
    }

    /// Puts a sandbox into its worker's list.
    pub(crate) fn link(&mut self, sandboxes: &mut Slab<Sandbox>, at: u32) {
        let Some(worker) = sandboxes.get(at).map(|it| it.worker) else { return };
        let Some(worker) = self.get_mut(worker) else { return };
        let head = std::mem::replace(&mut worker.head, at);
        worker.sandboxes += 1;
        if let Some(head) = sandboxes.get_mut(head) {
            head.worker_prev = at;
        }
        if let Some(sandbox) = sandboxes.get_mut(at) {
            (sandbox.worker_next, sandbox.worker_prev) = (head, NONE);
        }
    }

    pub(crate) fn unlink(&mut self, sandboxes: &mut Slab<Sandbox>, at: u32) {
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
            if prev == NONE {
                worker.head = next;
            }
        }
    }

    /// Returns a worker's sandboxes, the newest first.
    pub(crate) fn sandboxes<'a>(
        &'a self,
        sandboxes: &'a Slab<Sandbox>,
        at: u32,
    ) -> impl Iterator<Item = (u32, &'a Sandbox)> + 'a {
        let mut next = self.get(at).map_or(NONE, |worker| worker.head);
        std::iter::from_fn(move || {
            let at = next;
            let sandbox = sandboxes.get(at)?;
            next = sandbox.worker_next;
            Some((at, sandbox))
        })
    }

    /// Returns the lists of a zone's workers that are not empty and all of whose workers have `kib` free.
    pub(crate) fn sure_rooms(
        &self,
        zone: Zone,
        kib: u32,
        quiet: bool,
    ) -> impl Iterator<Item = &[u32]> {
        let block = if quiet { usize::from(ZONES_MAX) } else { 0 } + usize::from(zone.0);
        let above = class(kib) + 1;
        let occupied = self.occupied.get(block).map_or(0, |bits| bits >> above << above);
        let first = block * CLASSES as usize;
        let mut left = occupied;
        std::iter::from_fn(move || {
            let class = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            self.rooms.get(first + class as usize).filter(|_| class < CLASSES).map(Vec::as_slice)
        })
    }

    /// Returns the workers of a zone that may have `kib` free: first a list of lists whose workers all have, then
    /// the one list whose workers may.
    pub(crate) fn rooms(&self, zone: Zone, kib: u32, quiet: bool) -> (&[Vec<u32>], &[u32]) {
        let start = ROOMS * usize::from(quiet) + usize::from(zone.0) * CLASSES as usize;
        let class = class(kib) as usize;
        let Some(rooms) = self.rooms.get(start..start + CLASSES as usize) else {
            return (&[], &[]);
        };
        (&rooms[class + 1..], &rooms[class])
    }

    /// Puts a worker where its free memory belongs.
    fn sort(&mut self, at: u32) {
        let Some(worker) = self.get(at) else { return };
        let room = match worker.phase {
            Phase::Draining => NO_ROOM,
            phase => {
                let quiet = if phase == Phase::Quiet { ROOMS } else { 0 };
                let zone = usize::from(worker.zone.0) * CLASSES as usize;
                let class = class(worker.free_kib()) as usize;
                u32::try_from(quiet + zone + class).unwrap_or(NO_ROOM)
            }
        };
        if room == worker.room {
            return;
        }
        self.leave_room(at);
        let Some(list) = self.rooms.get_mut(room as usize) else { return };
        let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push(at);
        self.mark(room);
        if let Some(worker) = self.get_mut(at) {
            (worker.room, worker.room_place) = (room, place);
        }
    }

    fn leave_room(&mut self, at: u32) {
        let Some(worker) = self.get_mut(at) else { return };
        let (room, place) = (std::mem::replace(&mut worker.room, NO_ROOM), worker.room_place);
        let Some(list) = self.rooms.get_mut(room as usize) else { return };
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        self.mark(room);
        if let Some(moved) = moved.and_then(|moved| self.get_mut(moved)) {
            moved.room_place = place;
        }
    }

    /// Marks whether a room is empty.
    fn mark(&mut self, room: u32) {
        let empty = self.rooms.get(room as usize).is_none_or(Vec::is_empty);
        let Some(zone) = self.occupied.get_mut((room / CLASSES) as usize) else { return };
        let bit = 1 << (room % CLASSES);
        if empty { *zone &= !bit } else { *zone |= bit }
    }
}

impl Worker {
    pub(crate) fn free_kib(&self) -> u32 {
        self.memory_kib.saturating_sub(self.memory_used_kib)
    }

    /// Returns whether nothing is on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes == 0 && self.vms == 0
    }
}

impl State {
    /// Returns whether a sandbox in this state is being made.
    pub(crate) fn is_coming(self) -> bool {
        matches!(self, Self::Waiting | Self::Starting)
    }
}

/// Free memory's class: all of one class have at least half of what the next begins with.
fn class(kib: u32) -> u32 {
    32 - kib.leading_zeros()
}

/// The variance of a coin that shows the sandbox's mean load.
fn variance(load: &Load) -> u64 {
    let sum: u64 = load.iter().map(|bin| u64::from(*bin)).sum();
    let peak = u64::from(load.iter().copied().max().unwrap_or_default());
    let mean = sum / BINS as u64;
    mean * peak.saturating_sub(mean)
}
