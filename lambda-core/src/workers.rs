//! The table of workers: resources and use of each.

mod rooms;
mod row;
mod uses;

pub(crate) use self::row::{Phase, Worker};
use self::row::{ROOMS, Use, owner_class, runtime_class, squeezed};
use crate::engine::health::Health;
use crate::id::{AccountId, WorkerId, ZONES_MAX};
use crate::sandbox::{Sandbox, State};
use crate::settings::Capacity;
use crate::store::fits::{Fits, Free};
use crate::store::slab::Slab;
use crate::store::slot::SandboxSlot;
use crate::time::Time;

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Workers {
    rows: Vec<Worker>,
    kinds: Vec<Kinds>,
    /// What the sandboxes of each worker use now. Warm traffic reads only this and `open` of a
    /// worker, so these arrays are small enough to stay in the processor's cache.
    uses: Vec<Use>,
    /// Memory of idle sandboxes: for each block of 64 workers, and of all workers.
    idle_blocks: Vec<u64>,
    idle_kib: u64,
    /// An index of the free resources of each worker.
    fits: Fits,
    /// One bit for each worker, set while it is present and neither draining nor lost: its idle
    /// sandboxes are kept.
    open: Vec<u64>,
    sides: Vec<Side>,
    ejected: usize,
    /// Workers that take sandboxes, one list for each zone and power of two of their free memory.
    /// The second half of the lists has those in [`Phase::Quiet`] and [`Phase::Suspect`].
    rooms: Vec<Vec<WorkerId>>,
    /// For each zone, one bit for each non-empty list; then the same for the second half of the
    /// lists.
    occupied: Vec<u64>,
    /// One bit for each zone with a non-empty list; then the same for the second half of the lists.
    zones: [u32; 2],
    count: u32,
}

/// The fields of a worker that are seldom read.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Side {
    pub(crate) health: Health,
    /// The worker has sent a report since it joined.
    pub(crate) reported: bool,
    /// The lease was renewed although no heartbeat came.
    pub(crate) graced: bool,
    /// The worker drains soon ([`Recycling::quiet`](crate::Recycling::quiet)).
    pub(crate) near_end: bool,
}

