//! The cold path: a function needs another sandbox, and a worker to have it.

use super::{Agenda, Engine};
use crate::explain::{Decided, Explanation};
use crate::placement::{Considered, Draw, FleetView, Record, Request};
use crate::sandbox::{Made, Sandbox, State};
use crate::settings::FunctionSettings;
use crate::stats::demand::{LOAD_ONE, Load, minute_of_hour};
use crate::store::slab::NONE;
use crate::workers::Phase;
use crate::{
    Command, FunctionId, InterfaceId, Isolation, RejectReason, SandboxId, StopReason, Time, VmId,
    WorkerId,
};

/// What came of the wish for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Started,
    /// No worker has room now.
    NoRoom,
    /// It can never be.
    Never(RejectReason),
}

/// Most workers that are looked at for sandboxes that could be evicted.
const EVICTION_WORKERS_MAX: usize = 64;
/// Most sandboxes of a worker that are looked at.
const EVICTION_SANDBOXES_MAX: usize = 1024;
/// Most functions that are tried again when room came free.
const RETRIED_MAX: usize = 64;

impl Engine {
    /// Starts as many sandboxes as waiting invocations need: not one for each event.
    pub(super) fn start_what_is_needed(&mut self, id: u32) {
        if let Some(deferred) = &mut self.deferred {
            deferred.functions.insert(id);
            return;
        }
        let max = self.state.config.starts_per_function_max;
        while let Some(function) = self.function(id)
            && function.coming < function.waiting_count().min(max)
        {
            if !self.may_scale(id) {
                // What it has serves those that wait.
                return self.wait_or_reject(id, RejectReason::ScalingRate);
            }
            match self.start_one(id) {
                Wish::Started => {
                    if let Some(function) = self.function_mut(id) {
                        function.scaling_left -= 1;
                    }
                }
                Wish::Never(reason) => self.reject_last(id, reason),
                Wish::NoRoom => {
                    if !self.make_room(id) {
                        return self.wait_or_reject(id, RejectReason::NoCapacity);
                    }
                    return self.block(id);
                }
            }
        }
        self.unblock_if_served(id);
    }

    /// Lets the invocations without a coming sandbox wait for one of the function's own, or refuses them.
    fn wait_or_reject(&mut self, id: u32, reason: RejectReason) {
        if self.function(id).is_some_and(|it| it.serving() > 0) {
            return self.block(id);
        }
        while self.function(id).is_some_and(|it| it.coming < it.waiting_count()) {
            self.reject_last(id, reason);
        }
    }

    fn block(&mut self, id: u32) {
        let (now, wait) = (self.state.now, self.state.config.start_timeout);
        let Some(function) = self.function_mut(id) else { return };
        if function.blocked_since.is_none() {
            function.blocked_since = Some(now);
            self.state.blocked.insert(FunctionId(id));
            self.state.agenda.insert((now + wait, Agenda::Blocked(FunctionId(id))));
        }
    }

    /// Takes a function off the list of those that wait for room, if it does not any more.
    pub(super) fn unblock_if_served(&mut self, id: u32) {
        let wait = self.state.config.start_timeout;
        let Some(function) = self.function_mut(id) else { return };
        if function.coming >= function.waiting_count()
            && let Some(since) = function.blocked_since.take()
        {
            self.state.blocked.remove(&FunctionId(id));
            self.state.agenda.remove(&(since + wait, Agenda::Blocked(FunctionId(id))));
        }
    }

    /// Nothing came free for a function in all the time that a start may take: what waits for it is refused, unless a
    /// sandbox of its own is busy and will come free.
    pub(super) fn on_blocked_too_long(&mut self, at: Time, id: FunctionId) {
        let wait = self.state.config.start_timeout;
        let Some(function) = self.function_mut(id.0) else { return };
        if function.blocked_since.is_none_or(|since| since + wait != at) {
            return;
        }
        function.blocked_since = None;
        let has_its_own = function.meter.busy() > 0 || function.coming > 0;
        self.state.blocked.remove(&id);
        if has_its_own {
            return self.start_what_is_needed(id.0);
        }
        while self.function(id.0).is_some_and(|it| it.coming < it.waiting_count()) {
            self.reject_last(id.0, RejectReason::NoCapacity);
        }
    }

    /// Room may be there again: tries the functions that wait for it.
    pub(super) fn try_blocked(&mut self) {
        if self.state.blocked.is_empty() || self.deferred.is_some() {
            return;
        }
        let blocked: Vec<_> = self.state.blocked.iter().take(RETRIED_MAX).copied().collect();
        for id in blocked {
            self.start_what_is_needed(id.0);
        }
    }

