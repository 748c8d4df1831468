//! Checks of limits: memory of VMs and workers, interfaces, concurrency.

use super::invariant::{Checked, hold};
use super::seen::{FunctionSeen, InterfaceSeen, SandboxSeen, VmSeen};
use super::{Checker, Invariant};
use crate::*;

impl Checker {
    pub(super) fn in_its_vm(&mut self, sandbox: &SandboxSeen) -> Checked {
        let isolation = self.workers.get(&sandbox.worker).map(|it| it.capacity.isolation);
        let told = || format!("{sandbox:?}");
        let Some(id) = sandbox.vm else {
            return hold(
                isolation == Some(Isolation::Sandbox),
                Invariant::OneCustomerPerVm,
                "a sandbox is in a VM",
                told,
            );
        };
        let account = sandbox.settings.account;
        let Some(vm) = self.vms.get_mut(&id) else {
            return hold(
                false,
                Invariant::NothingToWhatEnds,
                "a sandbox is in a VM that is there",
                told,
            );
        };
        hold(
            vm.ready && vm.worker == sandbox.worker,
            Invariant::NothingToWhatEnds,
            "a sandbox is in a VM that runs",
            told,
        )?;
        hold(
            vm.account.is_none_or(|it| it == account),
            Invariant::OneCustomerPerVm,
            "one customer for each VM",
            told,
        )?;
        vm.account = Some(account);
        vm.had += 1;
        let alone = isolation == Some(Isolation::VmPerAccount) || vm.had == 1;
        hold(
            alone,
            Invariant::OneCustomerPerVm,
            "one sandbox for each VM, where VMs are each one's",
            told,
        )?;
        let inside = self.sandboxes.values().filter(|it| it.vm == Some(id));
        let used: u64 = inside.map(|it| kib(it.settings.memory_bytes)).sum();
        let fits = used + kib(sandbox.settings.memory_bytes) <= kib(vm.memory_bytes);
        hold(fits, Invariant::CapacityHolds, "the sandboxes of a VM fit into its memory", told)
    }

    pub(super) fn with_its_interface(&self, sandbox: &SandboxSeen) -> Checked {
        let told = || format!("{sandbox:?}");
        let Some(network) = sandbox.settings.network else {
            return hold(
                sandbox.interface.is_none(),
                Invariant::InterfaceSlotsHold,
                "no interface without a network",
                told,
            );
        };
        let interface = sandbox.interface.and_then(|id| self.interfaces.get(&id));
        let zone = self.workers.get(&sandbox.worker).map(|it| it.capacity.zone);
        let fits = |it: &InterfaceSeen| it.ready && it.network == network && Some(it.zone) == zone;
        hold(
            interface.is_some_and(fits),
            Invariant::InterfaceSlotsHold,
            "an interface of the function's network and zone",
            told,
        )?;
        // A sandbox that waited for its VM may have had the interface before it was full.
        let waited_until = sandbox.vm.and_then(|vm| self.vms.get(&vm)).map_or(0, |vm| vm.ready_by);
        let full_by = interface.and_then(|it| it.full_by);
        hold(
            full_by.is_none_or(|full_by| full_by < waited_until),
            Invariant::InterfaceSlotsHold,
            "a full interface gets no more sandboxes",
            told,
        )?;
        let uses = |it: &&SandboxSeen| it.interface == sandbox.interface && !it.interface_gone;
        let users = self.sandboxes.values().filter(uses).count();
        let max = self.config.interface.sandboxes_max as usize;
        hold(
            users < max,
            Invariant::InterfaceSlotsHold,
            "an interface is shared by no more than may",
            told,
        )
    }

    /// Checks that a function may have one more sandbox.
    pub(super) fn within_its_number(&self, sandbox: &SandboxSeen) -> Checked {
        let of = self.sandboxes.values().filter(|it| it.function == sandbox.function).count();
        let most =
            sandbox.settings.sandboxes_max.map_or(usize::MAX, |most| usize::from(most.get()));
        hold(
            of < most,
            Invariant::LimitsHold,
            "a function has no more sandboxes than it may",
            || format!("{of} before {sandbox:?}"),
        )
    }

    /// Checks that a sandbox's worker has the labels that its function needs.
    pub(super) fn on_a_worker_with_its_labels(&self, sandbox: &SandboxSeen) -> Checked {
        let has = self.workers.get(&sandbox.worker).map_or(0, |it| it.capacity.labels);
        hold(
            sandbox.settings.labels & !has == 0,
            Invariant::LabelsHold,
            "a sandbox starts on a worker with the labels of its function",
            || format!("{sandbox:?}"),
        )
    }

