//! Keeps control groups of ended sandboxes for the next sandboxes with the same limits.
//!
//! To make or remove a group takes the kernel's one lock for all groups. The time grows with the
//! mounts and processes of the machine. A kept group saves both.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Limits;
use crate::linux::group::cgroup::{Entrance, Group};

/// The most groups that are kept while no sandbox uses them.
const KEPT_MAX: usize = 32;

/// A group with its open files, and the sandbox number that belongs to it. Sandboxes use both one
/// after another; each has its own user namespace.
#[derive(Debug)]
pub(in crate::linux) struct KeptGroup {
    pub(in crate::linux) group: Group,
    pub(in crate::linux) entrance: Entrance,
    pub(in crate::linux) number: u32,
    /// The user namespace of the next sandbox with this number, if it was made ahead.
    pub(in crate::linux) users: Option<OwnedFd>,
}

/// The groups that a host keeps, the least recently used first.
#[derive(Debug, Default)]
pub(in crate::linux) struct KeptGroups {
    kept: Mutex<Vec<(Key, KeptGroup)>>,
}

/// The limits of a group: memory, processor time, processor time of the init phase, processes.
type Key = (u64, u64, Option<u64>, u32);

/// Returns the key of a group for these limits. Returns `None` for limits of block I/O, which
/// depend on the root's disks, and for chosen processors or weights, which are rare.
fn key(limits: &Limits) -> Option<Key> {
    let there =
        limits.block_io.is_none() && limits.cpu_weight.is_none() && limits.processors.is_none();
    // A sandbox can end before its init-phase limit is lifted. The next one has the same key, and
    // sets both limits anew.
    let init_cpus = limits.init_cpus.map(f64::to_bits);
    there.then(|| (limits.memory_bytes, limits.cpus.to_bits(), init_cpus, limits.processes_max))
}

impl KeptGroups {
    /// Takes the most recently used group with these limits, if there is one.
    pub(in crate::linux) fn take(&self, limits: &Limits) -> Option<KeptGroup> {
        let wanted = key(limits)?;
        let mut kept = self.kept();
        let found = kept.iter().rposition(|(key, _)| *key == wanted)?;
        Some(kept.remove(found).1)
    }

    /// Keeps a group. Returns the group that must be removed instead, if any.
    pub(in crate::linux) fn keep(&self, limits: &Limits, group: KeptGroup) -> Option<KeptGroup> {
        let Some(key) = key(limits) else {
            return Some(group);
        };
        let mut kept = self.kept();
        kept.push((key, group));
        (kept.len() > KEPT_MAX).then(|| kept.remove(0).1)
    }

    /// Takes out all kept groups.
    pub(in crate::linux) fn take_all(&self) -> Vec<KeptGroup> {
        self.kept().drain(..).map(|(_, group)| group).collect()
    }

    /// Returns the sandbox numbers of the kept groups.
    pub(in crate::linux) fn numbers(&self) -> BTreeSet<u32> {
        self.kept().iter().map(|(_, group)| group.number).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Key, KeptGroup)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u32) -> KeptGroup {
        KeptGroup { group: Group::default(), entrance: Entrance::default(), number, users: None }
    }

    #[test]
    fn the_same_limits_get_the_group_used_last() {
        let groups = KeptGroups::default();
        let (small, large) = (Limits::for_memory_mb(128), Limits::for_memory_mb(256));
        assert!(groups.take(&small).is_none());
        for (limits, number) in [(&small, 1), (&large, 2), (&small, 3), (&large, 4)] {
            assert!(groups.keep(limits, group(number)).is_none());
        }
        let taken = || groups.take(&small).map(|group| group.number);
        assert_eq!([taken(), taken(), taken()], [Some(3), Some(1), None]);
        assert_eq!(groups.numbers(), BTreeSet::from([2, 4]));
        assert_eq!(groups.take_all().len(), 2);
        assert!(groups.numbers().is_empty());
    }

    #[test]
    fn as_many_are_kept_as_may_be_and_the_oldest_goes() {
        let groups = KeptGroups::default();
        let limits = Limits::default();
        let most = u32::try_from(KEPT_MAX).expect("small");
        for number in 0..most {
            assert!(groups.keep(&limits, group(number)).is_none());
        }
        let surplus = groups.keep(&limits, group(most)).expect("no room");
        assert_eq!(surplus.number, 0);
        assert_eq!(groups.numbers().len(), KEPT_MAX);
    }

    #[test]
    fn limits_of_disks_are_not_kept() {
        let groups = KeptGroups::default();
        let limits = Limits { block_io: Some(crate::BlockIo::default()), ..Limits::default() };
        assert!(groups.keep(&limits, group(1)).is_some());
        assert!(groups.take(&limits).is_none());
    }
}
