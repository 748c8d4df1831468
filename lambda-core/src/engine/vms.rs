//! VMs, the boundary between customers: one for many sandboxes of a customer, or one for each
//! sandbox. Pools hold started ones.

mod pools;
mod table;

use std::time::Duration;

pub(crate) use self::table::Vms;
use self::table::{Vm, VmPhase};
use super::{Agenda, Engine};
use crate::command::{Command, RejectReason};
use crate::event::EventError;
use crate::id::{AccountId, SandboxId, VmId, WorkerId};
use crate::settings::Isolation;
use crate::settings::kib;
use crate::store::slot::{SandboxSlot, VmSlot};

/// The most VMs with room whose workers are checked.
const LISTED_MAX: usize = 64;
/// The most VMs of each kind that a search returns.
const LOOKED_AT_MAX: usize = 8;

impl Engine {
    /// Returns VMs that can hold a sandbox, as (worker, VM): ready or starting ones of the
    /// customer, then ready ones of a pool.
    pub(super) fn ready_vms(&self, account: AccountId, memory_kib: u32) -> Vec<(WorkerId, VmSlot)> {
        let vms = &self.state.vms;
        if vms.slab.len() == 0 {
            return Vec::new();
        }
        let serves = |vm: &Vm| self.state.workers.is_open(vm.worker);
        let enough = (account, memory_kib, VmSlot(0))..=(account, u32::MAX, VmSlot::NONE);
        let own = vms.by_account.range(enough).take(LISTED_MAX).filter_map(|(.., at)| {
            let vm = vms.slab.get(*at)?;
            serves(vm).then_some((vm.worker, *at))
        });
        let pool = vms.pools.iter().find(|pool| pool.memory_kib >= memory_kib);
        let pooled = pool.into_iter().flat_map(|pool| pool.ready.iter().rev()).filter_map(|at| {
            let vm = vms.slab.get(*at)?;
            serves(vm).then_some((vm.worker, *at))
        });
        own.take(LOOKED_AT_MAX).chain(pooled.take(LOOKED_AT_MAX)).collect()
    }

    /// Returns whether a VM on the worker, ready or starting, can hold a customer's sandbox.
    pub(super) fn has_vm_on(&self, worker: WorkerId, account: AccountId, memory_kib: u32) -> bool {
        self.ready_vms(account, memory_kib).iter().any(|(on, _)| *on == worker)
    }

    /// Puts a sandbox into a VM: the given one, or a new one. Returns the VM.
    pub(super) fn take_vm(
        &mut self,
        sandbox: SandboxSlot,
        worker: WorkerId,
        isolation: Isolation,
        account: AccountId,
        ready: Option<VmSlot>,
    ) -> Option<VmSlot> {
        let memory_kib = self.state.sandboxes.get(sandbox)?.memory_kib;
        let size = match isolation {
            Isolation::VmPerAccount => {
                memory_kib.max(kib(self.state.config.vm.shared_memory_bytes))
            }
            _ => {
                let pools = &mut self.state.vms.pools;
                let pool = pools.iter_mut().find(|pool| pool.memory_kib >= memory_kib);
                pool.map_or(memory_kib, |pool| {
                    pool.taken += 1;
                    pool.ready.retain(|at| Some(*at) != ready);
                    pool.memory_kib
                })
            }
        };
        let at = match ready {
            Some(at) => at,
            None => self.start_vm(worker, isolation, size, Some(account))?,
        };
        let id = self.state.sandboxes.id(sandbox);
        self.state.vms.change(at, |vm| {
            vm.account = Some(account);
            vm.used_kib += memory_kib;
            vm.sandboxes += 1;
            if vm.phase == VmPhase::Starting {
                vm.waiting.push(id);
            }
        });
        Some(at)
    }

    fn start_vm(
        &mut self,
        worker: WorkerId,
        isolation: Isolation,
        memory_kib: u32,
        account: Option<AccountId>,
    ) -> Option<VmSlot> {
        let free = self.state.workers.get(worker)?.free_kib();
        if free < memory_kib {
            return None;
        }
        let now = self.state.now;
        let vm = Vm {
            worker,
            account,
            memory_kib,
            used_kib: 0,
            sandboxes: 0,
            isolation,
            phase: VmPhase::Starting,
            since: now,
            waiting: Vec::new(),
        };
        let at = self.state.vms.slab.insert(vm, self.state.config.vm.vms_max)?;
        self.hold_vm(worker, at, memory_kib);
        let vm = VmId(self.state.vms.slab.id(at));
        let give_up_at = now + self.state.config.vm.start_timeout;
        self.state.agenda.insert((give_up_at, Agenda::Vm(vm.0)));
        let memory_bytes = u64::from(memory_kib) << 10;
        self.command(Command::StartVm { vm, worker, memory_bytes, account });
        Some(at)
    }

