//! Eviction: which idle sandboxes and VMs of which worker end so that another sandbox has room, for
//! any scarce resource.

use super::Engine;
use crate::command::StopReason;
use crate::id::{FunctionId, SandboxId, WorkerId};
use crate::placement::Refusal;
use crate::placement::fleet::{Needs, Spare, needed_kib, refusal};
use crate::sandbox::{Sandbox, State};
use crate::settings::Isolation;
use crate::settings::kib;
use crate::store::slot::{SandboxSlot, VmSlot};
use crate::time::Time;
use crate::workers::Worker;

/// The most workers of a large fleet whose sandboxes one search looks at.
const LOOKED_INTO_MAX: usize = 8;
/// A fleet with at most this many worker ids is searched as a whole.
const SMALL_FLEET: usize = 64;
/// The most blocks of 64 workers whose sums one search looks at.
const BLOCKS_MAX: usize = 256;

/// The sandboxes and VMs to end on a worker so that a sandbox has room.
#[derive(Debug)]
struct Plan {
    /// The highest value of any of them.
    worth: f32,
    sandboxes: Vec<SandboxSlot>,
    /// VMs that are empty or will be.
    vms: Vec<VmSlot>,
    /// The memory that the new sandbox takes of the worker.
    memory_kib: u32,
}

/// A sandbox, or a VM with all its sandboxes, that can end.
#[derive(Debug)]
struct Unit {
    /// It has the last sandbox of some function; such units are chosen last.
    last: bool,
    worth: f32,
    since: Time,
    id: SandboxId,
    sandboxes: Vec<SandboxSlot>,
    vm: Option<VmSlot>,
    gives: Spare,
}

impl Engine {
    /// Makes room for one more sandbox of a function: stops the idle sandboxes of the lowest value
    /// and reserves the room. Returns whether the room was found.
    pub(super) fn make_room(&mut self, id: FunctionId) -> bool {
        let Some(settings) = self.function(id).map(|it| it.settings) else { return false };
        let Some((zones, _)) = self.zones_for(&settings) else { return false };
        let needs = Needs::of(&settings, kib(settings.memory_bytes), zones);
        let mut best: Option<(WorkerId, Plan)> = None;
        for worker in self.evictable_workers(&needs) {
            let Some(plan) = self.plan_on(worker, id, &needs) else { continue };
            let nothing = plan.sandboxes.is_empty() && plan.vms.is_empty();
            if nothing || best.as_ref().is_none_or(|(_, before)| plan.worth < before.worth) {
                best = Some((worker, plan));
            }
            if nothing {
                break;
            }
        }
        let Some((worker, plan)) = best else { return false };
        self.state.worth_clock = self.state.worth_clock.max(plan.worth.max(0.0));
        self.reserve(worker, id, plan.memory_kib);
        self.stop_all(&plan.sandboxes, StopReason::Evicted);
        for vm in plan.vms {
            self.stop_vm_if_empty(vm);
        }
        true
    }

    /// Returns the workers to search: all of a small fleet with something to end, some of a large
    /// one. The next call continues after them.
    fn evictable_workers(&mut self, needs: &Needs) -> Vec<WorkerId> {
        let workers = &self.state.workers;
        let seats = workers.seats();
        let config = &self.state.config;
        let could = |(at, row): &(WorkerId, &Worker)| {
            if !row.phase.takes() || !needs.suits(row) {
                return false;
            }
            if row.isolation != Isolation::Sandbox {
                // The contents of VMs are checked in [`Self::plan_on`].
                return row.vms > 0 || workers.idle_kib(*at) > 0;
            }
            let gives = Spare {
                memory_kib: workers.idle_kib(*at),
                cpu_milli: u32::MAX,
                slots: u32::MAX,
                has_vm: false,
            };
            let stopping = self.state.stopping > 0;
            stopping || gives.memory_kib > 0 && refusal(config, row, needs, &gives).is_none()
        };
        if seats <= SMALL_FLEET {
            return workers.iter().filter(could).map(|(at, _)| at).collect();
        }
        if workers.idle_kib_all() == 0 && self.state.stopping == 0 {
            return Vec::new();
        }
        let blocks = seats.div_ceil(64);
        let first = self.state.eviction_cursor % blocks;
        let mut found = Vec::new();
        let mut looked_at = 0;
        for block in (first..blocks).chain(0..first).take(BLOCKS_MAX) {
            looked_at += 1;
            let idle = workers.idle_kib_of_block(block).unwrap_or_default();
            if idle > 0 {
                let in_block = workers.in_seats(block * 64..seats.min(block * 64 + 64));
                let in_block = in_block.filter(could).map(|(at, _)| at);
                found.extend(in_block.take(LOOKED_INTO_MAX - found.len()));
            }
            if found.len() >= LOOKED_INTO_MAX {
                break;
            }
        }
        self.state.eviction_cursor = first + looked_at;
        found
    }

