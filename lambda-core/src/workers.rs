//! The table of workers: resources, use and expected load of each.

mod rooms;
mod uses;

use self::rooms::{NO_ROOM, ROOMS};
use self::uses::Use;
use crate::engine::health::Health;
use crate::id::{AccountId, WorkerId, ZONES_MAX, Zone};
use crate::sandbox::{Sandbox, State};
use crate::settings::{Capacity, Isolation};
use crate::stats::demand::{BINS, LOAD_ONE, Load};
use crate::store::fits::{Fits, Free};
use crate::store::slab::{NONE, Slab};
use crate::store::slot::SandboxSlot;
use crate::time::Time;

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Workers {
    rows: Vec<Worker>,
    /// Expected load by minute of the hour: [`BINS`] entries for each worker.
    loads: Vec<u32>,
    /// For each worker, the sum of the variances of its sandboxes' loads; see [`variance`].
    variances: Vec<u64>,
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

/// The fields of a worker that placement reads. They take four cache lines: a decision reads the
/// first, the second, and the one of the other two that holds the current minute.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C, align(256))]
pub(crate) struct Worker {
    /// The variance of the worker's load in processors squared, and its square root.
    pub(crate) variance: f32,
    pub(crate) deviation: f32,
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
    /// The highest expected load of any minute.
    pub(crate) peak: u32,
    room: u32,
    room_place: u32,
    pub(crate) zone: Zone,
    pub(crate) isolation: Isolation,
    pub(crate) phase: Phase,
    /// The power of two by which `bins` is divided; 0 up to a load of 64 processors.
    bins_shift: u8,

    owners: [u8; 32],
    runtimes: [u8; 16],
    /// The head of the list of its sandboxes.
    pub(crate) head: SandboxSlot,
    /// Its seat in the index of free resources.
    seat: u32,
    pub(crate) drain_at: Time,

    /// Expected load by minute of the hour, divided by 2^`bins_shift` and rounded up.
    bins: [[u16; BINS / 2]; 2],
    pub(crate) lease_until: Time,
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
    Draining,
    /// Lost: for the driver it is gone. What the engine still has of it is removed in parts; no
    /// command names the worker any more.
    Lost,
    /// No worker has this id.
    Absent,
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
            self.loads.resize((at + 1) * BINS, 0);
            self.variances.resize(at + 1, 0);
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
        self.loads[at * BINS..(at + 1) * BINS].fill(0);
        self.variances[at] = 0;
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

    pub(crate) fn load(&self, at: WorkerId) -> &[u32] {
        let at = at.0 as usize * BINS;
        self.loads.get(at..at + BINS).unwrap_or_default()
    }

    /// Reads the cache lines that a decision about a worker needs, when it looks at the minutes
    /// from `first` to `last`. The reads do not depend on each other, so that the memory latencies
    /// of several workers overlap.
    ///
    /// The code must stay short: the processor then reaches the reads of all candidates before the
    /// first one completes.
    pub(crate) fn touch(&self, at: WorkerId, [first, last]: [usize; 2]) -> u32 {
        let Some(it) = self.rows.get(at.0 as usize) else { return 0 };
        let bins = it.bins.as_flattened();
        let (first, last) = (bins[first % BINS], bins[last % BINS]);
        it.memory_kib ^ u32::from(it.owners[0]) ^ u32::from(first ^ last) ^ self.busy_milli(at)
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

    pub(crate) fn add_load(&mut self, at: WorkerId, load: &Load) {
        self.change_load(at, load, u32::wrapping_add, u64::wrapping_add);
    }

    pub(crate) fn take_load(&mut self, at: WorkerId, load: &Load) {
        self.change_load(at, load, u32::wrapping_sub, u64::wrapping_sub);
    }

    fn change_load(
        &mut self,
        at: WorkerId,
        load: &Load,
        change: impl Fn(u32, u32) -> u32,
        change_variance: impl Fn(u64, u64) -> u64,
    ) {
        let at = at.0 as usize;
        let start = at * BINS;
        let Some(sums) = self.loads.get_mut(start..start + BINS) else { return };
        let mut peak = 0;
        for (sum, load) in sums.iter_mut().zip(load) {
            *sum = change(*sum, *load);
            peak = peak.max(*sum);
        }
        let (Some(worker), Some(sum)) = (self.rows.get_mut(at), self.variances.get_mut(at)) else {
            return;
        };
        *sum = change_variance(*sum, variance(load));
        worker.variance = processors_squared(*sum);
        worker.deviation = worker.variance.sqrt();
        worker.peak = peak;
        let shift = (u32::BITS - peak.leading_zeros()).saturating_sub(u16::BITS);
        worker.bins_shift = u8::try_from(shift).unwrap_or_default();
        let below_one = (1 << shift) - 1;
        for (bin, sum) in worker.bins.as_flattened_mut().iter_mut().zip(&*sums) {
            *bin = u16::try_from(sum.saturating_add(below_one) >> shift).unwrap_or(u16::MAX);
        }
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

impl Worker {
    fn absent() -> Self {
        Self {
            variance: 0.0,
            deviation: 0.0,
            memory_kib: 0,
            memory_used_kib: 0,
            cpu_milli: 0,
            cpu_real_milli: 0,
            cpu_used_milli: 0,
            slots: 0,
            slots_used: 0,
            starting: 0,
            sandboxes: 0,
            peak: 0,
            room: NO_ROOM,
            room_place: 0,
            zone: Zone(0),
            isolation: Isolation::Sandbox,
            phase: Phase::Absent,
            bins_shift: 0,
            owners: [0; 32],
            runtimes: [0; 16],
            head: SandboxSlot::NONE,
            seat: NONE,
            vms: 0,
            drain_at: Time::ZERO,
            bins: [[0; BINS / 2]; 2],
            lease_until: Time::ZERO,
        }
    }

    /// Returns the expected load by minute of the hour, and the power of two that it is divided by.
    pub(crate) fn bins(&self) -> (&[u16], u8) {
        (self.bins.as_flattened(), self.bins_shift)
    }

    /// Returns the number of its sandboxes that count with this owner, approximately.
    pub(crate) fn of_owner(&self, owner: AccountId) -> u32 {
        unsqueezed(self.owners[owner_class(owner)])
    }

    /// Returns the number of its sandboxes that count with this runtime, approximately.
    pub(crate) fn of_runtime(&self, runtime: u8) -> u32 {
        unsqueezed(self.runtimes[runtime_class(runtime)])
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

impl State {
    /// Returns whether a sandbox in this state is being made.
    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Waiting | Self::Starting)
    }
}

fn owner_class(owner: AccountId) -> usize {
    owner.0 as usize % 32
}

fn runtime_class(runtime: u8) -> usize {
    usize::from(runtime) % 16
}

/// Encodes a count in a byte: exactly below 192, in steps of 32 from there to 2,208.
fn squeezed(count: u16) -> u8 {
    let steps = count.saturating_sub(192) / 32;
    u8::try_from(count.min(192) + steps).unwrap_or(u8::MAX)
}

fn unsqueezed(byte: u8) -> u32 {
    let byte = u32::from(byte);
    byte + byte.saturating_sub(192) * 31
}

/// Returns the variance of a load that is either 0 or the sandbox's peak and has the sandbox's
/// mean.
fn variance(load: &Load) -> u64 {
    let sum: u64 = load.iter().map(|bin| u64::from(*bin)).sum();
    let peak = u64::from(load.iter().copied().max().unwrap_or_default());
    let mean = sum / BINS as u64;
    mean * peak.saturating_sub(mean)
}

/// Converts a variance in units of [`LOAD_ONE`] squared to processors squared.
#[expect(clippy::cast_precision_loss, reason = "scores; the loss is the same everywhere")]
fn processors_squared(variance: u64) -> f32 {
    variance as f32 / (LOAD_ONE as f32 * LOAD_ONE as f32)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn a_row_is_four_lines_and_a_decision_reads_three() {
        assert_eq!((size_of::<Worker>(), align_of::<Worker>()), (256, 256));
        assert_eq!((offset_of!(Worker, owners), offset_of!(Worker, bins)), (64, 128));
    }

    #[test]
    fn counts_in_a_byte_grow_with_the_count() {
        for count in 0..3000_u16 {
            let seen = unsqueezed(squeezed(count));
            let exact = u32::from(count);
            assert!(seen <= exact && exact < seen + 32 || seen == 2208, "{count}: {seen}");
        }
        assert_eq!((unsqueezed(squeezed(191)), unsqueezed(squeezed(u16::MAX))), (191, 2208));
    }

    #[test]
    fn bins_are_exact_up_to_64_processors_and_never_less_than_the_load_beyond() {
        let mut workers = Workers::default();
        workers.insert(
            WorkerId(0),
            &Capacity::of_memory(1 << 30),
            (100, 100),
            Time::ZERO,
            Time::ZERO,
        );
        let mut load = [0; BINS];
        (load[0], load[59]) = (60_001, 7);
        for added in 1..6_u32 {
            workers.add_load(WorkerId(0), &load);
            let (bins, shift) = workers.get(WorkerId(0)).unwrap().bins();
            for (bin, sum) in bins.iter().zip(workers.load(WorkerId(0))) {
                let seen = u32::from(*bin) << shift;
                assert!(seen >= *sum && seen - sum < 1 << shift);
            }
            assert_eq!(shift == 0, added == 1);
        }
        (0..4).for_each(|_| workers.take_load(WorkerId(0), &load));
        let (bins, shift) = workers.get(WorkerId(0)).unwrap().bins();
        assert_eq!((bins[0], bins[59], shift), (60_001, 7, 0));
    }
}
