//! The inputs of a placement policy: the fleet, a worker, and the sandbox to place.

use super::{Draw, Refusal, Scratch};
use crate::config::Config;
use crate::engine::function::Function;
use crate::id::{FunctionId, WorkerId, ZONES_MAX, Zone};
use crate::settings::FunctionSettings;
use crate::settings::Isolation;
use crate::store::fits::Free;
use crate::store::paged::Paged;
use crate::store::slot::VmSlot;
use crate::store::spread::Spread;
use crate::time::Time;
use crate::workers::{Phase, Worker, Workers};

/// A read-only view of the fleet.
#[derive(Clone, Copy, Debug)]
pub struct FleetView<'a> {
    pub(crate) workers: &'a Workers,
    pub(crate) functions: &'a Paged<FunctionId, Function>,
    pub(crate) config: &'a Config,
}

/// A request for the placement of one sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The function of the sandbox.
    pub function: FunctionId,
    /// The function's settings.
    pub settings: &'a FunctionSettings,
    /// The current time, in the engine's time ([`Engine::elapsed`](crate::Engine::elapsed)).
    pub now: Time,
    /// The number of the function's sandboxes on each worker.
    pub(crate) spread: &'a Spread,
    pub(crate) memory_kib: u32,
    /// The zones that the sandbox may be in, one bit each.
    pub(crate) zones: u32,
    /// The zones where a network interface is ready, one bit each.
    pub(crate) zones_ready: u32,
    /// VMs with room for the sandbox, as (worker, VM): ready or starting ones of the customer, then
    /// ready ones of a pool.
    pub(crate) ready: &'a [(WorkerId, VmSlot)],
}

/// A read-only view of one worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerView<'a> {
    fleet: FleetView<'a>,
    worker: &'a Worker,
    at: WorkerId,
    /// The share of one processor in the worker's processors; 1 if they are not counted. Stored,
    /// since a decision needs many shares and divisions are slow.
    one_cpu: f32,
}

