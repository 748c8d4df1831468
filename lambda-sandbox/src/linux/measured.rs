//! Control groups without sandboxes, for benches (`benches/benches/{groups,emulator}.rs`). Not part
//! of the public interface.

use std::os::fd::{AsRawFd as _, RawFd};

use super::group::cgroup::{Entrance, Group, Hierarchies, remove_folder};
use crate::{Error, Limits};

/// A group in every hierarchy, with limits.
#[derive(Debug)]
pub struct MeasuredGroup {
    group: Group,
    entrance: Entrance,
}

impl MeasuredGroup {
    /// Makes the group `host/name` and sets the limits.
    ///
    /// # Errors
    ///
    /// If the group cannot be made.
    pub fn make(
        hierarchies: &Hierarchies,
        host: &str,
        name: &str,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let group = Group::make(hierarchies, host, name, limits, &Default::default())?;
        let entrance = group.entrance()?;
        Ok(Self { group, entrance })
    }

    /// Returns the open `tasks` files of version 1. A process joins by writing `0` to them.
    #[must_use]
    pub fn tasks(&self) -> Vec<RawFd> {
        self.entrance.tasks.iter().map(|(_, file)| file.as_raw_fd()).collect()
    }

    /// Freezes the group's processes, or thaws them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn freeze(&self, freeze: bool) -> Result<(), Error> {
        self.group.freeze(freeze)
    }

    /// Removes the group.
    ///
    /// # Errors
    ///
    /// If a process is in it.
    pub fn remove(&self) -> Result<(), Error> {
        self.group.remove()
    }

    /// Removes the host's group, which contained the group.
    ///
    /// # Errors
    ///
    /// If a group is in it.
    pub fn remove_host(hierarchies: &Hierarchies, host: &str) -> Result<(), Error> {
        hierarchies.roots().iter().try_for_each(|root| remove_folder(&root.join(host)))
    }
}
