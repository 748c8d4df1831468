//! Adoption: the engine takes over what workers report. A report overrides the engine's records.

use std::collections::BTreeMap;

use super::{Deferred, Engine};
use crate::command::{Command, RejectReason, StopReason};
use crate::event::{EventError, ReportedSandbox, ReportedVm};
use crate::id::{SandboxId, VmId, WorkerId};
use crate::sandbox::{Made, Sandbox, State};
use crate::settings::Isolation;
use crate::settings::kib;
use crate::store::slot::SandboxSlot;
use crate::store::slot::{InterfaceSlot, VmSlot};

impl Engine {
    pub(super) fn on_worker_reported(
        &mut self,
        worker: WorkerId,
        vms: &[ReportedVm],
        sandboxes: &[ReportedSandbox],
    ) -> Result<(), EventError> {
        self.state.workers.get(worker).ok_or(EventError::Unknown)?;
        self.deferred = Some(Deferred::default());
        self.unreserve_all(worker).into_iter().for_each(|id| self.start_missing(id));
        // Only the first report after the worker joined can name sandboxes from before it joined,
        // or of an earlier engine.
        let first = (self.state.workers.side_mut(worker))
            .is_some_and(|side| !std::mem::replace(&mut side.reported, true));
        // If an id is reported twice, the first entry counts.
        let named_vms: BTreeMap<_, _> = vms.iter().rev().map(|it| (it.vm, it)).collect();
        let named: BTreeMap<_, _> = sandboxes.iter().rev().map(|it| (it.sandbox, it)).collect();
        let mut strays = Vec::new();
        for vm in named_vms.values() {
            if !self.adopt_vm(worker, vm, first) {
                strays.push(vm.vm);
            }
        }
        self.forget_unreported(worker, &named_vms, &named);
        for reported in named.into_values() {
            let known = self.state.sandboxes.find(reported.sandbox.0);
            let own = known.filter(|at| {
                // A sandbox whose start was not commanded yet cannot be on the worker.
                (self.state.sandboxes.get(*at)).is_some_and(|it| {
                    let own = it.worker == worker && it.function == reported.function;
                    own && it.state != State::Waiting
                })
            });
            let taken = match own {
                Some(at) => {
                    self.correct(at, reported);
                    true
                }
                None => known.is_none() && self.adopt(worker, reported, first).is_some(),
            };
            if !taken {
                let (sandbox, reason) = (reported.sandbox, StopReason::Stray);
                self.command(Command::StopSandbox { sandbox, worker, reason });
                if let Some(invocation) = reported.invocation {
                    // The engine does not know the invocation and could not report its end.
                    self.refuse(invocation, reported.function, RejectReason::SandboxLost);
                }
            }
        }
        self.take_back(worker);
        // A VM without an owner that has a stray sandbox must not return to a pool.
        for vm in sandboxes.iter().filter_map(|it| it.vm) {
            self.stop_vm_if_ownerless(worker, vm);
        }
        // VMs are stopped after the sandboxes in them.
        for vm in strays {
            self.command(Command::StopVm { vm, worker });
        }
        let deferred = self.deferred.take().unwrap_or_default();
        for vm in deferred.vms {
            self.stop_vm_if_empty(vm);
        }
        for interface in deferred.interfaces {
            self.look_at_unused(interface);
        }
        for function in deferred.functions {
            self.start_missing(function);
        }
        self.retire_if_empty(worker);
        self.on_room_freed(worker);
        Ok(())
    }

