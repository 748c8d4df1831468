//! Holds what goes into an engine and what comes out against the invariants, knowing nothing of its inside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::*;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, in words.
    pub invariant: &'static str,
    /// What happened.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

impl std::error::Error for Violation {}

/// The world as events and commands made it.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    config: Config,
    /// How long idle sandboxes may be kept, where that is the same for all.
    keep: Option<Duration>,
    now: Time,
    /// Workers that are there.
    pub workers: BTreeMap<WorkerId, WorkerSeen>,
    /// Functions that are there, those included that were removed and have sandboxes.
    pub functions: BTreeMap<FunctionId, FunctionSeen>,
    /// Sandboxes that are there, in any state.
    pub sandboxes: BTreeMap<SandboxId, SandboxSeen>,
    /// VMs that are there.
    pub vms: BTreeMap<VmId, VmSeen>,
    /// Network interfaces that are there.
    pub interfaces: BTreeMap<InterfaceId, InterfaceSeen>,
    /// Accepted invocations that have not ended, with their functions: an id that a driver uses twice is twice there.
    open: BTreeSet<(InvocationId, u64)>,
    functions_of: BTreeMap<(InvocationId, u64), FunctionId>,
    arrived: u64,
    accounts: BTreeMap<AccountId, u32>,
    idle: BTreeSet<(Time, SandboxId)>,
    ids: BTreeSet<SandboxId>,
}

/// A worker as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerSeen {
    /// What it has.
    pub capacity: Capacity,
    /// Whether it takes nothing new.
    pub draining: bool,
    joined: Time,
}

/// A function as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FunctionSeen {
    /// Its settings.
    pub settings: FunctionSettings,
    /// Its code.
    pub revision: u64,
    /// Whether it was removed.
    pub removed: bool,
}

/// A sandbox as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SandboxSeen {
    /// Of which function.
    pub function: FunctionId,
    /// Its code.
    pub revision: u64,
    /// Where.
    pub worker: WorkerId,
    /// In which VM.
    pub vm: Option<VmId>,
    /// With which interface.
    pub interface: Option<InterfaceId>,
    /// Its state.
    pub state: StateSeen,
    settings: FunctionSettings,
}

/// A sandbox's state as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateSeen {
    /// It was commanded and is not ready.
    Starting,
    /// It is ready.
    Idle,
    /// It runs this.
    Busy(InvocationId),
    /// It is being ended.
    Stopping,
}

/// A VM as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VmSeen {
    /// Where.
    pub worker: WorkerId,
    /// Whether it runs.
    pub ready: bool,
    memory_bytes: u64,
    account: Option<AccountId>,
    /// How many sandboxes it ever had.
    had: u32,
}

impl VmSeen {
    /// Returns whose it is.
    #[must_use]
    pub fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// Returns its memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// A network interface as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InterfaceSeen {
    /// Whether it can be used.
    pub ready: bool,
    network: NetworkId,
    zone: Zone,
}

type Checked = Result<(), Violation>;