    /// Keeps as many sandboxes ready as a function is provisioned with.
    pub(super) fn provision(&mut self, id: FunctionId) {
        while let Some(function) = self.function(id.0).filter(|it| !it.removed)
            && function.serving() < function.settings.provisioned_concurrency
        {
            if self.start_one(id.0) != Wish::Started {
                let later = self.state.now + self.state.config.start_timeout;
                self.state.agenda.insert((later, Agenda::Provision(id)));
                return;
            }
        }
    }

    /// Asks for a place for one more sandbox of a function, and starts it there.
    pub(super) fn start_one(&mut self, id: u32) -> Wish {
        let keeps = self.state.config.explanations_kept > 0;
        let mut considered = Vec::new();
        let placed = self.find_place(id, &mut Record(keeps.then_some(&mut considered)));
        let (worker, ready) = match placed {
            Ok(Some(placed)) => placed,
            Ok(None) => {
                self.explain(FunctionId(id), Decided::NotPlaced, considered);
                return Wish::NoRoom;
            }
            Err(reason) => return Wish::Never(reason),
        };
        let Some(at) = self.make(id, worker, ready) else { return Wish::NoRoom };
        let sandbox = Some(SandboxId(self.state.sandboxes.id(at)));
        self.explain(
            FunctionId(id),
            Decided::Placed { sandbox, worker: WorkerId(worker) },
            considered,
        );
        Wish::Started
    }

    /// What the next sandbox of a function is expected to carry.
    pub(super) fn expected_load(&mut self, id: u32) -> Load {
        let Some(Some(function)) = self.state.functions.get_mut(id as usize) else {
            return [0; crate::stats::demand::BINS];
        };
        let settings = &function.settings;
        function.demand.expect(|| self.state.priors.expect(settings.trigger, settings.account));
        let rank = u32::try_from(function.members.len()).unwrap_or(u32::MAX);
        function.demand.load(rank, settings.cpu_milli)
    }

    /// Reads of the function, and of the workers that are drawn before it is known, all that placement needs: no read waits for
    /// another. Few instructions, so that the processor comes to all of them before it has waited for the first.
    fn begin_placing(&mut self, id: u32) {
        let state = &mut self.state;
        let Some(Some(function)) = state.functions.get(id as usize) else { return };
        let mut read = function.touch_to_place(minute_of_hour(state.now));
        let fleet = FleetView {
            workers: &state.workers,
            functions: &state.functions,
            config: &state.config,
        };
        self.scratch.ahead.clear();
        let mut draw = Draw {
            random: &mut state.random,
            cursor: &mut state.cursor,
            scratch: &mut self.scratch,
        };
        self.placement.begin(&fleet, state.now, &mut draw);
        for worker in &self.scratch.ahead {
            read ^= function.spread.touch(*worker);
        }
        std::hint::black_box(read);
    }

    /// Finds a worker, and the VM on it that is ready, if there is one.
    fn find_place(
        &mut self,
        id: u32,
        record: &mut Record<'_>,
    ) -> Result<Option<(u32, Option<u32>)>, RejectReason> {
        self.begin_placing(id);
        let Some(Some(function)) = self.state.functions.get_mut(id as usize) else {
            return Ok(None);
        };
        let minute = minute_of_hour(self.state.now);
        let settings = function.settings;
        let rank = u32::try_from(function.members.len()).unwrap_or(u32::MAX - 1);
        let prior = || self.state.priors.expect(settings.trigger, settings.account);
        function.demand.prepare(rank, settings.cpu_milli, prior);
        let memory_kib = kib(settings.memory_bytes);
        let (zones, zones_ready) = match settings.network {
            Some(network) => self.interface_zones(network).ok_or(RejectReason::NoNetwork)?,
            None => (u32::MAX, 0),
        };
        if !self.fits_any(memory_kib) {
            return Err(RejectReason::FunctionTooLarge);
        }
        let ready = self.ready_vms(settings.account, memory_kib);
        let state = &mut self.state;
        let Some(Some(function)) = state.functions.get(id as usize) else { return Ok(None) };
        let request = Request {
            function: FunctionId(id),
            settings: &settings,
            next: function.demand.next(),
            now: state.now,
            minute,
            busy_load: u32::try_from(u64::from(settings.cpu_milli) * u64::from(LOAD_ONE) / 1000)
                .unwrap_or(u32::MAX),
            spread: &function.spread,
            memory_kib,
            zones,
            zones_ready,
            ready: &ready,
        };
        let fleet = FleetView {
            workers: &state.workers,
            functions: &state.functions,
            config: &state.config,
        };
        let mut draw = Draw {
            random: &mut state.random,
            cursor: &mut state.cursor,
            scratch: &mut self.scratch,
        };
        let placed = self.placement.place(&fleet, &request, &mut draw, record);
        let placed = placed.and_then(|worker| {
            let view = fleet.worker(worker)?;
            fleet.refusal(&view, &request).is_none().then_some(worker.0)
        });
        let vm = |worker: u32| ready.iter().find(|(on, _)| *on == worker).map(|(_, vm)| *vm);
        Ok(placed.map(|worker| (worker, vm(worker))))
    }

