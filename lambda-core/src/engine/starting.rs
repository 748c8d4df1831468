//! The cold path: a worker is chosen for a new sandbox, and the sandbox starts there.

use super::Engine;
use crate::command::{Command, RejectReason};
use crate::explain::{Decided, Explanation};
use crate::id::{FunctionId, InterfaceId, SandboxId, VmId, WorkerId};
use crate::placement::fleet::{Needs, needed_kib};
use crate::placement::{Considered, Draw, FleetView, Placement, Record, Request};
use crate::sandbox::{Made, Sandbox, State};
use crate::settings::Isolation;
use crate::settings::{FunctionSettings, kib};
use crate::store::slot::{InterfaceSlot, SandboxSlot, VmSlot};
use crate::workers::Phase;

/// All isolations, in the order of `State::sizes`.
pub(super) const ISOLATIONS: [Isolation; 3] =
    [Isolation::Sandbox, Isolation::VmPerAccount, Isolation::VmPerSandbox];

/// The chosen worker, and a VM on it with room for the sandbox if there is one.
type Found = Option<(WorkerId, Option<VmSlot>)>;

/// The result of an attempt to start a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Started,
    /// No worker has room now.
    NoRoom,
    /// No worker can ever have it.
    Never(RejectReason),
}

/// The most workers from the index of free resources for which the policy is asked.
const ASKED_MAX: usize = 64;

impl Engine {
    /// Places one more sandbox of a function and starts it.
    pub(super) fn start_one(&mut self, id: FunctionId) -> Wish {
        let keeps = self.state.config.explanations_kept > 0;
        let mut considered = Vec::new();
        let placed = self.find_place(id, &mut Record(keeps.then_some(&mut considered)));
        let (worker, ready) = match placed {
            Ok(Some(placed)) => placed,
            Ok(None) => {
                self.explain(id, Decided::NotPlaced, considered);
                return Wish::NoRoom;
            }
            Err(reason) => return Wish::Never(reason),
        };
        let Some(at) = self.make(id, worker, ready) else { return Wish::NoRoom };
        let sandbox = Some(SandboxId(self.state.sandboxes.id(at)));
        self.explain(id, Decided::Placed { sandbox, worker }, considered);
        Wish::Started
    }

    /// Lets the policy draw workers, and reads the cache lines of the function and of these workers
    /// that placement needs. The reads do not depend on each other. The code must stay short: the
    /// processor then reaches all reads before the first one completes.
    fn begin_placing(&mut self, id: FunctionId) {
        let state = &mut self.state;
        let Some(function) = state.functions.get(id) else { return };
        let mut read = function.touch_to_place();
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
        self.placement.begin(&fleet, &mut draw);
        let seats = self.scratch.ahead.iter();
        for worker in seats.filter_map(|seat| state.workers.fits().worker(*seat)) {
            read ^= function.spread.touch(worker);
        }
        std::hint::black_box(read);
    }