fn hold(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

impl Checker {
    /// Returns a checker for a new engine. `keep`: how long idle sandboxes may be kept, where that is the same
    /// for all.
    #[must_use]
    pub fn new(config: Config, keep: Option<Duration>) -> Self {
        Self { config, keep, ..Self::default() }
    }

    /// Gives an event to an engine and checks every command that comes of it, which are returned.
    ///
    /// # Errors
    ///
    /// The first invariant that did not hold.
    pub fn handle(
        &mut self,
        engine: &mut Engine,
        now: Time,
        event: Event,
    ) -> Result<Vec<Command>, Violation> {
        // Timers first, so that what they do is not held against the event.
        let mut commands = self.handle_timeout(engine, now)?;
        let before = self.open.len();
        let taken = engine.handle(now, event.clone());
        if taken.is_ok() {
            self.happened(&event);
        }
        let first = commands.len();
        commands.extend(std::iter::from_fn(|| engine.poll()));
        for command in &commands[first..] {
            self.commanded(command)?;
        }
        self.moves_nothing_else(&event, &commands[first..])?;
        if let Event::InvocationArrived { invocation, function } = event {
            self.within_limits(before, invocation, function)?;
        }
        self.counts(engine)?;
        Ok(commands)
    }

    /// Lets an engine's timers fire, and checks every command that comes of it.
    ///
    /// # Errors
    ///
    /// The first invariant that did not hold.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        now: Time,
    ) -> Result<Vec<Command>, Violation> {
        self.now = now.max(self.now);
        engine.handle_timeout(now);
        let commands: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
        for command in &commands {
            self.commanded(command)?;
        }
        self.idle_is_gone_in_time()?;
        let due = engine.next_timeout();
        hold(due.is_none_or(|due| due > self.now), "timers that are due have fired", || {
            format!("{due:?} at {:?}", self.now)
        })?;
        Ok(commands)
    }

    /// Takes an event that the engine took.
    pub fn happened(&mut self, event: &Event) {
        match event {
            Event::WorkerJoined { worker, capacity } => {
                let seen = WorkerSeen { capacity: *capacity, draining: false, joined: self.now };
                self.workers.insert(*worker, seen);
            }
            Event::WorkerDraining { worker } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.draining = true;
                }
            }
            Event::WorkerLost { worker } => self.lose_worker(*worker),
            Event::AccountPut { account, concurrency_max } => {
                self.accounts.insert(*account, *concurrency_max);
            }
            Event::FunctionPut { function, revision, settings } => {
                let seen =
                    FunctionSeen { settings: *settings, revision: *revision, removed: false };
                self.functions.insert(*function, seen);
            }
            Event::FunctionRemoved { function } => {
                if let Some(function) = self.functions.get_mut(function) {
                    function.removed = true;
                    function.settings.reserved_concurrency = None;
                    function.settings.provisioned_concurrency = 0;
                }
            }
            Event::InvocationArrived { invocation, function } => {
                self.begin(*invocation, *function);
            }
            Event::InvocationEnded { invocation, sandbox, reusable, .. } => {
                self.close(*invocation);
                let to = if *reusable { StateSeen::Idle } else { StateSeen::Stopping };
                self.set(*sandbox, to);
            }
            Event::SandboxReady { sandbox } => self.set(*sandbox, StateSeen::Idle),
            Event::SandboxFailed { sandbox, .. } | Event::SandboxGone { sandbox } => {
                self.forget(*sandbox);
            }
            Event::VmReady { vm } => {
                if let Some(vm) = self.vms.get_mut(vm) {
                    vm.ready = true;
                }
            }
            Event::VmGone { vm } => {
                self.vms.remove(vm);
                let inside = |it: &SandboxSeen| it.vm == Some(*vm);
                self.forget_all(inside);
            }
            Event::InterfaceReady { interface } => {
                if let Some(interface) = self.interfaces.get_mut(interface) {
                    interface.ready = true;
                }
            }
            Event::InterfaceGone { interface } => {
                self.interfaces.remove(interface);
            }
            Event::WorkerReported { worker, vms, sandboxes } => {
                self.reported(*worker, vms, sandboxes);
            }
            _ => {}
        }
    }

    /// Takes a worker's word; what the engine does not take over it commands to be stopped, as a stray.
    fn reported(&mut self, worker: WorkerId, vms: &[ReportedVm], sandboxes: &[ReportedSandbox]) {
        let named: BTreeSet<_> = sandboxes.iter().map(|it| it.sandbox).collect();
        let gone: Vec<_> = (self.sandboxes.iter())
            .filter(|(id, it)| {
                it.worker == worker && it.state != StateSeen::Starting && !named.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|sandbox| self.forget(sandbox));
        let named: BTreeSet<_> = vms.iter().map(|it| it.vm).collect();
        let gone: Vec<_> = (self.vms.iter())
            .filter(|(id, vm)| vm.worker == worker && vm.ready && !named.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for vm in gone {
            self.vms.remove(&vm);
            self.forget_all(|it| it.vm == Some(vm));
        }
        for vm in vms {
            let (memory_bytes, account) = (vm.memory_bytes, vm.account);
            let seen = VmSeen { worker, ready: true, memory_bytes, account, had: 1 };
            self.vms.entry(vm.vm).or_insert(seen);
        }
        for it in sandboxes {
            let Some(function) = self.functions.get(&it.function) else { continue };
            let seen = SandboxSeen {
                function: it.function,
                revision: it.revision,
                worker,
                vm: it.vm,
                interface: it.interface,
                state: StateSeen::Idle,
                settings: function.settings,
            };
            if let Some(known) = self.sandboxes.get(&it.sandbox) {
                let ready = known.state == StateSeen::Starting && it.invocation.is_none();
                if known.worker == worker && known.function == it.function && ready {
                    self.set(it.sandbox, StateSeen::Idle);
                }
                continue;
            }
            self.ids.insert(it.sandbox);
            self.sandboxes.insert(it.sandbox, seen);
            self.set(it.sandbox, StateSeen::Idle);
            if let Some(invocation) = it.invocation {
                self.set(it.sandbox, StateSeen::Busy(invocation));
                self.begin(invocation, it.function);
            }
        }
    }

    fn lose_worker(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        self.forget_all(|it| it.worker == worker);
        self.vms.retain(|_, vm| vm.worker != worker);
    }

    /// Returns how many accepted invocations have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn begin(&mut self, invocation: InvocationId, function: FunctionId) {
        self.arrived += 1;
        self.open.insert((invocation, self.arrived));
        self.functions_of.insert((invocation, self.arrived), function);
    }

    fn close(&mut self, invocation: InvocationId) -> bool {
        let first = self.open.range((invocation, 0)..=(invocation, u64::MAX)).next().copied();
        first.is_some_and(|first| {
            self.functions_of.remove(&first);
            self.open.remove(&first)
        })
    }

    fn function_of(&self, invocation: InvocationId) -> Option<FunctionId> {
        let mut of = self.functions_of.range((invocation, 0)..=(invocation, u64::MAX));
        of.next().map(|(_, function)| *function)
    }

    fn forget_all(&mut self, which: impl Fn(&SandboxSeen) -> bool) {
        let gone: Vec<_> =
            self.sandboxes.iter().filter(|(_, it)| which(it)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|sandbox| self.forget(sandbox));
    }

    fn forget(&mut self, sandbox: SandboxId) {
        self.set(sandbox, StateSeen::Stopping);
        self.sandboxes.remove(&sandbox);
    }

    fn set(&mut self, id: SandboxId, state: StateSeen) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.state = state;
        let now = self.now;
        self.idle.retain(|(_, idle)| *idle != id);
        if state == StateSeen::Idle {
            self.idle.insert((now, id));
        }
    }

    /// Takes a command of the engine's and checks it.
    ///
    /// # Errors
    ///
    /// The first invariant that it breaks.
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub fn commanded(&mut self, command: &Command) -> Checked {
        let told = || format!("{command:?} at {:?}", self.now);
        match *command {
            Command::StartSandbox { sandbox, worker, function, revision, vm, interface } => {
                hold(self.ids.insert(sandbox), "no sandbox id is given twice", || {
                    format!("{sandbox:?}")
                })?;
                let Some(seen) = self.functions.get(&function) else {
                    return hold(false, "sandboxes are of functions that are there", told);
                };
                hold(seen.revision == revision, "a new sandbox has its function's code", told)?;
                let settings = seen.settings;
                let started = SandboxSeen {
                    function,
                    revision,
                    worker,
                    vm,
                    interface,
                    state: StateSeen::Starting,
                    settings,
                };
                self.in_its_vm(&started)?;
                self.with_its_interface(&started)?;
                self.sandboxes.insert(sandbox, started);
                self.within_capacity(worker)
            }
            Command::StopSandbox { sandbox, reason: StopReason::Stray, .. } => {
                self.forget(sandbox);
                Ok(())
            }
            Command::StopSandbox { sandbox, worker, .. } => {
                let Some(seen) = self.sandboxes.get(&sandbox) else {
                    // A stray that a worker reported.
                    return Ok(());
                };
                let busy = matches!(seen.state, StateSeen::Busy(_));
                hold(!busy, "no busy sandbox is stopped, but for its timeout", told)?;
                hold(seen.worker == worker, "commands name a sandbox's own worker", told)?;
                self.set(sandbox, StateSeen::Stopping);
                Ok(())
            }
            Command::Dispatch { invocation, sandbox, worker, .. } => {
                let Some(seen) = self.sandboxes.get(&sandbox) else {
                    return hold(false, "nothing is dispatched to a sandbox that is gone", told);
                };
                let function = self.functions.get(&seen.function);
                let drains = self.workers.get(&worker).is_none_or(|it| it.draining);
                hold(!drains, "nothing is dispatched to a draining worker", told)?;
                hold(
                    seen.state == StateSeen::Idle,
                    "one invocation at a time, in sandboxes that are ready",
                    || format!("{command:?} while {:?}", seen.state),
                )?;
                let own = self.function_of(invocation) == Some(seen.function);
                hold(own, "a sandbox runs one function all its life", told)?;
                let current = function.is_some_and(|it| it.revision == seen.revision);
                hold(current, "nothing new is dispatched to old code", told)?;
                self.set(sandbox, StateSeen::Busy(invocation));
                Ok(())
            }
            Command::TimeOut { invocation, sandbox, .. } => {
                let runs = self.sandboxes.get(&sandbox).map(|it| it.state);
                let runs = runs == Some(StateSeen::Busy(invocation));
                hold(runs, "only what runs is timed out", told)?;
                self.end(invocation, command)?;
                self.set(sandbox, StateSeen::Stopping);
                Ok(())
            }
            Command::Reject { invocation, .. } => self.end(invocation, command),
            Command::StartVm { vm, worker, memory_bytes, account } => {
                let seen = VmSeen { worker, ready: false, memory_bytes, account, had: 0 };
                let new = self.vms.insert(vm, seen).is_none();
                hold(new, "no VM id is given twice", || format!("{vm:?}"))?;
                self.within_capacity(worker)
            }
            Command::StopVm { vm, .. } => {
                let empty = !self.sandboxes.values().any(|it| it.vm == Some(vm));
                hold(empty, "no VM is stopped with sandboxes in it", told)?;
                if let Some(vm) = self.vms.get_mut(&vm) {
                    vm.ready = false;
                }
                Ok(())
            }
            Command::StartInterface { interface, network, zone } => {
                let seen = InterfaceSeen { ready: false, network, zone };
                let new = self.interfaces.insert(interface, seen).is_none();
                hold(new, "no interface id is given twice", || format!("{interface:?}"))
            }
            Command::StopInterface { interface } => {
                let used = |it: &SandboxSeen| it.interface == Some(interface);
                let unused = !self.sandboxes.values().any(used);
                if let Some(interface) = self.interfaces.get_mut(&interface) {
                    interface.ready = false;
                }
                hold(unused, "no interface is removed with sandboxes on it", || {
                    format!("{interface:?}")
                })
            }
            Command::DrainWorker { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.draining = true;
                }
                Ok(())
            }
            Command::RetireWorker { worker } => {
                let empty = !self.sandboxes.values().any(|it| it.worker == worker);
                hold(empty, "a worker retires when nothing is left on it", told)?;
                self.ends_within_its_window(worker)?;
                self.lose_worker(worker);
                Ok(())
            }
            Command::LoseWorker { worker } => {
                self.lose_worker(worker);
                Ok(())
            }
            Command::AskWorker { .. } => Ok(()),
        }
    }

    /// An accepted invocation has its end.
    fn end(&mut self, invocation: InvocationId, command: &Command) -> Checked {
        let open = self.close(invocation);
        hold(open, "every invocation ends exactly once", || {
            format!("{command:?} at {:?}", self.now)
        })
    }

    fn in_its_vm(&mut self, sandbox: &SandboxSeen) -> Checked {
        let isolation = self.workers.get(&sandbox.worker).map(|it| it.capacity.isolation);
        let told = || format!("{sandbox:?}");
        let Some(id) = sandbox.vm else {
            return hold(isolation == Some(Isolation::Sandbox), "a sandbox is in a VM", told);
        };
        let account = sandbox.settings.account;
        let Some(vm) = self.vms.get_mut(&id) else {
            return hold(false, "a sandbox is in a VM that is there", told);
        };
        hold(vm.ready && vm.worker == sandbox.worker, "a sandbox is in a VM that runs", told)?;
        hold(vm.account.is_none_or(|it| it == account), "one customer for each VM", told)?;
        vm.account = Some(account);
        vm.had += 1;
        let alone = isolation == Some(Isolation::VmPerAccount) || vm.had == 1;
        hold(alone, "one sandbox for each VM, where VMs are each one's", told)?;
        let inside = self.sandboxes.values().filter(|it| it.vm == Some(id));
        let used: u64 = inside.map(|it| kib(it.settings.memory_bytes)).sum();
        let fits = used + kib(sandbox.settings.memory_bytes) <= kib(vm.memory_bytes);
        hold(fits, "the sandboxes of a VM fit into its memory", told)
    }

    fn with_its_interface(&self, sandbox: &SandboxSeen) -> Checked {
        let told = || format!("{sandbox:?}");
        let Some(network) = sandbox.settings.network else {
            return hold(sandbox.interface.is_none(), "no interface without a network", told);
        };
        let interface = sandbox.interface.and_then(|id| self.interfaces.get(&id));
        let zone = self.workers.get(&sandbox.worker).map(|it| it.capacity.zone);
        let fits = |it: &InterfaceSeen| it.ready && it.network == network && Some(it.zone) == zone;
        hold(interface.is_some_and(fits), "an interface of the function's network and zone", told)?;
        let users = self.sandboxes.values().filter(|it| it.interface == sandbox.interface).count();
        let max = self.config.interface.sandboxes_max as usize;
        hold(users < max, "an interface is shared by no more than may", told)
    }

    fn within_capacity(&self, id: WorkerId) -> Checked {
        let Some(worker) = self.workers.get(&id) else {
            return hold(false, "nothing is placed on a worker that is not there", || {
                format!("{id:?}")
            });
        };
        hold(!worker.draining, "nothing is placed on a draining worker", || format!("{id:?}"))?;
        let on = || self.sandboxes.values().filter(|it| it.worker == id);
        let alone = on().filter(|it| it.vm.is_none()).map(|it| kib(it.settings.memory_bytes));
        let vms = self.vms.values().filter(|it| it.worker == id).map(|it| kib(it.memory_bytes));
        let memory: u64 = alone.chain(vms).sum();
        let may =
            (worker.capacity.memory_bytes >> 10) * u64::from(self.config.memory_percent) / 100;
        hold(memory <= may, "a worker's memory is not given away twice", || {
            format!("{memory} of {may} KiB on {id:?}")
        })?;
        let cpu: u64 = on().map(|it| u64::from(it.settings.cpu_milli)).sum();
        let may = u64::from(worker.capacity.cpu_milli) * u64::from(self.config.cpu_percent) / 100;
        let counted = worker.capacity.cpu_milli != Capacity::CPU_UNCOUNTED;
        hold(
            !counted || cpu <= may,
            "a worker's processor time is given away within its limit",
            || format!("{cpu} of {may} thousandths on {id:?}"),
        )?;
        let slots = on().filter(|it| it.settings.network.is_some()).count();
        let may = worker.capacity.interface_slots as usize;
        hold(slots <= may, "a worker's interface slots hold", || format!("{slots} on {id:?}"))
    }

    fn within_limits(&self, before: usize, invocation: InvocationId, id: FunctionId) -> Checked {
        // Refused: nothing to check.
        if self.open.len() <= before || self.function_of(invocation).is_none() {
            return Ok(());
        }
        let Some(function) = self.functions.get(&id) else {
            return hold(false, "invocations are of functions that are there", || {
                format!("{id:?}")
            });
        };
        hold(!function.removed, "a removed function takes no invocation", || format!("{id:?}"))?;
        let concurrency =
            |id: FunctionId| self.functions_of.values().filter(|it| **it == id).count() as u64;
        if let Some(reserved) = function.settings.reserved_concurrency {
            let open = concurrency(id);
            return hold(open <= u64::from(reserved), "reserved concurrency holds", || {
                format!("{open} of {reserved} of {id:?}")
            });
        }
        let provisioned = |it: &FunctionSeen| u64::from(it.settings.provisioned_concurrency);
        if concurrency(id) <= provisioned(function) {
            return Ok(());
        }
        let account = function.settings.account;
        let max =
            self.accounts.get(&account).copied().unwrap_or(self.config.account_concurrency_max);
        let (mut open, mut claimed) = (0, 0);
        for (id, it) in self.functions.iter().filter(|(_, it)| it.settings.account == account) {
            match it.settings.reserved_concurrency {
                Some(reserved) => claimed += u64::from(reserved),
                None => {
                    claimed += provisioned(it);
                    open += concurrency(*id).saturating_sub(provisioned(it));
                }
            }
        }
        hold(open + claimed <= u64::from(max), "an account's concurrency holds", || {
            format!("{open} and {claimed} of {max} of {account:?}")
        })
    }

    /// A worker that joins or leaves moves no sandbox that it does not hold.
    fn moves_nothing_else(&self, event: &Event, commands: &[Command]) -> Checked {
        let (Event::WorkerJoined { worker, .. }
        | Event::WorkerLost { worker }
        | Event::WorkerDraining { worker }) = event
        else {
            return Ok(());
        };
        for command in commands {
            if let Command::StopSandbox { worker: on, reason, .. } = command {
                let own = on == worker || *reason == StopReason::Evicted;
                hold(own, "a worker that comes or goes moves no sandbox of others", || {
                    format!("{command:?} after {event:?}")
                })?;
            }
        }
        Ok(())
    }

    fn idle_is_gone_in_time(&self) -> Checked {
        let (Some(keep), Some((since, id))) = (self.keep, self.idle.first()) else { return Ok(()) };
        let kept = self.sandboxes.get(id).is_some_and(|it| {
            self.functions
                .get(&it.function)
                .is_some_and(|it| it.settings.provisioned_concurrency > 0)
        });
        let late = *since + keep + Duration::from_nanos(2 << 20) < self.now;
        hold(kept || !late, "idle sandboxes are gone by the idle timeout", || {
            format!("{id:?} since {since:?} at {:?}", self.now)
        })
    }

    fn ends_within_its_window(&self, id: WorkerId) -> Checked {
        let (Some(recycling), Some(worker)) = (self.config.recycling, self.workers.get(&id)) else {
            return Ok(());
        };
        let life = self.now.since(worker.joined);
        hold(life <= recycling.life_max, "a worker's end is within its window", || {
            format!("{id:?} lived {life:?}")
        })
    }

    /// The engine holds no more than the world does.
    fn counts(&self, engine: &Engine) -> Checked {
        let waiting = engine.waiting();
        let running =
            self.sandboxes.values().filter(|it| matches!(it.state, StateSeen::Busy(_))).count();
        hold(
            self.open.len() == waiting + running,
            "every accepted invocation waits or runs",
            || format!("{} open, {waiting} wait, {running} run", self.open.len()),
        )?;
        let commanded = self.sandboxes.len();
        // Sandboxes that wait for a VM or an interface are not commanded yet.
        hold(engine.sandboxes() >= commanded, "the engine knows every sandbox", || {
            format!("{} of {commanded}", engine.sandboxes())
        })
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}
