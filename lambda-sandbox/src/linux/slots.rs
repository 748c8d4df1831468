//! The numbers and control groups of a host's sandboxes: they outlive the host until its last sandbox is released.

use std::sync::Arc;

use crate::Error;
use crate::linux::group::cgroup::Hierarchies;
use crate::linux::group::kept_groups::{KeptGroup, KeptGroups};
#[cfg(feature = "systemd")]
use crate::linux::group::scope::Scope;
use crate::linux::instance::Instance;

/// What gives each sandbox its number and its groups.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) hierarchies: Hierarchies,
    pub(super) instance: Instance,
    /// Groups that no sandbox has, for sandboxes to come.
    pub(super) groups: KeptGroups,
    /// Goes when the groups in it have gone.
    #[cfg(feature = "systemd")]
    pub(super) _scope: Option<Scope>,
}

impl Slots {
    /// Removes a group that no sandbox has.
    pub(super) fn remove(&self, kept: &KeptGroup) -> Result<(), Error> {
        let removed = kept.group.remove();
        self.instance.give_slot(kept.number);
        removed
    }

    /// Removes the groups that no sandbox has; what cannot be removed is the next sweep's.
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

/// A sandbox's number, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) slots: Arc<Slots>,
    pub(super) number: u32,
    /// Whether the number stays taken.
    kept: bool,
}

impl Slot {
    pub(super) fn new(slots: &Arc<Slots>, number: u32) -> Self {
        Self { slots: Arc::clone(slots), number, kept: false }
    }

    /// Leaves the number taken, for the group that is kept with it.
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

/// Logs what could not be released, with path and cause: it stays until the next sweep.
pub(super) fn stays(what: &'static str, released: Result<(), Error>) {
    if let Err(error) = released {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(what, %error, cause, "not released; the next sweep tries again");
    }
}