    /// Checks a worker's limits after a start on it. `adds_memory` is false for a sandbox in a VM,
    /// whose memory is already counted.
    pub(super) fn within_capacity(&self, id: WorkerId, adds_memory: bool) -> Checked {
        let Some(worker) = self.workers.get(&id) else {
            return hold(
                false,
                Invariant::NothingToWhatEnds,
                "nothing is placed on a worker that is not there",
                || format!("{id:?}"),
            );
        };
        hold(
            !worker.draining,
            Invariant::NothingToWhatEnds,
            "nothing is placed on a draining worker",
            || format!("{id:?}"),
        )?;
        hold(
            !worker.pressed,
            Invariant::CapacityHolds,
            "nothing starts on a worker under pressure",
            || format!("{id:?}"),
        )?;
        let on = || self.sandboxes.values().filter(|it| it.worker == id);
        let alone = on().filter(|it| it.vm.is_none()).map(|it| kib(it.settings.memory_bytes));
        // A VM that was only reported and is being stopped may be a stray, which the engine does
        // not count.
        let counted = |it: &&VmSeen| it.worker == id && (it.commanded || it.ready);
        let vms = self.vms.values().filter(counted).map(|it| kib(it.memory_bytes));
        let memory: u64 = alone.chain(vms).sum();
        let may =
            (worker.capacity.memory_bytes >> 10) * u64::from(self.config.memory_percent) / 100;
        hold(
            memory <= may || !adds_memory,
            Invariant::CapacityHolds,
            "a worker's memory is not given away twice",
            || format!("{memory} of {may} KiB on {id:?}"),
        )?;
        let cpu: u64 = on().map(|it| u64::from(it.settings.cpu_milli)).sum();
        let may = u64::from(worker.capacity.cpu_milli) * u64::from(self.config.cpu_percent) / 100;
        let counted = worker.capacity.cpu_milli != Capacity::CPU_UNCOUNTED;
        hold(
            !counted || cpu <= may,
            Invariant::CapacityHolds,
            "a worker's processor time is given away within its limit",
            || format!("{cpu} of {may} thousandths on {id:?}"),
        )?;
        let slots = on().filter(|it| it.settings.network.is_some()).count();
        let may = worker.capacity.interface_slots as usize;
        hold(slots <= may, Invariant::InterfaceSlotsHold, "a worker's interface slots hold", || {
            format!("{slots} on {id:?}")
        })
    }

    pub(super) fn within_limits(
        &self,
        before: usize,
        invocation: InvocationId,
        id: FunctionId,
    ) -> Checked {
        // The invocation was rejected.
        if self.open.len() <= before || self.function_of(invocation).is_none() {
            return Ok(());
        }
        let Some(function) = self.functions.get(&id) else {
            return hold(
                false,
                Invariant::LimitsHold,
                "invocations are of functions that are there",
                || format!("{id:?}"),
            );
        };
        hold(
            !function.removed,
            Invariant::NothingToWhatEnds,
            "a removed function takes no invocation",
            || format!("{id:?}"),
        )?;
        let concurrency =
            |id: FunctionId| self.functions_of.values().filter(|it| **it == id).count() as u64;
        let provisioned = |it: &FunctionSeen| u64::from(it.settings.provisioned_concurrency);
        let beyond =
            |id: FunctionId, it: &FunctionSeen| concurrency(id).saturating_sub(provisioned(it));
        if concurrency(id) <= provisioned(function) {
            return Ok(());
        }
        // The function itself, or the one out of whose reserved concurrency it takes.
        let owner_id = function.settings.shares_with.unwrap_or(id);
        let owner = self.functions.get(&owner_id).filter(|it| !it.removed);
        if let Some(reserved) = owner.and_then(|it| it.settings.reserved_concurrency) {
            let in_pool = |(id, it): &(&FunctionId, &FunctionSeen)| {
                **id == owner_id || it.settings.shares_with == Some(owner_id)
            };
            let pool = self.functions.iter().filter(in_pool);
            let used: u64 = pool.map(|(id, it)| provisioned(it) + beyond(*id, it)).sum();
            return hold(
                used <= u64::from(reserved),
                Invariant::LimitsHold,
                "reserved concurrency holds, shared or not",
                || format!("{used} of {reserved} of {id:?}"),
            );
        }
        if function.settings.shares_with.is_some() {
            return Ok(());
        }
        let account = function.settings.account;
        let max =
            self.accounts.get(&account).copied().unwrap_or(self.config.account_concurrency_max);
        let (mut open, mut claimed) = (0, 0);
        let counts =
            |it: &FunctionSeen| it.settings.account == account && it.settings.shares_with.is_none();
        for (id, it) in self.functions.iter().filter(|(_, it)| counts(it)) {
            match it.settings.reserved_concurrency {
                Some(reserved) => claimed += u64::from(reserved),
                None => {
                    claimed += provisioned(it);
                    open += beyond(*id, it);
                }
            }
        }
        hold(
            open + claimed <= u64::from(max),
            Invariant::LimitsHold,
            "an account's concurrency holds",
            || format!("{open} and {claimed} of {max} of {account:?}"),
        )
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}
