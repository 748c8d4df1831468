//! Control groups alone, for the bench that compares them with other libraries' (`benches/benches/groups.rs`). Not a part of the interface.

use std::os::fd::{AsRawFd as _, RawFd};

use super::group::cgroup::{Entrance, Group, Hierarchies, remove_folder};
use crate::{Error, Limits};

/// One group in every hierarchy, with its limits.
#[derive(Debug)]
pub struct MeasuredGroup {
    group: Group,
    entrance: Entrance,
}

impl MeasuredGroup {
    /// Makes `host/name` and sets the limits.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
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

    /// Returns the files that a process writes `0` to, to join: those of version 1.
    #[must_use]
    pub fn tasks(&self) -> Vec<RawFd> {
        self.entrance.tasks.iter().map(|(_, file)| file.as_raw_fd()).collect()
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// When a process is in it.
    pub fn remove(&self) -> Result<(), Error> {
        self.group.remove()
    }

    /// Removes the host's group, in which it lay.
    ///
    /// # Errors
    ///
    /// When a group is in it.
    pub fn remove_host(hierarchies: &Hierarchies, host: &str) -> Result<(), Error> {
        hierarchies.roots().iter().try_for_each(|root| remove_folder(&root.join(host)))
    }
}