    fn hold_vm(&mut self, worker: WorkerId, at: VmSlot, memory_kib: u32) {
        self.state.workers.hold_memory(worker, i64::from(memory_kib));
        self.state.vms.by_worker.insert((worker, at));
        if let Some(worker) = self.state.workers.get_mut(worker) {
            worker.vms += 1;
        }
    }

    pub(super) fn vm_is_ready(&self, at: VmSlot) -> bool {
        at == VmSlot::NONE
            || self.state.vms.slab.get(at).is_some_and(|vm| vm.phase == VmPhase::Ready)
    }

    pub(super) fn on_vm_ready(&mut self, vm: VmId) -> Result<(), EventError> {
        let now = self.state.now;
        let at = self.state.vms.slab.find(vm.0).ok_or(EventError::Unknown)?;
        let Some(held) = self.state.vms.slab.get_mut(at).filter(|vm| vm.phase == VmPhase::Starting)
        else {
            return Err(EventError::OutOfOrder);
        };
        (held.phase, held.since) = (VmPhase::Ready, now);
        let waiting = std::mem::take(&mut held.waiting);
        let (owned, memory_kib, empty, worker) =
            (held.account.is_some(), held.memory_kib, held.sandboxes == 0, held.worker);
        if !owned {
            let pools = &mut self.state.vms.pools;
            if let Some(pool) = pools.iter_mut().find(|pool| pool.memory_kib == memory_kib) {
                pool.starting = pool.starting.saturating_sub(1);
                pool.ready.push(at);
            }
            self.on_room_freed(worker);
        } else if empty {
            self.vm_is_empty(at);
        }
        self.begin_all(&waiting);
        Ok(())
    }

    /// Starts the sandboxes that waited for a VM or an interface, if they have all that they need
    /// now.
    pub(super) fn begin_all(&mut self, waiting: &[u64]) {
        for id in waiting {
            let Some(at) = self.state.sandboxes.find(*id) else { continue };
            let function = self.state.sandboxes.get(at).map(|it| it.function);
            let revision = function.and_then(|id| self.function(id)).map(|it| it.revision);
            if let Some(revision) = revision {
                self.begin_if_ready(at, revision);
            }
        }
    }

    pub(super) fn on_vm_gone(&mut self, vm: VmId) -> Result<(), EventError> {
        let at = self.state.vms.slab.find(vm.0).ok_or(EventError::Unknown)?;
        let worker = self.state.vms.slab.get(at).map(|vm| vm.worker);
        self.lose_vm(at);
        worker.into_iter().for_each(|worker| self.on_room_freed(worker));
        Ok(())
    }