    /// Returns whether any worker, were it empty, could hold so much; also when more workers can be asked for.
    fn fits_any(&self, memory_kib: u32) -> bool {
        self.state.config.fleet.is_some()
            || self.state.sizes.is_empty()
            || self.state.sizes.last_key_value().is_some_and(|(most, _)| *most >= memory_kib)
    }

    /// Makes a sandbox's record, and tells whoever has to make it.
    fn make(&mut self, id: u32, worker: u32, ready: Option<u32>) -> Option<u32> {
        let function = self.function(id)?;
        let (settings, revision) = (function.settings, function.revision);
        let rank = u32::try_from(function.members.len()).ok()?;
        let held = self.state.workers.get(worker)?;
        let (isolation, zone) = (held.isolation, held.zone);
        let memory_kib = kib(settings.memory_bytes);
        let made = Made {
            function: id,
            worker,
            vm: NONE,
            memory_kib,
            cpu_milli: settings.cpu_milli,
            rank,
            slot: settings.network.is_some(),
        };
        let sandbox = Sandbox::new(made, State::Waiting, self.state.now);
        let at = self.state.sandboxes.insert(sandbox, self.state.config.sandboxes_max)?;
        let vm = match isolation {
            Isolation::Sandbox => NONE,
            _ => match self.take_vm(at, worker, isolation, settings.account, ready) {
                Some(vm) => vm,
                None => {
                    self.state.sandboxes.remove(at);
                    return None;
                }
            },
        };
        let interface = match settings.network {
            Some(network) => match self.take_interface(at, network, zone) {
                Some(interface) => interface,
                // There are as many as may be: it is not made without.
                None => {
                    self.state.sandboxes.remove(at);
                    self.leave_vm(vm, memory_kib);
                    return None;
                }
            },
            None => NONE,
        };
        if let Some(sandbox) = self.state.sandboxes.get_mut(at) {
            (sandbox.vm, sandbox.interface) = (vm, interface);
        }
        let load = self.expected_load(id);
        self.hold(at, &load);
        let state = &mut self.state;
        state.wheel.arm(&mut state.sandboxes, at, state.now + state.config.start_timeout);
        self.begin_if_ready(at, revision);
        Some(at)
    }

    /// Counts what a sandbox holds.
    pub(super) fn hold(&mut self, at: u32, load: &Load) {
        let state = &mut self.state;
        state.workers.link(&mut state.sandboxes, at);
        let Some(sandbox) = state.sandboxes.get(at) else { return };
        let Some(Some(function)) = state.functions.get_mut(sandbox.function as usize) else {
            return;
        };
        function.add_member(at);
        if sandbox.state.is_coming() {
            function.coming += 1;
        }
        function.spread.add(sandbox.worker);
        state.workers.add_load(sandbox.worker, load);
        if sandbox.vm == NONE {
            state.workers.hold_memory(sandbox.worker, i64::from(sandbox.memory_kib));
        }
        if let Some(worker) = state.workers.get_mut(sandbox.worker) {
            worker.cpu_used_milli = worker.cpu_used_milli.saturating_add(sandbox.cpu_milli);
            worker.starting += u32::from(sandbox.state.is_coming());
            worker.slots_used += u32::from(sandbox.marks.slot());
        }
        let FunctionSettings { account, runtime, .. } = function.settings;
        state.workers.add_kind(sandbox.worker, account, runtime);
    }

    /// Commands a sandbox whose VM and network interface are ready.
    pub(super) fn begin_if_ready(&mut self, at: u32, revision: u64) {
        let now = self.state.now;
        let Some(held) = self.state.sandboxes.get(at).filter(|it| it.state == State::Waiting)
        else {
            return;
        };
        let (vm, interface) = (held.vm, held.interface);
        if !self.vm_is_ready(vm) || !self.interface_is_ready(interface) {
            return;
        }
        let Some(held) = self.state.sandboxes.get_mut(at) else { return };
        (held.state, held.since) = (State::Starting, now);
        let (worker, function) = (WorkerId(held.worker), FunctionId(held.function));
        let vm = self.state.vms.id(vm).map(VmId);
        let interface = self.state.interfaces.id(interface).map(InterfaceId);
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        let state = &mut self.state;
        state.wheel.arm(&mut state.sandboxes, at, now + state.config.start_timeout);
        self.command(Command::StartSandbox { sandbox, worker, function, revision, vm, interface });
    }