/// The number of a worker's sandboxes by owner and by runtime. Ids are reduced modulo the array
/// length, so that several share a counter.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Kinds {
    owners: [u16; 32],
    runtimes: [u16; 16],
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
        let at = id.0 as usize;
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, Worker::absent);
            self.kinds.resize_with(at + 1, Kinds::default);
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
            phase: Phase::Serving,
            lease_until,
            drain_at,
            ..Worker::absent()
        };
        self.kinds[at] = Kinds::default();
        self.uses[at] = Use::default();
        self.rows[at].seat = self.fits.insert(id);
        self.sides[at] = Side { health: self.sides[at].health, ..Side::default() };
        self.set_open(id, true);
        self.count += 1;
        self.sort(id);
        self.refit(id);
    }

    pub(crate) fn remove(&mut self, at: WorkerId) -> Option<Worker> {
        self.leave_room(at);
        let seat = self.get(at)?.seat;
        self.fits.remove(seat);
        let worker = self.get_mut(at)?;
        let worker = std::mem::replace(worker, Worker::absent());
        self.ejected -= usize::from(worker.phase == Phase::Ejected);
        self.set_open(at, false);
        self.count -= 1;
        Some(worker)
    }

    pub(crate) fn get(&self, at: WorkerId) -> Option<&Worker> {
        self.rows.get(at.0 as usize).filter(|it| it.phase != Phase::Absent)
    }

    pub(crate) fn get_mut(&mut self, at: WorkerId) -> Option<&mut Worker> {
        self.rows.get_mut(at.0 as usize).filter(|it| it.phase != Phase::Absent)
    }

    pub(crate) fn side(&self, at: WorkerId) -> Option<&Side> {
        self.get(at)?;
        self.sides.get(at.0 as usize)
    }

    pub(crate) fn side_mut(&mut self, at: WorkerId) -> Option<&mut Side> {
        self.get(at)?;
        self.sides.get_mut(at.0 as usize)
    }

    /// Returns whether there are workers and all have sent a report since they joined.
    pub(crate) fn all_reported(&self) -> bool {
        let mut there = self.iter().map(|(at, _)| self.sides[at.0 as usize].reported).peekable();
        there.peek().is_some() && there.all(|reported| reported)
    }

    /// Returns the number of ejected workers.
    pub(crate) fn ejected(&self) -> usize {
        self.ejected
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        (0..).map(WorkerId).zip(&self.rows).filter(|(_, it)| it.phase != Phase::Absent)
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns one more than the highest id.
    pub(crate) fn ids(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// Reads the cache lines that a decision about a worker needs. The reads do not depend on each
    /// other, so that the memory latencies of several workers overlap.
    ///
    /// The code must stay short: the processor then reaches the reads of all candidates before the
    /// first one completes.
    pub(crate) fn touch(&self, at: WorkerId) -> u32 {
        let Some(it) = self.rows.get(at.0 as usize) else { return 0 };
        it.memory_kib ^ u32::from(it.owners[0]) ^ self.busy_milli(at)
    }

    /// Counts one more sandbox of an owner and a runtime.
    pub(crate) fn add_kind(&mut self, at: WorkerId, owner: AccountId, runtime: u8) {
        self.change_kind(at, owner, runtime, |count| count.saturating_add(1));
    }

    /// Counts one sandbox less of an owner and a runtime.
    pub(crate) fn take_kind(&mut self, at: WorkerId, owner: AccountId, runtime: u8) {
        self.change_kind(at, owner, runtime, |count| count.saturating_sub(1));
    }

    fn change_kind(
        &mut self,
        at: WorkerId,
        owner: AccountId,
        runtime: u8,
        change: impl Fn(u16) -> u16,
    ) {
        let at = at.0 as usize;
        let (Some(kinds), Some(row)) = (self.kinds.get_mut(at), self.rows.get_mut(at)) else {
            return;
        };
        let (owner, runtime) = (owner_class(owner), runtime_class(runtime));
        kinds.owners[owner] = change(kinds.owners[owner]);
        kinds.runtimes[runtime] = change(kinds.runtimes[runtime]);
        row.owners[owner] = squeezed(kinds.owners[owner]);
        row.runtimes[runtime] = squeezed(kinds.runtimes[runtime]);
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
        let takes = !matches!(worker.phase, Phase::Draining | Phase::Ejected | Phase::Lost);
        let free = if takes { worker.free() } else { Free::default() };
        let seat = worker.seat;
        self.fits.set(seat, free);
    }

    /// Returns the index of free resources.
    pub(crate) fn fits(&self) -> &Fits {
        &self.fits
    }

    pub(crate) fn set_phase(&mut self, at: WorkerId, phase: Phase) {
        if let Some(worker) = self.get_mut(at) {
            let before = std::mem::replace(&mut worker.phase, phase);
            self.ejected += usize::from(phase == Phase::Ejected);
            self.ejected -= usize::from(before == Phase::Ejected);
            self.set_open(at, !matches!(phase, Phase::Draining | Phase::Lost));
            self.sort(at);
            self.refit(at);
        }
    }

    fn set_open(&mut self, at: WorkerId, open: bool) {
        let Some(bits) = self.open.get_mut(at.0 as usize / 64) else { return };
        let bit = 1 << (at.0 % 64);
        if open { *bits |= bit } else { *bits &= !bit }
    }

    /// Returns whether the worker is present and neither draining nor lost: its idle sandboxes are
    /// kept.
    pub(crate) fn is_open(&self, at: WorkerId) -> bool {
        self.open.get(at.0 as usize / 64).is_some_and(|bits| bits >> (at.0 % 64) & 1 == 1)
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
