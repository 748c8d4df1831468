//! The table of VMs, with its indexes.

use std::collections::BTreeSet;

use crate::config::VmConfig;
use crate::id::{AccountId, VmId, WorkerId};
use crate::settings::{Isolation, kib};
use crate::store::slab::Slab;
use crate::store::slot::VmSlot;
use crate::time::Time;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Vms {
    pub(super) slab: Slab<VmSlot, Vm>,
    /// Pairs of a worker and a VM on it.
    pub(super) by_worker: BTreeSet<(WorkerId, VmSlot)>,
    /// Customers' VMs that take more sandboxes, by account and free memory: the fullest with room
    /// comes first.
    pub(super) by_account: BTreeSet<(AccountId, u32, VmSlot)>,
    pub(super) pools: Vec<Pool>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Vm {
    pub(crate) worker: WorkerId,
    pub(crate) account: Option<AccountId>,
    pub(super) memory_kib: u32,
    pub(super) used_kib: u32,
    pub(super) sandboxes: u32,
    pub(super) isolation: Isolation,
    pub(super) phase: VmPhase,
    pub(super) since: Time,
    /// The sandboxes that wait for it to be ready.
    pub(super) waiting: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum VmPhase {
    Starting,
    Ready,
    Stopping,
}

/// The VMs of one size without an owner.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Pool {
    pub(super) memory_kib: u32,
    pub(super) ready: Vec<VmSlot>,
    pub(super) starting: u32,
    /// The number of VMs taken since the last tick.
    pub(super) taken: u32,
    /// The rate at which VMs are taken, per second, smoothed.
    pub(super) rate: f32,
}

impl Vm {
    pub(in crate::engine) fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    pub(in crate::engine) fn free_kib(&self) -> u32 {
        self.memory_kib - self.used_kib
    }

    pub(in crate::engine) fn sandboxes(&self) -> u32 {
        self.sandboxes
    }

    /// Returns whether it is ready: it can end when it is empty.
    pub(in crate::engine) fn can_end(&self) -> bool {
        self.phase == VmPhase::Ready
    }
}

impl Vms {
    pub(crate) fn new(restarts: u16, config: &VmConfig) -> Self {
        let pool = |bytes: &u64| Pool {
            memory_kib: kib(*bytes),
            ready: Vec::new(),
            starting: 0,
            taken: 0,
            rate: 0.0,
        };
        Self {
            slab: Slab::new(restarts),
            by_worker: BTreeSet::new(),
            by_account: BTreeSet::new(),
            pools: config.pool_sizes_bytes.iter().map(pool).collect(),
        }
    }

    pub(crate) fn id(&self, at: VmSlot) -> Option<u64> {
        self.slab.get(at).map(|_| self.slab.id(at))
    }

    pub(crate) fn find(&self, id: VmId) -> Option<VmSlot> {
        self.slab.find(id.0)
    }

    pub(crate) fn get(&self, at: VmSlot) -> Option<&Vm> {
        self.slab.get(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Changes a VM and updates the index of VMs with room.
    pub(super) fn change(&mut self, at: VmSlot, change: impl FnOnce(&mut Vm)) {
        let Some(vm) = self.slab.get_mut(at) else { return };
        let listed = |vm: &Vm| {
            let takes = vm.isolation == Isolation::VmPerAccount && vm.phase != VmPhase::Stopping;
            vm.account.filter(|_| takes).map(|account| (account, vm.free_kib(), at))
        };
        let before = listed(vm);
        change(vm);
        let after = listed(vm);
        if let Some(before) = before.filter(|_| before != after) {
            self.by_account.remove(&before);
        }
        self.by_account.extend(after);
    }

    pub(crate) fn of_worker(&self, worker: WorkerId) -> Vec<VmSlot> {
        self.by_worker
            .range((worker, VmSlot(0))..=(worker, VmSlot::NONE))
            .map(|(_, vm)| *vm)
            .collect()
    }

    /// Returns the number of ready VMs in each pool.
    pub(crate) fn pooled(&self) -> Vec<usize> {
        self.pools.iter().map(|pool| pool.ready.len()).collect()
    }
}