impl<'a> FleetView<'a> {
    /// Returns every worker, in the order of their seats. The cost grows with the fleet, so this is
    /// for comparison and for small fleets.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'a>> + use<'a> {
        let fleet = *self;
        self.workers.iter().map(move |(at, worker)| WorkerView::new(fleet, worker, at))
    }

    /// Returns a worker, or `None` if no worker has this id.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView<'a>> {
        let worker = self.workers.get(id)?;
        Some(WorkerView::new(*self, worker, id))
    }

    /// Returns the number of workers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Returns whether there are no workers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of seats: the most workers that were present at once.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.workers.seats()
    }

    /// Returns the worker of a seat, below [`Self::seats`]; `None` if the seat is empty. A worker
    /// keeps its seat as long as it is present.
    #[must_use]
    pub fn in_seat(&self, seat: usize) -> Option<WorkerView<'a>> {
        let (at, worker) = self.workers.in_seat(seat)?;
        Some(WorkerView::new(*self, worker, at))
    }

    /// Returns why a worker cannot have a sandbox, or `None` if it can.
    #[must_use]
    pub fn refusal(&self, view: &WorkerView<'_>, request: &Request<'_>) -> Option<Refusal> {
        let needs = Needs::of(request.settings, request.memory_kib, request.zones);
        let spare = Spare { has_vm: view.has_vm_for(request), ..Spare::default() };
        refusal(self.config, view.worker, &needs, &spare)
    }

    /// Fills `candidates` with up to `count` different workers that have memory for the sandbox.
    /// Workers with a VM for it come first. The cost does not grow with the fleet: workers are
    /// listed by the power of two of their free memory, and of the one list whose workers may or
    /// may not fit, at most 64 in each zone are looked at.
    pub fn sample(
        &self,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        candidates: &mut Vec<WorkerId>,
        count: usize,
    ) {
        candidates.clear();
        for (worker, _) in request.ready.iter().take(count / 2) {
            add(candidates, *worker);
        }
        if request.settings.labels != 0 {
            draw.scratch.ahead.clear();
            return self.add_labelled(request, draw, candidates, count);
        }
        let ahead = &mut draw.scratch.ahead;
        if ahead.is_empty() {
            let parts = [count.div_ceil(2), count / 2];
            return self.add_drawn(request, draw, candidates, count, parts);
        }
        // For each worker without room, another is drawn among those with room: the distribution is
        // as if all were drawn there.
        let mut missing = 0;
        for seat in ahead.drain(..) {
            match self.workers.in_seat(seat) {
                Some((at, worker)) if has_room(worker, request) => add(candidates, at),
                _ => missing += 1,
            }
        }
        if missing > 0 {
            self.add_drawn(request, draw, candidates, count, [missing, 0]);
        }
    }

    /// Draws workers of the whole fleet before the function is known, half at random and half in
    /// turn, and reads the cache lines that a decision needs. [`Self::sample`] then takes those
    /// that have room.
    pub(crate) fn draw_ahead(&self, draw: &mut Draw<'_>, count: usize) {
        let seats = self.workers.seats();
        let Scratch { ahead, .. } = &mut *draw.scratch;
        ahead.clear();
        if self.workers.len() <= count {
            return;
        }
        let mut next = usize::try_from(*draw.cursor).unwrap_or(0);
        for _ in 0..count / 2 {
            next = if next < seats { next } else { 0 };
            ahead.push(next);
            next += 1;
        }
        *draw.cursor = next as u64;
        ahead.extend((0..count.div_ceil(2)).map(|_| draw.random.below(seats)));
        let touch = |read, seat: &usize| read ^ self.workers.touch(*seat);
        std::hint::black_box(ahead.iter().fold(0, touch));
    }

    /// Adds different workers with room: some at random and some in turn, or all if there are at
    /// most `count`.
    fn add_drawn(
        &self,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        candidates: &mut Vec<WorkerId>,
        count: usize,
        [by_chance, in_turn]: [usize; 2],
    ) {
        for quiet in [false, true] {
            let rooms = &mut draw.scratch.rooms;
            let sure = self.workers.sure_rooms(request.zones, request.memory_kib, quiet, rooms);
            let Scratch { rooms, picked, .. } = &mut *draw.scratch;
            picked.clear();
            if sure <= count {
                picked.extend(0..sure);
                self.add_picked(rooms, picked, candidates);
                self.add_unsure(request, quiet, draw, candidates, count);
            } else {
                // Half at random, half in turn: the turn ensures that a burst leaves no worker out
                // for long. A worker that is picked twice leaves one candidate less.
                picked.extend((0..by_chance).map(|_| draw.random.below(sure)));
                let mut next = usize::try_from(*draw.cursor % sure as u64).unwrap_or(0);
                for _ in 0..in_turn {
                    let turn = if next < sure { next } else { 0 };
                    picked.push(turn);
                    next = turn + 1;
                    *draw.cursor = next as u64;
                }
                self.add_picked(rooms, picked, candidates);
            }
            if !candidates.is_empty() {
                return;
            }
        }
    }

    /// Adds different workers that have the labels of the function and room for it. The lists of
    /// workers do not know labels, so each is the first in the index after a random seat.
    fn add_labelled(
        &self,
        request: &Request<'_>,
        draw: &mut Draw<'_>,
        candidates: &mut Vec<WorkerId>,
        count: usize,
    ) {
        let least = Needs::of(request.settings, request.memory_kib, request.zones).least();
        for _ in 0..count {
            let from = draw.below(self.workers.seats());
            let serves = |worker: WorkerId| {
                self.workers.get(worker).is_some_and(|it| it.phase == Phase::Serving)
            };
            let Some(found) = self.workers.fits().find(&least, from, serves) else { return };
            add(candidates, found);
        }
    }

    /// Adds the workers at positions of the joined lists. All are read before the first comparison,
    /// so that the latencies overlap.
    fn add_picked(&self, rooms: &[(usize, u32)], picked: &mut [usize], to: &mut Vec<WorkerId>) {
        for nth in &mut *picked {
            let worker = self.workers.in_rooms(rooms, *nth);
            *nth = worker.map_or(usize::MAX, |it| it.0 as usize);
        }
        let found = picked.iter().filter_map(|it| u32::try_from(*it).ok());
        found.for_each(|it| add(to, WorkerId(it)));
    }

    /// Reads the cache lines that a decision between these workers needs. The reads do not depend
    /// on each other, so that memory latencies overlap.
    pub(crate) fn touch(&self, workers: &[WorkerId], request: &Request<'_>) {
        let mut read = request.spread.touch_few();
        for worker in workers {
            read ^= request.spread.touch(*worker);
        }
        for worker in workers.iter().filter_map(|it| self.workers.get(*it)) {
            read ^= self.workers.touch(worker.seat as usize);
        }
        std::hint::black_box(read);
    }

    fn add_unsure(
        &self,
        request: &Request<'_>,
        quiet: bool,
        draw: &mut Draw<'_>,
        to: &mut Vec<WorkerId>,
        count: usize,
    ) {
        for zone in zones(request) {
            let (_, room) = self.workers.rooms(zone, request.memory_kib, quiet);
            let start = draw.below(room.len());
            for at in (start..room.len()).chain(0..start).take(LOOKED_AT_MAX) {
                if to.len() >= count {
                    return;
                }
                if self.workers.get(room[at]).is_some_and(|it| it.free_kib() >= request.memory_kib)
                {
                    add(to, room[at]);
                }
            }
        }
    }
}