    /// Returns what to end on a worker so that a function's sandbox has room; an empty plan if
    /// sandboxes that are already stopping free enough.
    fn plan_on(&self, worker: WorkerId, id: FunctionId, needs: &Needs) -> Option<Plan> {
        let row = self.state.workers.get(worker)?;
        let config = &self.state.config;
        // The room can be in a VM of the customer, or on the worker itself.
        let (own_vms, sandboxes) = self.units_on(worker, id);
        let account = self.function(id)?.settings.account;
        let memory_kib = needed_kib(config, row.isolation, needs.memory_kib);
        let mut spare = Spare::default();
        for (_, held) in self.state.workers.sandboxes(&self.state.sandboxes, worker) {
            if held.state == State::Stopping {
                spare = spare.with(&self.gives(worker, held));
            }
        }
        let may = |spare: &Spare| {
            let refused = refusal(config, row, needs, spare);
            refused.is_none() || refused == Some(Refusal::Starting)
        };
        if row.isolation == Isolation::VmPerAccount
            && let Some(plan) = self.plan_in_own_vm(&sandboxes, account, needs, &spare, &may)
        {
            return Some(plan);
        }
        let mut units = if row.isolation == Isolation::Sandbox { sandboxes } else { own_vms };
        units.sort_by(|a, b| {
            let worth = a.last.cmp(&b.last).then(a.worth.total_cmp(&b.worth));
            worth.then(a.since.cmp(&b.since)).then(a.id.cmp(&b.id))
        });
        let mut plan = Plan { worth: f32::MIN, sandboxes: Vec::new(), vms: Vec::new(), memory_kib };
        let mut units = units.into_iter();
        loop {
            if may(&spare) {
                return Some(plan);
            }
            let unit = units.next()?;
            spare = spare.with(&unit.gives);
            plan.take(unit);
        }
    }

    /// Returns the best plan that makes room in one of the customer's VMs on the worker.
    fn plan_in_own_vm(
        &self,
        sandboxes: &[Unit],
        account: crate::id::AccountId,
        needs: &Needs,
        spare: &Spare,
        may: &impl Fn(&Spare) -> bool,
    ) -> Option<Plan> {
        let mut vms: Vec<VmSlot> = sandboxes.iter().filter_map(|unit| unit.vm).collect();
        vms.sort_unstable();
        vms.dedup();
        let mut best: Option<Plan> = None;
        for at in vms {
            let Some(vm) = self.state.vms.get(at).filter(|vm| vm.account == Some(account)) else {
                continue;
            };
            let mut free = u64::from(vm.free_kib());
            let mut plan =
                Plan { worth: f32::MIN, sandboxes: Vec::new(), vms: Vec::new(), memory_kib: 0 };
            let mut inside: Vec<_> = sandboxes.iter().filter(|unit| unit.vm == Some(at)).collect();
            inside.sort_by(|a, b| a.worth.total_cmp(&b.worth).then(a.id.cmp(&b.id)));
            let mut spare = Spare { has_vm: true, ..*spare };
            for unit in inside {
                if free >= u64::from(needs.memory_kib) && may(&spare) {
                    break;
                }
                for sandbox in &unit.sandboxes {
                    let held = self.state.sandboxes.get(*sandbox);
                    free += held.map_or(0, |it| u64::from(it.memory_kib));
                }
                spare = spare.with(&unit.gives);
                plan.worth = plan.worth.max(unit.worth);
                plan.sandboxes.extend(&unit.sandboxes);
            }
            let enough = free >= u64::from(needs.memory_kib) && may(&spare);
            if enough && best.as_ref().is_none_or(|before| plan.worth < before.worth) {
                best = Some(plan);
            }
        }
        best
    }

    /// Returns what can end on a worker for function `id`: VMs in which nothing is busy or
    /// starting, and idle sandboxes.
    fn units_on(&self, worker: WorkerId, id: FunctionId) -> (Vec<Unit>, Vec<Unit>) {
        let mut sandboxes = Vec::new();
        let mut vms: Vec<(VmSlot, Unit, bool)> = Vec::new();
        for at in self.state.vms.of_worker(worker) {
            let Some(vm) = self.state.vms.get(at) else { continue };
            let gives = Spare { memory_kib: vm.memory_kib(), ..Spare::default() };
            let unit = Unit {
                last: false,
                worth: f32::MIN,
                since: Time::ZERO,
                id: SandboxId(u64::from(at.0)),
                sandboxes: Vec::new(),
                vm: Some(at),
                gives,
            };
            vms.push((at, unit, vm.can_end()));
        }
        for (at, held) in self.state.workers.sandboxes(&self.state.sandboxes, worker) {
            let idle = held.state == State::Idle && self.may_evict(held, id);
            let vm = vms.iter_mut().find(|(vm, ..)| *vm == held.vm);
            if !idle {
                if let Some((_, _, can_end)) = vm.filter(|_| held.state != State::Stopping) {
                    *can_end = false;
                }
                continue;
            }
            let unit = self.unit(at, held);
            if let Some((_, vm, _)) = vm {
                vm.last |= unit.last;
                vm.worth = vm.worth.max(unit.worth);
                vm.since = vm.since.max(unit.since);
                vm.sandboxes.push(at);
                vm.gives.cpu_milli = vm.gives.cpu_milli.saturating_add(held.cpu_milli);
                vm.gives.slots += u32::from(held.marks.slot());
            }
            sandboxes.push(unit);
        }
        let vms = vms.into_iter().filter(|(.., can_end)| *can_end).map(|(_, unit, _)| unit);
        (vms.collect(), sandboxes)
    }

