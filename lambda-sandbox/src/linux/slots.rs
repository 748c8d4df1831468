//! The numbers and control groups of a host's sandboxes. They outlive the host until its last
//! sandbox is released.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::Error;
use crate::linux::features::Rights;
use crate::linux::group::cgroup::Hierarchies;
use crate::linux::group::kept_groups::{KeptGroup, KeptGroups};
#[cfg(feature = "systemd")]
use crate::linux::group::scope::Scope;
use crate::linux::instance::Instance;
use crate::linux::root::owners;

/// The source of each sandbox's number and groups.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) hierarchies: Hierarchies,
    pub(super) instance: Instance,
    /// Groups that no sandbox uses, kept for later sandboxes.
    pub(super) groups: KeptGroups,
    /// Dropped after the groups in it were removed.
    #[cfg(feature = "systemd")]
    pub(super) _scope: Option<Scope>,
}

impl Slots {
    /// Makes a user namespace for a sandbox with this number. `None` if that fails, or without
    /// root: the sandbox's process then makes its own.
    pub(super) fn user_namespace(&self, number: u32) -> Option<OwnedFd> {
        let (id, owner) = (self.instance.id(number), self.instance.owner());
        let root = Rights::own() == Rights::Root;
        root.then(|| owners::of_sandbox(id, owner).ok()).flatten()
    }

    /// Removes a group that no sandbox uses.
    pub(super) fn remove(&self, kept: &KeptGroup) -> Result<(), Error> {
        let removed = kept.group.remove();
        self.instance.give_slot(kept.number);
        removed
    }

    /// Removes the kept groups. The next sweep removes those that cannot be removed now.
    pub(super) fn forget_groups(&self) {
        for kept in self.groups.take_all() {
            stays("control group that is kept", self.remove(&kept));
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.forget_groups();
        self.instance.leave(&self.hierarchies);
    }
}

/// A sandbox's number. It becomes free again on drop.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) slots: Arc<Slots>,
    pub(super) number: u32,
    /// Whether the number stays taken on drop.
    kept: bool,
}

impl Slot {
    pub(super) fn new(slots: &Arc<Slots>, number: u32) -> Self {
        Self { slots: Arc::clone(slots), number, kept: false }
    }

    /// Keeps the number taken, for the group that is kept with it.
    pub(super) fn keep(mut self) -> u32 {
        self.kept = true;
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.kept {
            self.slots.instance.give_slot(self.number);
        }
    }
}

/// Logs a failed release with path and cause. The resource stays until the next sweep.
pub(super) fn stays(what: &'static str, released: Result<(), Error>) {
    if let Err(error) = released {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(what, %error, cause, "not released; the next sweep tries again");
    }
}
