//! The checker's model of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::*;

/// A worker in the checker's model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerSeen {
    /// Its resources, as it joined with them.
    pub capacity: Capacity,
    /// Whether the worker is draining.
    pub draining: bool,
    /// Whether the worker is under pressure.
    pub(super) pressed: bool,
    pub(super) joined: Time,
    /// Whether it has sent a report since it joined.
    pub(super) reported: bool,
    /// The time at which invocations that still run on it are timed out.
    pub(super) drained_by: Option<Time>,
}

/// A function in the checker's model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FunctionSeen {
    /// The function's settings in the last put.
    pub settings: FunctionSettings,
    /// The function's revision in the last put.
    pub revision: u64,
    /// Whether the function was removed.
    pub removed: bool,
    /// The previous revision, and until when it may serve.
    pub(super) previous: Option<(u64, Time)>,
}

/// A sandbox in the checker's model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SandboxSeen {
    /// The function that it runs.
    pub function: FunctionId,
    /// Its revision of the function.
    pub revision: u64,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// Its VM; `None` on a worker without VMs.
    pub vm: Option<VmId>,
    /// Its network interface; `None` for a function without a network.
    pub interface: Option<InterfaceId>,
    /// Whether its interface is gone. A false report can bring another one with the same id.
    pub(super) interface_gone: bool,
    /// Its state after all events and commands so far.
    pub state: StateSeen,
    pub(super) settings: FunctionSettings,
    /// The deadline of its invocation; `None` if the invocation was only reported.
    pub(super) deadline: Option<Time>,
}

/// The state of a sandbox in the checker's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateSeen {
    /// Its start was commanded.
    Starting,
    /// It is ready and runs no invocation.
    Idle,
    /// It runs this invocation.
    Busy(InvocationId),
    /// Its stop was commanded, or its worker is ending it.
    Stopping,
}

/// A VM in the checker's model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VmSeen {
    /// The worker that runs it.
    pub worker: WorkerId,
    /// Whether the VM is ready.
    pub ready: bool,
    pub(super) memory_bytes: u64,
    pub(super) account: Option<AccountId>,
    /// Whether the engine commanded its start. A VM that was only reported may not exist.
    pub(super) commanded: bool,
    /// Whether its stop was commanded.
    pub(super) stopped: bool,
    /// The number of the event by which it became ready; 0 if it is not, or was only reported.
    pub(super) ready_by: u64,
    /// The number of sandboxes that were ever in it.
    pub(super) had: u32,
}

impl SandboxSeen {
    /// Returns whether a worker would report it: it exists.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.state != StateSeen::Starting
    }

    /// Returns the invocation that it runs.
    #[must_use]
    pub fn running(&self) -> Option<InvocationId> {
        match self.state {
            StateSeen::Busy(invocation) => Some(invocation),
            _ => None,
        }
    }

    /// Returns its entry in a worker's report.
    #[must_use]
    pub fn reported(&self, sandbox: SandboxId) -> ReportedSandbox {
        ReportedSandbox {
            sandbox,
            function: self.function,
            revision: self.revision,
            vm: self.vm,
            interface: self.interface,
            invocation: self.running(),
        }
    }
}

impl VmSeen {
    /// Returns its entry in a worker's report.
    #[must_use]
    pub fn reported(&self, vm: VmId) -> ReportedVm {
        ReportedVm { vm, account: self.account, memory_bytes: self.memory_bytes }
    }

    /// Returns the customer whose sandboxes it runs, if it has one.
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

/// A network interface in the checker's model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InterfaceSeen {
    /// Whether it can be used.
    pub ready: bool,
    /// The number of the event by which it became full; `None` if it has room.
    pub(super) full_by: Option<u64>,
    /// Whether the engine commanded its start. An interface that was only reported may not exist.
    pub(super) commanded: bool,
    pub(super) network: NetworkId,
    pub(super) zone: Zone,
}