/// The resources that a sandbox needs of its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) memory_kib: u32,
    pub(crate) cpu_milli: u32,
    pub(crate) slot: bool,
    /// The zones that the sandbox may be in, one bit each.
    pub(crate) zones: u32,
    /// What the worker must have ([`FunctionSettings::labels`]).
    pub(crate) labels: u16,
}

/// Resources that are available to a sandbox beyond a worker's free ones: reserved for it, or of
/// sandboxes that end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spare {
    pub(crate) memory_kib: u32,
    pub(crate) cpu_milli: u32,
    pub(crate) slots: u32,
    /// A VM on the worker has room.
    pub(crate) has_vm: bool,
}

impl Spare {
    /// Returns the sum of both.
    pub(crate) fn with(&self, other: &Self) -> Self {
        Self {
            memory_kib: self.memory_kib.saturating_add(other.memory_kib),
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            slots: self.slots.saturating_add(other.slots),
            has_vm: self.has_vm || other.has_vm,
        }
    }
}

impl Needs {
    pub(crate) fn of(settings: &FunctionSettings, memory_kib: u32, zones: u32) -> Self {
        let slot = settings.network.is_some();
        let (cpu_milli, labels) = (settings.cpu_milli, settings.labels);
        Self { memory_kib, cpu_milli, slot, zones, labels }
    }

    /// Returns the least that a worker must have free.
    pub(crate) fn least(&self) -> Free {
        let (zones, labels) = (self.zones, self.labels);
        let slots = u32::from(self.slot);
        Free { kib: self.memory_kib, cpu_milli: self.cpu_milli, slots, zones, labels }
    }

    /// Returns whether a worker is in one of the zones and has the labels.
    pub(crate) fn suits(&self, worker: &Worker) -> bool {
        self.zones >> worker.zone.0 & 1 == 1 && self.labels & !worker.labels == 0
    }
}

/// Returns the memory that a worker must have free for a sandbox if no VM on it has room, in KiB.
pub(crate) fn needed_kib(config: &Config, isolation: Isolation, memory_kib: u32) -> u32 {
    let kib = |bytes: u64| u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    match isolation {
        Isolation::Sandbox => memory_kib,
        Isolation::VmPerAccount => kib(config.vm.shared_memory_bytes).max(memory_kib),
        Isolation::VmPerSandbox => {
            let mut sizes = config.vm.pool_sizes_bytes.iter().map(|bytes| kib(*bytes));
            sizes.find(|size| *size >= memory_kib).unwrap_or(memory_kib)
        }
    }
}

/// Returns why a worker cannot have a sandbox, or `None` if it can.
pub(crate) fn refusal(
    config: &Config,
    worker: &Worker,
    needs: &Needs,
    spare: &Spare,
) -> Option<Refusal> {
    match worker.phase {
        Phase::Draining | Phase::Lost | Phase::Absent => return Some(Refusal::Draining),
        Phase::Ejected => return Some(Refusal::Unhealthy),
        Phase::Pressed => return Some(Refusal::Pressure),
        Phase::Serving | Phase::Quiet | Phase::Suspect => {}
    }
    if needs.zones >> worker.zone.0 & 1 == 0 {
        return Some(Refusal::Zone);
    }
    if needs.labels & !worker.labels != 0 {
        return Some(Refusal::Labels);
    }
    let most = if worker.phase == Phase::Suspect { 1 } else { u32::MAX };
    if worker.starting >= config.starts_per_worker_max.min(most) {
        return Some(Refusal::Starting);
    }
    if needs.slot && worker.slots_used.saturating_sub(spare.slots) >= worker.slots {
        return Some(Refusal::InterfaceSlots);
    }
    let used = worker.cpu_used_milli.saturating_sub(spare.cpu_milli);
    let counted = worker.cpu_milli != u32::MAX;
    if counted && used.saturating_add(needs.cpu_milli) > worker.cpu_milli {
        return Some(Refusal::Cpu);
    }
    let used = worker.memory_used_kib.saturating_sub(spare.memory_kib);
    let free = worker.memory_kib.saturating_sub(used);
    let needed = needed_kib(config, worker.isolation, needs.memory_kib);
    (needed > free && !spare.has_vm).then_some(Refusal::Memory)
}

/// Returns whether a worker takes sandboxes and has memory for this one.
fn has_room(worker: &Worker, request: &Request<'_>) -> bool {
    worker.phase == Phase::Serving
        && request.zones >> worker.zone.0 & 1 == 1
        && worker.free_kib() >= request.memory_kib
}

/// The most workers of one list that are looked at for one with room.
const LOOKED_AT_MAX: usize = 64;