    /// Chooses a worker, and a VM with room on it if there is one. Tries first the zones in which
    /// the function has the fewest sandboxes, then all.
    fn find_place(
        &mut self,
        id: FunctionId,
        record: &mut Record<'_>,
    ) -> Result<Found, RejectReason> {
        let Some(function) = self.function(id) else { return Ok(None) };
        let settings = function.settings;
        let zones = self.zones_for(&settings).ok_or(RejectReason::NoNetwork)?;
        let memory_kib = kib(settings.memory_bytes);
        if !self.fits_any(memory_kib) {
            return Err(RejectReason::FunctionTooLarge);
        }
        let needs = Needs::of(&settings, memory_kib, zones.0);
        let with_room = self.state.workers.zones_with_room(&needs.least());
        if !with_room.is_power_of_two() && with_room != 0 {
            let even = self.function(id).map_or(0, |it| it.even_zones(with_room));
            if even != with_room {
                let found = self.find_place_in(id, (even, zones.1), record);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(self.find_place_in(id, zones, record))
    }

    /// Returns the zones that a function's sandbox may be in, and those with a ready interface; one
    /// bit each. `None` if its network has none.
    pub(super) fn zones_for(&self, settings: &FunctionSettings) -> Option<(u32, u32)> {
        match settings.network {
            Some(network) => self.interface_zones(network, settings.account),
            None => Some((u32::MAX, 0)),
        }
    }

    fn find_place_in(
        &mut self,
        id: FunctionId,
        zones: (u32, u32),
        record: &mut Record<'_>,
    ) -> Found {
        self.begin_placing(id);
        self.asked(id, zones, |placement, fleet, request, draw| {
            let needs = Needs::of(request.settings, request.memory_kib, request.zones);
            let least = needs.least();
            // If no worker has enough of some resource, no draw can succeed.
            if request.ready.is_empty() && !fleet.workers.fits().most().holds(&least) {
                return None;
            }
            let passes = |worker: &WorkerId| {
                fleet.worker(*worker).is_some_and(|view| fleet.refusal(&view, request).is_none())
            };
            if let Some(worker) = placement.place(fleet, request, draw, record).filter(passes) {
                return Some(worker);
            }
            let will_do = |worker: WorkerId| {
                let view = fleet.worker(worker);
                view.is_some_and(|view| {
                    fleet.refusal(&view, request).is_none() && placement.accepts(&view, request)
                })
            };
            let ready = request.ready.iter().map(|(worker, _)| *worker).find(|it| will_do(*it));
            if ready.is_some() {
                return ready;
            }
            let mut left = ASKED_MAX;
            let mut quiet = None;
            let from = draw.below(fleet.len());
            let found = fleet.workers.fits().find(&least, from, |worker| {
                if left == 0 {
                    return true;
                }
                let serves = fleet.workers.get(worker).is_some_and(|it| it.phase == Phase::Serving);
                if !serves && quiet.is_some() {
                    return false;
                }
                left -= 1;
                let does = will_do(worker);
                if does && !serves {
                    quiet = Some(worker);
                }
                does && serves
            });
            found.filter(|worker| will_do(*worker)).or(quiet)
        })
    }

    /// Builds the request for a function's next sandbox and calls `ask` with it.
    fn asked(
        &mut self,
        id: FunctionId,
        (zones, zones_ready): (u32, u32),
        ask: impl FnOnce(
            &dyn Placement,
            &FleetView<'_>,
            &Request<'_>,
            &mut Draw<'_>,
        ) -> Option<WorkerId>,
    ) -> Found {
        let settings = self.state.functions.get(id)?.settings;
        let memory_kib = kib(settings.memory_bytes);
        let ready = self.ready_vms(settings.account, memory_kib);
        let state = &mut self.state;
        let function = state.functions.get(id)?;
        let request = Request {
            function: id,
            settings: &settings,
            now: state.now,
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
        let worker = ask(&*self.placement, &fleet, &request, &mut draw)?;
        let vm = ready.iter().find(|(on, _)| *on == worker).map(|(_, vm)| *vm);
        Some((worker, vm))
    }

    /// Starts a sandbox of a function on this worker, whose room came free. Returns whether it did.
    pub(super) fn start_on(&mut self, id: FunctionId, worker: WorkerId) -> bool {
        let Some(settings) = self.function(id).map(|it| it.settings) else { return false };
        let Some(zones) = self.zones_for(&settings) else { return false };
        let placed = self.asked(id, zones, |placement, fleet, request, _| {
            let view = fleet.worker(worker)?;
            let may = fleet.refusal(&view, request).is_none() && placement.accepts(&view, request);
            may.then_some(worker)
        });
        let Some((worker, ready)) = placed else { return false };
        let Some(at) = self.make(id, worker, ready) else { return false };
        let sandbox = Some(SandboxId(self.state.sandboxes.id(at)));
        let decided = Decided::Placed { sandbox, worker };
        self.explain(id, decided, Vec::new());
        true
    }

    /// Returns whether any worker could hold this much memory if it were empty; also `true` if more
    /// workers can be asked for.
    fn fits_any(&self, memory_kib: u32) -> bool {
        if self.state.config.fleet.is_some() || self.state.workers.len() == 0 {
            return true;
        }
        ISOLATIONS.into_iter().zip(&self.state.sizes).any(|(isolation, sizes)| {
            let needed = needed_kib(&self.state.config, isolation, memory_kib);
            sizes.last_key_value().is_some_and(|(most, _)| *most >= needed)
        })
    }

    /// Creates the record of a sandbox, and commands what it needs: a VM, an interface, or the
    /// sandbox itself.
    fn make(
        &mut self,
        id: FunctionId,
        worker: WorkerId,
        ready: Option<VmSlot>,
    ) -> Option<SandboxSlot> {
        let function = self.function(id).filter(|it| it.may_add() > 0)?;
        let (settings, revision) = (function.settings, function.revision);
        let member = u32::try_from(function.members.len()).ok()?;
        let held = self.state.workers.get(worker)?;
        let (isolation, zone) = (held.isolation, held.zone);
        let memory_kib = kib(settings.memory_bytes);
        let made = Made {
            function: id,
            worker,
            vm: VmSlot::NONE,
            memory_kib,
            cpu_milli: settings.cpu_milli,
            member,
            slot: settings.network.is_some(),
        };
        let sandbox = Sandbox::new(made, State::Waiting, self.state.now);
        let at = self.state.sandboxes.insert(sandbox, self.state.config.sandboxes_max)?;
        let vm = match isolation {
            Isolation::Sandbox => VmSlot::NONE,
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
                // The limit on interfaces is reached: do not create the sandbox.
                None => {
                    self.state.sandboxes.remove(at);
                    self.leave_vm(vm, memory_kib);
                    return None;
                }
            },
            None => InterfaceSlot::NONE,
        };
        if let Some(sandbox) = self.state.sandboxes.get_mut(at) {
            (sandbox.vm, sandbox.interface) = (vm, interface);
        }
        self.hold(at);
        let state = &mut self.state;
        state.wheel.arm(&mut state.sandboxes, at, state.now + state.config.start_timeout);
        self.begin_if_ready(at, revision);
        Some(at)
    }

    /// Adds a sandbox to all counts.
    pub(super) fn hold(&mut self, at: SandboxSlot) {
        let state = &mut self.state;
        state.workers.link(&mut state.sandboxes, at);
        let Some(sandbox) = state.sandboxes.get(at) else { return };
        let Some(function) = state.functions.get_mut(sandbox.function) else {
            return;
        };
        function.add_member(at);
        if sandbox.state.is_starting() {
            function.starting += 1;
        }
        function.spread.add(sandbox.worker, sandbox.function.0);
        if sandbox.vm == VmSlot::NONE {
            state.workers.hold_memory(sandbox.worker, i64::from(sandbox.memory_kib));
        }
        let mut zone = None;
        if let Some(worker) = state.workers.get_mut(sandbox.worker) {
            worker.starting += u32::from(sandbox.state.is_starting());
            zone = Some(worker.zone);
        }
        zone.into_iter().for_each(|zone| function.add_zone(zone));
        let (milli, slots) = (i64::from(sandbox.cpu_milli), i64::from(sandbox.marks.slot()));
        state.workers.hold(sandbox.worker, 0, milli, slots);
        let account = function.settings.account;
        let memory_kib = i64::from(sandbox.memory_kib);
        self.hold_for(account, memory_kib);
    }

    /// Commands the start of a sandbox if its VM and network interface are ready.
    pub(super) fn begin_if_ready(&mut self, at: SandboxSlot, revision: u64) {
        let now = self.state.now;
        let Some(held) = self.state.sandboxes.get(at).filter(|it| it.state == State::Waiting)
        else {
            return;
        };
        let (vm, interface) = (held.vm, held.interface);
        if !self.vm_is_ready(vm) || !self.interface_is_ready(interface) {
            return;
        }
        if self.state.workers.is_lost(held.worker) {
            return;
        }
        let Some(held) = self.state.sandboxes.get_mut(at) else { return };
        (held.state, held.since) = (State::Starting, now);
        let (worker, function) = (held.worker, held.function);
        let vm = self.state.vms.id(vm).map(VmId);
        let interface = self.state.interfaces.id(interface).map(InterfaceId);
        let sandbox = SandboxId(self.state.sandboxes.id(at));
        let state = &mut self.state;
        state.wheel.arm(&mut state.sandboxes, at, now + state.config.start_timeout);
        self.command(Command::StartSandbox { sandbox, worker, function, revision, vm, interface });
    }

    /// Stores an explanation, if explanations are kept.
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
        let at = state.clock.outside(state.now);
        state.explanations.push_back(Explanation { at, function, decided, considered });
    }

    /// Returns the worker that a function's next sandbox would go to, without starting it. Random
    /// numbers are consumed. `None` if no worker has room or the function is unknown.
    #[must_use]
    pub fn choose(&mut self, function: FunctionId) -> Option<WorkerId> {
        self.function(function)?;
        let placed = self.find_place(function, &mut Record(None)).ok()??;
        Some(placed.0)
    }

    /// Returns how a function's next sandbox would be placed, without starting it; later decisions
    /// do not change. `None` if the function is unknown.
    #[must_use]
    pub fn rehearse(&mut self, function: FunctionId) -> Option<Explanation> {
        self.function(function)?;
        let (random, cursor) = (self.state.random.clone(), self.state.cursor);
        let mut considered = Vec::new();
        let placed = self.find_place(function, &mut Record(Some(&mut considered)));
        (self.state.random, self.state.cursor) = (random, cursor);
        let decided = match placed {
            Ok(Some((worker, _))) => Decided::Placed { sandbox: None, worker },
            Ok(None) | Err(_) => Decided::NotPlaced,
        };
        Some(Explanation { at: self.now(), function, decided, considered })
    }
}