impl Checker {
    /// Applies an event that the engine accepted to the model.
    pub fn happened(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::WorkerJoined { worker, capacity } => {
                let (draining, joined, drained_by) = (false, self.now, None);
                let (capacity, reported, pressed) = (*capacity, false, false);
                let seen = WorkerSeen { capacity, draining, pressed, joined, reported, drained_by };
                self.workers.insert(*worker, seen);
            }
            Event::WorkerPressed { worker } | Event::WorkerRelieved { worker } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.pressed = matches!(event, Event::WorkerPressed { .. });
                }
            }
            Event::WorkerDraining { worker } => self.drains(*worker, None),
            Event::WorkerEnds { worker, at } => {
                let at = self.now + at.since(self.outside);
                self.drains(*worker, Some(at));
            }
            Event::InvocationWithdrawn { invocation, .. } => {
                self.close(*invocation);
            }
            Event::WorkerLost { worker } => self.lose_worker(*worker),
            Event::AccountPut { account, concurrency_max } => {
                self.accounts.insert(*account, *concurrency_max);
            }
            Event::FunctionPut { function, revision, settings } => {
                self.put_function(*function, *revision, settings);
            }
            Event::FunctionRemoved { function } => {
                if let Some(function) = self.functions.get_mut(function) {
                    function.removed = true;
                    function.settings.reserved_concurrency = None;
                    function.settings.provisioned_concurrency = 0;
                    function.settings.shares_with = None;
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
                    (vm.ready, vm.ready_by) = (true, self.events);
                }
            }
            Event::VmGone { vm } => {
                self.vms.remove(vm);
                let inside = |it: &SandboxSeen| it.vm == Some(*vm);
                self.forget_all(inside);
            }
            Event::InterfaceReady { interface }
            | Event::InterfaceFull { interface }
            | Event::InterfaceRoom { interface }
            | Event::InterfaceGone { interface } => self.interface_changed(*interface, event),
            Event::WorkerReported { worker, vms, sandboxes } => {
                self.reported(*worker, vms, sandboxes);
            }
            _ => {}
        }
    }

    fn interface_changed(&mut self, id: InterfaceId, event: &Event) {
        let Some(interface) = self.interfaces.get_mut(&id) else { return };
        match event {
            Event::InterfaceReady { .. } => interface.ready = true,
            Event::InterfaceFull { .. } => {
                interface.full_by.get_or_insert(self.events);
            }
            Event::InterfaceRoom { .. } => interface.full_by = None,
            _ => {
                self.interfaces.remove(&id);
                let on_it = self.sandboxes.values_mut().filter(|it| it.interface == Some(id));
                on_it.for_each(|it| it.interface_gone = true);
            }
        }
    }

    fn put_function(&mut self, id: FunctionId, revision: u64, settings: &FunctionSettings) {
        let previous = match self.functions.get(&id) {
            Some(it) if it.revision == revision => it.previous,
            it => it.map(|it| (it.revision, self.now + self.config.rollout_max)),
        };
        let (settings, removed) = (*settings, false);
        self.functions.insert(id, FunctionSeen { settings, revision, removed, previous });
    }

    /// Applies a worker's report. The engine commands a stop for each reported sandbox that it does
    /// not adopt.
    fn reported(&mut self, worker: WorkerId, vms: &[ReportedVm], sandboxes: &[ReportedSandbox]) {
        // If an id is reported twice, the first entry counts.
        let named: BTreeMap<_, _> = sandboxes.iter().rev().map(|it| (it.sandbox, it)).collect();
        let gone: Vec<_> = (self.sandboxes.iter())
            .filter(|(id, it)| match named.get(id) {
                Some(named) => it.worker == worker && it.function != named.function,
                None => it.worker == worker && it.state != StateSeen::Starting,
            })
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|sandbox| self.forget(sandbox));
        let named_vms: BTreeSet<_> = vms.iter().map(|it| it.vm).collect();
        let gone: Vec<_> = (self.vms.iter())
            .filter(|(id, vm)| vm.worker == worker && vm.ready && !named_vms.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for vm in gone {
            // The engine may still wait for the end of a VM that it stopped, whatever is reported.
            if let Some(stopped) = self.vms.get_mut(&vm).filter(|it| it.stopped) {
                stopped.ready = false;
            } else {
                self.vms.remove(&vm);
            }
            self.forget_all(|it| it.vm == Some(vm));
        }
        // A VM whose start was commanded and that is gone cannot be reported again, except by a
        // worker that was lost and came back.
        let first = (self.workers.get_mut(&worker))
            .is_some_and(|it| !std::mem::replace(&mut it.reported, true));
        let new = |vm: &&ReportedVm| {
            let back = first && !self.vms.contains_key(&vm.vm);
            back || !self.vms_commanded.contains(&vm.vm)
        };
        let new: Vec<_> = vms.iter().filter(new).collect();
        for vm in new {
            let (memory_bytes, account) = (vm.memory_bytes, vm.account);
            let inside = named.values().filter(|it| it.vm == Some(vm.vm)).count();
            let had = u32::try_from(inside).unwrap_or(u32::MAX).max(u32::from(account.is_some()));
            let seen = VmSeen {
                worker,
                ready: true,
                commanded: false,
                stopped: false,
                ready_by: 0,
                memory_bytes,
                account,
                had,
            };
            // A stray whose stop was commanded exists again if its worker reports it.
            let known = self.vms.entry(vm.vm).or_insert(seen);
            known.ready |= known.worker == worker;
        }
        named.into_values().for_each(|it| self.reported_one(worker, it));
    }

    fn reported_one(&mut self, worker: WorkerId, it: &ReportedSandbox) {
        let known = self.sandboxes.get(&it.sandbox).map(|seen| {
            let own = seen.worker == worker && seen.function == it.function;
            (own, seen.state)
        });
        match (known, self.functions.get(&it.function)) {
            (Some((true, state)), _) => match (state, it.invocation) {
                (StateSeen::Starting, None) => self.set(it.sandbox, StateSeen::Idle),
                (StateSeen::Idle, Some(invocation)) => {
                    self.set(it.sandbox, StateSeen::Busy(invocation));
                    self.begin(invocation, it.function);
                }
                _ => {}
            },
            (None, Some(function)) => {
                let seen = SandboxSeen {
                    function: it.function,
                    revision: it.revision,
                    worker,
                    vm: it.vm,
                    interface: it.interface,
                    interface_gone: false,
                    state: StateSeen::Idle,
                    settings: function.settings,
                    deadline: None,
                };
                let zone = self.workers.get(&worker).map(|it| it.capacity.zone);
                let shared = it.interface.zip(function.settings.network).zip(zone);
                if let Some(((interface, network), zone)) = shared {
                    let (ready, commanded, full_by) = (true, false, None);
                    let seen = InterfaceSeen { ready, full_by, commanded, network, zone };
                    self.interfaces.entry(interface).or_insert(seen);
                }
                self.sandboxes.insert(it.sandbox, seen);
                self.set(it.sandbox, StateSeen::Idle);
                if let Some(invocation) = it.invocation {
                    self.set(it.sandbox, StateSeen::Busy(invocation));
                    self.begin(invocation, it.function);
                }
            }
            // The engine cannot adopt the sandbox, and rejects its invocation.
            _ => {
                if let Some(invocation) = it.invocation {
                    self.begin(invocation, it.function);
                }
            }
        }
    }

    /// Marks a worker as draining, until `by` or for the configured time.
    pub(super) fn drains(&mut self, worker: WorkerId, by: Option<Time>) {
        let most = self.config.recycling.map_or(self.config.drain_max, |it| it.drain_max);
        let Some(worker) = self.workers.get_mut(&worker) else { return };
        let by = by.unwrap_or(self.now + most);
        worker.draining = true;
        worker.drained_by = Some(worker.drained_by.map_or(by, |before| before.min(by)));
    }

    pub(super) fn lose_worker(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        self.forget_all(|it| it.worker == worker);
        self.vms.retain(|_, vm| vm.worker != worker);
    }

    /// Returns the number of accepted invocations that have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn begin(&mut self, invocation: InvocationId, function: FunctionId) {
        self.arrived += 1;
        self.open.insert((invocation, self.arrived));
        self.functions_of.insert((invocation, self.arrived), function);
    }

    pub(super) fn close(&mut self, invocation: InvocationId) -> bool {
        let first = self.open.range((invocation, 0)..=(invocation, u64::MAX)).next().copied();
        first.is_some_and(|first| {
            self.functions_of.remove(&first);
            self.open.remove(&first)
        })
    }

    pub(super) fn function_of(&self, invocation: InvocationId) -> Option<FunctionId> {
        let mut of = self.functions_of.range((invocation, 0)..=(invocation, u64::MAX));
        of.next().map(|(_, function)| *function)
    }

    fn forget_all(&mut self, which: impl Fn(&SandboxSeen) -> bool) {
        let gone: Vec<_> =
            self.sandboxes.iter().filter(|(_, it)| which(it)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|sandbox| self.forget(sandbox));
    }

    pub(super) fn forget(&mut self, sandbox: SandboxId) {
        self.set(sandbox, StateSeen::Stopping);
        self.sandboxes.remove(&sandbox);
    }

    pub(super) fn set(&mut self, id: SandboxId, state: StateSeen) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.state = state;
        let now = self.now;
        self.idle.retain(|(_, idle)| *idle != id);
        if state == StateSeen::Idle {
            self.idle.insert((now, id));
        }
    }
}