fn zones(request: &Request<'_>) -> impl Iterator<Item = Zone> {
    let mut left = request.zones & ((1 << ZONES_MAX) - 1);
    std::iter::from_fn(move || {
        let zone = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
        left &= left - 1;
        Some(Zone(zone))
    })
}

fn add(candidates: &mut Vec<WorkerId>, worker: WorkerId) {
    if !candidates.contains(&worker) {
        candidates.push(worker);
    }
}

#[expect(clippy::cast_precision_loss, reason = "scores; the loss is the same everywhere")]
fn float(number: u32) -> f32 {
    number as f32
}

impl<'a> WorkerView<'a> {
    fn new(fleet: FleetView<'a>, worker: &'a Worker, at: WorkerId) -> Self {
        let milli = worker.cpu_real_milli;
        let one_cpu = if milli == u32::MAX { 1.0 } else { 1000.0 / float(milli.max(1)) };
        Self { fleet, worker, at, one_cpu }
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.at
    }

    /// Returns the zone that it is in.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.worker.zone
    }

    /// Returns the boundary between its sandboxes.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.worker.isolation
    }

    /// Returns its labels ([`Capacity::labels`](crate::Capacity::labels)).
    #[must_use]
    pub fn labels(&self) -> u16 {
        self.worker.labels
    }

    /// Returns the memory that its sandboxes may be given, in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> u32 {
        self.worker.memory_kib
    }

    /// Returns the share of its memory that is given away, from 0 to 1.
    #[must_use]
    pub fn memory_share(&self) -> f32 {
        float(self.worker.memory_used_kib) / float(self.worker.memory_kib.max(1))
    }

    /// Returns its free memory, in KiB.
    #[must_use]
    pub fn memory_free_kib(&self) -> u32 {
        self.worker.free_kib()
    }

    /// Returns the share of its processor time that is given away, from 0 to 1; 0 if it is not
    /// counted.
    #[must_use]
    pub fn cpu_share(&self) -> f32 {
        match self.worker.cpu_milli {
            u32::MAX => 0.0,
            all => float(self.worker.cpu_used_milli) / float(all.max(1)),
        }
    }

    /// Returns the processors that its busy sandboxes may use.
    #[must_use]
    pub fn busy_cpus(&self) -> f32 {
        float(self.fleet.workers.busy_milli_of(self.worker)) / 1000.0
    }

    /// Returns its processors; `None` if they are not counted.
    #[must_use]
    pub fn cpus(&self) -> Option<f32> {
        let milli = self.worker.cpu_real_milli;
        (milli != u32::MAX).then(|| float(milli) / 1000.0)
    }

    pub(crate) fn counts_cpus(&self) -> bool {
        self.worker.cpu_real_milli != u32::MAX
    }

    /// Returns a number of processors as a share of the worker's; unchanged if the worker's are not
    /// counted.
    pub(crate) fn share_of_cpus(&self, cpus: f32) -> f32 {
        cpus * self.one_cpu
    }

    /// Returns the number of its sandboxes, in any state.
    #[must_use]
    pub fn sandboxes(&self) -> u32 {
        self.worker.sandboxes
    }

    /// Returns the number of sandboxes that are starting on it.
    #[must_use]
    pub fn starting(&self) -> u32 {
        self.worker.starting
    }

    /// Returns how many sandboxes of the function it has.
    #[must_use]
    pub fn of_function(&self, function: FunctionId) -> u32 {
        let function = self.fleet.functions.get(function);
        function.map_or(0, |function| function.spread.count(self.at))
    }

    /// Returns how many sandboxes of the requested function it has.
    pub(crate) fn of_same(&self, request: &Request<'_>) -> u32 {
        request.spread.count(self.at)
    }

    /// Returns the processors of its busy and starting sandboxes and of the requested one, as a
    /// share of its own. Starting ones count as if each had the function's size.
    pub(crate) fn busy_share(&self, request: &Request<'_>) -> f32 {
        let own = float(request.settings.cpu_milli) / 1000.0;
        let starting = float(self.worker.starting) * own;
        self.share_of_cpus(self.busy_cpus() + starting + own)
    }

    /// Returns whether a VM on it, ready or starting, has room for the sandbox.
    #[must_use]
    pub fn has_vm_for(&self, request: &Request<'_>) -> bool {
        request.ready.iter().any(|(worker, _)| *worker == self.at)
    }

    /// Returns whether the sandbox needs no network interface, or one is ready in the worker's
    /// zone.
    #[must_use]
    pub fn has_interface_for(&self, request: &Request<'_>) -> bool {
        request.settings.network.is_none() || request.zones_ready >> self.worker.zone.0 & 1 == 1
    }
}