    #[expect(clippy::cast_precision_loss, reason = "a worth; the loss is the same everywhere")]
    fn unit(&self, at: SandboxSlot, held: &Sandbox) -> Unit {
        let function = self.function(held.function);
        let worth = function.and_then(|it| it.worth);
        Unit {
            last: function.is_some_and(|it| it.serving() <= 1),
            // Without a value from the idle policy, the time of the last use, in seconds: the
            // longest idle ends first.
            worth: worth.unwrap_or(held.since.as_nanos() as f32 / 1e9),
            since: held.since,
            id: SandboxId(self.state.sandboxes.id(at)),
            sandboxes: vec![at],
            vm: (held.vm != VmSlot::NONE).then_some(held.vm),
            gives: self.gives(held.worker, held),
        }
    }

    /// Returns what the end of a sandbox frees on its worker. In a VM it frees memory only if it is
    /// the VM's last sandbox.
    pub(super) fn gives(&self, worker: WorkerId, held: &Sandbox) -> Spare {
        let isolation = self.state.workers.get(worker).map(|it| it.isolation);
        let memory_kib = match isolation {
            Some(Isolation::Sandbox) | None => held.memory_kib,
            Some(Isolation::VmPerSandbox) => {
                self.state.vms.get(held.vm).map_or(0, |vm| vm.memory_kib())
            }
            Some(Isolation::VmPerAccount) => match self.state.vms.get(held.vm) {
                Some(vm) if vm.sandboxes() == 1 => vm.memory_kib(),
                _ => 0,
            },
        };
        let slots = u32::from(held.marks.slot());
        Spare { memory_kib, cpu_milli: held.cpu_milli, slots, has_vm: false }
    }

    /// Returns whether an idle sandbox may end for function `id`. Provisioned sandboxes may not.
    /// The last sandbox of a function is protected for a time; see
    /// [`Config::last_warm_kept`](crate::Config::last_warm_kept).
    pub(super) fn may_evict(&self, held: &Sandbox, id: FunctionId) -> bool {
        self.may_evict_for(held, id, 0)
    }

    /// As [`Self::may_evict`], if `gathers` of the function's reservations are for the room that
    /// this sandbox would free. They do not count as sandboxes that the function has.
    pub(super) fn may_evict_for(&self, held: &Sandbox, id: FunctionId, gathers: u32) -> bool {
        let (Some(victim), Some(wants)) = (self.function(held.function), self.function(id)) else {
            return false;
        };
        if held.function == id {
            return false;
        }
        if held.marks.stale() {
            return true;
        }
        if !victim.removed && victim.serving() <= victim.settings.provisioned_concurrency {
            return false;
        }
        let config = &self.state.config;
        let fresh = held.since + config.last_warm_kept > self.state.now;
        let has_its_own = wants.serving() + wants.reserved > gathers;
        if victim.serving() > 1 || !fresh || !has_its_own {
            return true;
        }
        self.is_poorer(wants.settings.account, kib(wants.settings.memory_bytes), held)
    }

    /// Returns whether `account`, with `kib` more, would hold no more memory per weight than the
    /// account of a sandbox without that sandbox.
    pub(super) fn is_poorer(
        &self,
        account: crate::id::AccountId,
        kib: u32,
        held: &Sandbox,
    ) -> bool {
        let Some(victim) = self.function(held.function).map(|it| it.settings.account) else {
            return false;
        };
        let (poor, rich) = (self.state.accounts.get(account), self.state.accounts.get(victim));
        let after = rich.share().saturating_sub(rich.share_of(held.memory_kib));
        account != victim && poor.share() + poor.share_of(kib) <= after
    }
}

impl Plan {
    fn take(&mut self, unit: Unit) {
        self.worth = self.worth.max(unit.worth);
        self.vms.extend(unit.vm);
        self.sandboxes.extend(unit.sandboxes);
    }
}
