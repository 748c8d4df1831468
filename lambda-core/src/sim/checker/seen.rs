//! What the checker has seen: the world as events made it.

use std::collections::BTreeSet;

use super::Checker;
use crate::*;

/// A worker as it was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerSeen {
    /// What it has.
    pub capacity: Capacity,
    /// Whether it takes nothing new.
    pub draining: bool,
    pub(super) joined: Time,
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
    pub(super) settings: FunctionSettings,
    /// Until when its invocation may run, where that was commanded.
    pub(super) deadline: Option<Time>,
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
    pub(super) memory_bytes: u64,
    pub(super) account: Option<AccountId>,
    /// How many sandboxes it ever had.
    pub(super) had: u32,
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
    pub(super) network: NetworkId,
    pub(super) zone: Zone,
}

impl Checker {
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
                deadline: None,
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

    pub(super) fn lose_worker(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        self.forget_all(|it| it.worker == worker);
        self.vms.retain(|_, vm| vm.worker != worker);
    }

    /// Returns how many accepted invocations have not ended.
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