    /// Removes what the worker does not report. Starts whose command may not have reached the
    /// worker yet stay.
    fn forget_unreported(
        &mut self,
        worker: WorkerId,
        vms: &BTreeMap<VmId, &ReportedVm>,
        sandboxes: &BTreeMap<SandboxId, &ReportedSandbox>,
    ) {
        // VMs first: the sandboxes of a lost VM are gone with it.
        for at in self.state.vms.of_worker(worker) {
            let known = self.state.vms.id(at).is_some_and(|id| vms.contains_key(&VmId(id)));
            if !known && self.vm_is_ready(at) {
                self.lose_vm(at);
            }
        }
        let missing: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(at, sandbox)| match sandboxes.get(&SandboxId(self.state.sandboxes.id(*at))) {
                // The report names another function for this id: the engine's sandbox is gone.
                Some(it) => sandbox.function != it.function && sandbox.state != State::Waiting,
                None => !sandbox.state.is_starting(),
            })
            .map(|(at, sandbox)| (at, sandbox.function, sandbox.state.is_starting()))
            .collect();
        for (at, function, starting) in missing {
            self.forget(at, RejectReason::SandboxLost);
            if starting {
                self.start_missing(function);
            }
        }
    }

    /// Cancels starts on a worker that were not commanded yet, newest first, if the worker's report
    /// leaves no room for them.
    fn take_back(&mut self, worker: WorkerId) {
        // Starts that replace cancelled ones already fit, so only the present ones are checked.
        let mut waiting: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, sandbox)| sandbox.state == State::Waiting)
            .map(|(at, sandbox)| (self.state.sandboxes.id(at), sandbox.marks.slot()))
            .collect();
        waiting.sort_unstable();
        for (id, slot) in waiting.into_iter().rev() {
            let Some(held) = self.state.workers.get(worker) else { return };
            let short_of_processors = held.cpu_used_milli > held.cpu_milli;
            let short_of_slots = held.slots_used > held.slots;
            if !(short_of_processors || short_of_slots && slot) {
                continue;
            }
            let Some(at) = self.state.sandboxes.find(id) else { continue };
            let function = self.state.sandboxes.get(at).map(|it| it.function);
            self.forget(at, RejectReason::SandboxLost);
            if let Some(function) = function {
                self.start_missing(function);
            }
        }
    }

    /// Updates a sandbox that the engine knows by the worker's report.
    fn correct(&mut self, at: SandboxSlot, reported: &ReportedSandbox) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        match (sandbox.state, reported.invocation) {
            // Its readiness was not reported.
            (State::Starting, None) => {
                let took = self.state.now.since(sandbox.since);
                self.on_started(at, took);
            }
            // It runs an invocation that an earlier engine dispatched.
            (State::Idle, Some(invocation)) => {
                let (id, place) = (sandbox.function, sandbox.idle_place());
                self.no_longer_idle(at);
                if let Some(function) = self.function_mut(id) {
                    function.remove_idle(place);
                }
                self.run_adopted(at, invocation);
            }
            _ => {}
        }
    }

    fn run_adopted(&mut self, at: SandboxSlot, invocation: crate::id::InvocationId) {
        let Some(sandbox) = self.state.sandboxes.get(at) else { return };
        let id = sandbox.function;
        let before = self.function(id).map_or(0, super::Function::concurrency);
        self.count(id, before, before + 1);
        let commands = self.state.commands.len();
        let written = self.state.journal.len();
        self.dispatch(invocation, at);
        // It runs already: remove the command and the journal's entry again.
        self.state.commands.truncate(commands);
        self.state.journal.truncate(written);
    }

    /// Adopts a sandbox that the engine does not know. Returns `None` if it cannot be adopted.
    fn adopt(&mut self, worker: WorkerId, reported: &ReportedSandbox, first: bool) -> Option<()> {
        let function = self.function(reported.function)?;
        if function.removed || function.revision != reported.revision {
            return None;
        }
        let (settings, now) = (function.settings, self.state.now);
        let member = u32::try_from(function.members.len()).ok()?;
        let held = self.state.workers.get(worker)?;
        let (isolation, zone, free_kib) = (held.isolation, held.zone, held.free_kib());
        let memory_kib = kib(settings.memory_bytes);
        let vm = match reported.vm {
            Some(vm) => Some(self.state.vms.find(vm)?),
            None => None,
        };
        let there = vm.and_then(|vm| self.state.vms.get(vm)).is_some_and(|it| it.worker == worker);
        // On a worker with VMs, the sandbox must be in one of them; on a worker without, there must
        // be room.
        let fits = match isolation {
            Isolation::Sandbox => vm.is_none() && memory_kib <= free_kib,
            _ => there,
        };
        if !fits {
            return None;
        }
        let made = Made {
            function: reported.function,
            worker,
            vm: vm.unwrap_or(VmSlot::NONE),
            memory_kib,
            cpu_milli: settings.cpu_milli,
            member,
            slot: settings.network.is_some(),
        };
        let sandbox = Sandbox::new(made, State::Idle, now);
        let max = self.state.config.sandboxes_max;
        let at = self.state.sandboxes.insert_as(reported.sandbox.0, sandbox, max, first)?;
        let vm_taken = vm.is_none_or(|vm| self.adopt_into_vm(vm, settings.account, memory_kib));
        let interface = match (settings.network, reported.interface) {
            (None, None) => Some(InterfaceSlot::NONE),
            (Some(network), Some(it)) if vm_taken => self.adopt_interface(it, network, zone, first),
            _ => None,
        };
        let Some(interface) = interface.filter(|_| vm_taken) else {
            self.state.sandboxes.remove(at);
            if let Some(vm) = vm.filter(|_| vm_taken) {
                self.leave_vm(vm, memory_kib);
            }
            return None;
        };
        if let Some(sandbox) = self.state.sandboxes.get_mut(at) {
            sandbox.interface = interface;
        }
        self.hold(at);
        if let Some(deferred) = self.deferred.as_mut().filter(|_| settings.sandboxes_max.is_some())
        {
            deferred.functions.insert(reported.function);
        }
        let (sandbox, function) = (reported.sandbox, reported.function);
        let (revision, vm, interface) = (reported.revision, reported.vm, reported.interface);
        // The journal records an adopted sandbox as started.
        self.journal(Command::StartSandbox { sandbox, worker, function, revision, vm, interface });
        match reported.invocation {
            Some(invocation) => self.run_adopted(at, invocation),
            None => self.offer(at),
        }
        Some(())
    }
}