    /// Sees to it that there will be room for a function: by what is being ended already, by ending the idle sandboxes
    /// that are worth least, or by another worker. Tells whether there will.
    fn make_room(&mut self, id: u32) -> bool {
        let Some(function) = self.function(id) else { return false };
        let memory_kib = kib(function.settings.memory_bytes);
        let zones = match function.settings.network {
            Some(network) => self.interface_zones(network).map_or(0, |(zones, _)| zones),
            None => u32::MAX,
        };
        let ids = self.state.workers.ids() as usize;
        let start = if ids > EVICTION_WORKERS_MAX { self.state.random.below(ids) } else { 0 };
        let mut best: Option<(f32, u32, Vec<u32>)> = None;
        for at in (start..ids).chain(0..start).take(EVICTION_WORKERS_MAX) {
            let Ok(at) = u32::try_from(at) else { break };
            match self.room_on(at, memory_kib, zones) {
                Some((_, victims)) if victims.is_empty() => return true,
                Some((worth, victims))
                    if best.as_ref().is_none_or(|(least, ..)| worth < *least) =>
                {
                    best = Some((worth, at, victims));
                }
                _ => {}
            }
        }
        if let Some((worth, _, victims)) = best {
            self.state.worth_clock = self.state.worth_clock.max(worth.max(0.0));
            self.stop_all(&victims, StopReason::Evicted);
            return true;
        }
        self.ask_for_room(zones)
    }

    /// Returns the idle sandboxes whose end leaves room on a worker, none if what is being ended is enough, and what
    /// they are worth.
    #[expect(clippy::cast_precision_loss, reason = "a worth; the loss is the same everywhere")]
    fn room_on(&self, at: u32, memory_kib: u32, zones: u32) -> Option<(f32, Vec<u32>)> {
        let worker = self.state.workers.get(at)?;
        if worker.phase == Phase::Draining
            || worker.memory_kib < memory_kib
            || zones >> worker.zone.0 & 1 == 0
        {
            return None;
        }
        let mut free = u64::from(worker.free_kib());
        let mut idle = Vec::new();
        let sandboxes = self.state.workers.sandboxes(&self.state.sandboxes, at);
        for (at, sandbox) in sandboxes.take(EVICTION_SANDBOXES_MAX) {
            let id = SandboxId(self.state.sandboxes.id(at));
            match sandbox.state {
                State::Stopping => free += u64::from(sandbox.memory_kib),
                State::Idle => {
                    let worth = self.function(sandbox.function).and_then(|it| it.worth);
                    // Without a worth: seconds since the origin when it was last used.
                    let worth = worth.unwrap_or(sandbox.since.as_nanos() as f32 / 1e9);
                    idle.push((worth, sandbox.since, id, at, u64::from(sandbox.memory_kib)));
                }
                _ => {}
            }
        }
        let needed = u64::from(memory_kib);
        if free >= needed {
            return Some((0.0, Vec::new()));
        }
        idle.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let (mut victims, mut worth) = (Vec::new(), 0.0_f32);
        for (its, _, _, at, memory) in idle {
            victims.push(at);
            worth = worth.max(its);
            free += memory;
            if free >= needed {
                return Some((worth, victims));
            }
        }
        None
    }

    /// Keeps what a decision was made from, where that is wanted.
    pub(super) fn explain(
        &mut self,
        function: FunctionId,
        decided: Decided,
        considered: Vec<Considered>,
    ) {
        let state = &mut self.state;
        let kept = state.config.explanations_kept as usize;
        if kept == 0 {
            return;
        }
        while state.explanations.len() >= kept {
            state.explanations.pop_front();
        }
        state.explanations.push_back(Explanation { at: state.now, function, decided, considered });
    }

    /// Chooses the worker that a function's next sandbox would go to, and does nothing with it; chance moves on. `None`
    /// when none has room, or the function is not there.
    #[must_use]
    pub fn choose(&mut self, function: FunctionId) -> Option<WorkerId> {
        self.function(function.0)?;
        let placed = self.find_place(function.0, &mut Record(None)).ok()??;
        Some(WorkerId(placed.0))
    }

    /// Rehearses the placement of a function's next sandbox: nothing changes.
    #[must_use]
    pub fn rehearse(&mut self, function: FunctionId) -> Option<Explanation> {
        self.function(function.0)?;
        let (random, cursor) = (self.state.random.clone(), self.state.cursor);
        let mut considered = Vec::new();
        let placed = self.find_place(function.0, &mut Record(Some(&mut considered)));
        (self.state.random, self.state.cursor) = (random, cursor);
        let decided = match placed {
            Ok(Some((worker, _))) => Decided::Placed { sandbox: None, worker: WorkerId(worker) },
            Ok(None) | Err(_) => Decided::NotPlaced,
        };
        Some(Explanation { at: self.state.now, function, decided, considered })
    }
}

/// Bytes in KiB, rounded up.
pub(super) fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