    /// Removes a VM that is gone, and the sandboxes in it.
    pub(super) fn lose_vm(&mut self, at: VmSlot) {
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return };
        let starting = vm.phase == VmPhase::Starting;
        self.state.vms.change(at, |vm| vm.phase = VmPhase::Stopping);
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return };
        let (worker, memory_kib, account) = (vm.worker, vm.memory_kib, vm.account);
        let inside: Vec<_> = (self.state.workers.sandboxes(&self.state.sandboxes, worker))
            .filter(|(_, sandbox)| sandbox.vm == at)
            .map(|(at, sandbox)| (at, SandboxId(self.state.sandboxes.id(at)), sandbox.function))
            .collect();
        let pools = &mut self.state.vms.pools;
        if let Some(pool) = pools.iter_mut().find(|pool| pool.memory_kib == memory_kib) {
            pool.ready.retain(|it| *it != at);
            if starting && account.is_none() {
                pool.starting = pool.starting.saturating_sub(1);
            }
        }
        for (sandbox, id, function) in inside {
            let held = self.state.sandboxes.get(sandbox);
            let starting = held.is_some_and(|it| it.state.is_starting());
            let begun = held.map(|it| it.since).unwrap_or_default();
            self.forget(sandbox, RejectReason::SandboxLost);
            if starting {
                self.on_worker_fault(function, id, Some((worker, begun)));
            }
        }
        self.state.agenda.clear(Agenda::Vm(self.state.vms.slab.id(at)));
        self.state.vms.slab.remove(at);
        self.state.vms.by_worker.remove(&(worker, at));
        self.state.workers.hold_memory(worker, -i64::from(memory_kib));
        if let Some(worker) = self.state.workers.get_mut(worker) {
            worker.vms -= 1;
        }
        self.retire_if_empty(worker);
    }

    /// Removes a sandbox that is gone from its VM.
    pub(super) fn leave_vm(&mut self, at: VmSlot, memory_kib: u32) {
        self.state.vms.change(at, |vm| {
            vm.sandboxes -= 1;
            vm.used_kib -= memory_kib;
        });
        match &mut self.deferred {
            Some(deferred) => drop(deferred.vms.insert(at)),
            None => self.stop_vm_if_empty(at),
        }
    }

    /// Stops a VM without sandboxes, at once or after [`VmConfig::linger`].
    pub(super) fn stop_vm_if_empty(&mut self, at: VmSlot) {
        let empty = |vm: &Vm| vm.sandboxes == 0 && vm.phase != VmPhase::Stopping;
        if self.state.vms.slab.get(at).is_some_and(empty) {
            self.vm_is_empty(at);
        }
    }

    fn vm_is_empty(&mut self, at: VmSlot) {
        let now = self.state.now;
        let linger = self.state.config.vm.linger;
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return };
        vm.since = now;
        let draining = !self.state.workers.is_open(vm.worker);
        // An empty VM never changes its customer, and a VM for one sandbox takes no second one.
        let (worker, backlog) = (vm.worker, self.state.backlog.is_empty());
        let wanted = !backlog || self.has_reserved(worker);
        let Some(vm) = self.state.vms.slab.get(at) else { return };
        let kept = vm.isolation == Isolation::VmPerAccount && !draining && !wanted;
        if kept {
            let id = self.state.vms.slab.id(at);
            self.state.agenda.insert((now + linger, Agenda::Vm(id)));
        } else {
            self.stop_vm(at);
        }
    }

    pub(super) fn stop_vm(&mut self, at: VmSlot) {
        let now = self.state.now;
        let again = now + self.state.config.stop_timeout;
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return };
        let worker = vm.worker;
        self.state.vms.change(at, |vm| (vm.phase, vm.since) = (VmPhase::Stopping, now));
        for pool in &mut self.state.vms.pools {
            pool.ready.retain(|it| *it != at);
        }
        let vm = VmId(self.state.vms.slab.id(at));
        self.state.agenda.insert((again, Agenda::Vm(vm.0)));
        if !self.state.workers.is_lost(worker) {
            self.command(Command::StopVm { vm, worker });
        }
    }

    /// Stops a ready VM on the worker if it has no owner.
    pub(super) fn stop_vm_if_ownerless(&mut self, worker: WorkerId, vm: VmId) {
        let Some(at) = self.state.vms.slab.find(vm.0) else { return };
        let ownerless =
            |it: &Vm| it.worker == worker && it.account.is_none() && it.phase == VmPhase::Ready;
        if self.state.vms.slab.get(at).is_some_and(ownerless) {
            self.stop_vm(at);
        }
    }

    /// Stops the empty VMs of a worker.
    pub(super) fn stop_empty_vms(&mut self, worker: WorkerId) {
        for at in self.state.vms.of_worker(worker) {
            let empty = |vm: &Vm| vm.sandboxes == 0 && vm.phase != VmPhase::Stopping;
            if self.state.vms.slab.get(at).is_some_and(empty) {
                self.stop_vm(at);
            }
        }
    }

    pub(super) fn on_vm_due(&mut self, id: u64) {
        let Some(at) = self.state.vms.slab.find(id) else { return };
        let Some(vm) = self.state.vms.slab.get(at) else { return };
        let config = &self.state.config;
        let over = |limit: Duration| vm.since + limit <= self.state.now;
        match vm.phase {
            VmPhase::Starting if over(config.vm.start_timeout) => self.give_vm_up(at),
            VmPhase::Ready
                if vm.sandboxes == 0 && vm.account.is_some() && over(config.vm.linger) =>
            {
                self.stop_vm(at);
            }
            VmPhase::Stopping if over(config.stop_timeout) => self.stop_vm(at),
            _ => {}
        }
    }

    /// Gives up a VM that did not start in time: stops it, and starts the waiting sandboxes
    /// elsewhere. Its memory stays counted until the VM is gone.
    fn give_vm_up(&mut self, at: VmSlot) {
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return };
        let (pooled, memory_kib) = (vm.account.is_none(), vm.memory_kib);
        let waiting = std::mem::take(&mut vm.waiting);
        let pools = &mut self.state.vms.pools;
        if let Some(pool) = pools.iter_mut().find(|pool| pooled && pool.memory_kib == memory_kib) {
            pool.starting = pool.starting.saturating_sub(1);
        }
        self.stop_vm(at);
        self.try_elsewhere(&waiting);
    }

    /// Gives up the sandboxes that waited in vain for a VM or an interface, and starts others.
    pub(super) fn try_elsewhere(&mut self, waiting: &[u64]) {
        for id in waiting {
            let Some(at) = self.state.sandboxes.find(*id) else { continue };
            let Some(function) = self.state.sandboxes.get(at).map(|it| it.function) else {
                continue;
            };
            if self.stop(at, crate::command::StopReason::PrerequisiteGone) {
                self.on_worker_fault(function, SandboxId(*id), None);
            }
        }
    }

    /// Adopts a VM that a worker reports. Returns `false` if another worker has it, if it does not
    /// fit the worker or its isolation, or if no earlier engine can have given its id.
    pub(super) fn adopt_vm(
        &mut self,
        worker: WorkerId,
        vm: &crate::event::ReportedVm,
        first: bool,
    ) -> bool {
        if let Some(known) = self.state.vms.find(vm.vm).and_then(|at| self.state.vms.get(at)) {
            return known.worker == worker;
        }
        let Some(held) = self.state.workers.get(worker) else { return false };
        let (isolation, free_kib) = (held.isolation, held.free_kib());
        let memory_kib = kib(vm.memory_bytes);
        let may_be = match isolation {
            Isolation::Sandbox => false,
            Isolation::VmPerAccount => vm.account.is_some(),
            Isolation::VmPerSandbox => true,
        };
        if !may_be || memory_kib > free_kib {
            return false;
        }
        let adopted = Vm {
            worker,
            account: vm.account,
            memory_kib,
            used_kib: 0,
            sandboxes: 0,
            isolation,
            phase: VmPhase::Ready,
            since: self.state.now,
            waiting: Vec::new(),
        };
        let max = self.state.config.vm.vms_max;
        let Some(at) = self.state.vms.slab.insert_as(vm.vm.0, adopted, max, first) else {
            return false;
        };
        self.hold_vm(worker, at, memory_kib);
        match vm.account {
            Some(_) => {
                self.state.vms.change(at, |_| ());
                let linger = self.state.now + self.state.config.vm.linger;
                self.state.agenda.insert((linger, Agenda::Vm(vm.vm.0)));
            }
            None => {
                let pools = &mut self.state.vms.pools;
                match pools.iter_mut().find(|pool| pool.memory_kib == memory_kib) {
                    Some(pool) => pool.ready.push(at),
                    // It is stopped unless the report names a sandbox in it.
                    None => {
                        if let Some(deferred) = &mut self.deferred {
                            deferred.vms.insert(at);
                        }
                    }
                }
            }
        }
        true
    }

    /// Adds an adopted sandbox to its VM. Returns `false` if the VM is not ready, is full, or
    /// belongs to another customer.
    pub(super) fn adopt_into_vm(
        &mut self,
        at: VmSlot,
        account: AccountId,
        memory_kib: u32,
    ) -> bool {
        let Some(vm) = self.state.vms.slab.get_mut(at) else { return false };
        let alone = vm.isolation == Isolation::VmPerSandbox && vm.sandboxes > 0;
        let full = vm.memory_kib - vm.used_kib < memory_kib;
        let ready = vm.phase == VmPhase::Ready;
        if !ready || alone || full || vm.account.is_some_and(|it| it != account) {
            return false;
        }
        if vm.account.replace(account).is_none() {
            // An earlier engine took it out of its pool.
            for pool in &mut self.state.vms.pools {
                pool.ready.retain(|it| *it != at);
            }
        }
        self.state.vms.change(at, |vm| {
            vm.sandboxes += 1;
            vm.used_kib += memory_kib;
        });
        true
    }
}
