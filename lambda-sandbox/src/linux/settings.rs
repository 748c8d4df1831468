//! The settings of a backend, which hold for all of its sandboxes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::linux::instance::{INSTANCES_MAX, SLOTS_MAX};
use crate::{Defence, Error};

/// The settings of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The first user and group id that sandboxes have outside. Each live sandbox of this machine
    /// has one id of its own, from the range of 16,777,216 ids that starts here (1,024 hosts with
    /// 16,384 sandboxes each). One id is enough, because nothing inside can change its id. No id of
    /// the range may belong to a person, a service, or a range in `/etc/subuid`.
    ///
    /// The default is `0x7000_0000`, above the ids that systemd gives to containers. Hosts of one
    /// machine may have different values: a host never takes ids that a live host uses.
    pub id_base: u32,
    /// Whether the backend may work without root, with fewer defences: user namespaces, and the
    /// control groups that are delegated to the user. [`crate::Backend::isolation`] returns the
    /// defences in force then, and [`crate::Limits::isolation_min`] refuses sandboxes that need
    /// more. As root it has no effect.
    ///
    /// By default the backend refuses to start without root.
    pub rootless: bool,
    /// Defences that are not applied though this machine has them; only those of [`OPTIONAL`]. It
    /// serves to find out what a defence costs, or whether it refuses something.
    pub without: BTreeSet<Defence>,
    /// The folder on a disk for the scratch space of sandboxes. With it `/tmp` of each sandbox is a
    /// file system (ext4) in a sparse file of its own, without a name, and what it holds does not
    /// use up the sandbox's memory. The files of all sandboxes together may need more room than the
    /// disk has: writes fail then. It needs root, loop devices and mkfs.ext4. The kernel's log gets
    /// two lines for each sandbox.
    ///
    /// By default the scratch space is in memory (tmpfs), and counts towards the memory limit.
    pub scratch_folder: Option<PathBuf>,
    /// Whether systemd makes a scope for the host's control groups and delegates it, which is the
    /// rule on a machine that systemd runs. The scope has the name `lambda-sandbox-HOST-PID.scope`
    /// in `system.slice`, and ends with the host. It needs root.
    ///
    /// By default the groups are beside systemd's own.
    #[cfg(feature = "systemd")]
    pub systemd_scope: bool,
}

/// The defences that a kernel may lack and that a host may leave out. Each is a second barrier
/// behind another.
pub const OPTIONAL: &[Defence] = &[Defence::FileAccess, Defence::Scope, Defence::Time];

impl Default for Settings {
    fn default() -> Self {
        Self {
            id_base: 0x7000_0000,
            rootless: false,
            without: BTreeSet::new(),
            scratch_folder: None,
            #[cfg(feature = "systemd")]
            systemd_scope: false,
        }
    }
}

impl Settings {
    /// Sets the first user and group id that sandboxes have outside.
    #[must_use]
    pub fn with_id_base(mut self, id_base: u32) -> Self {
        self.id_base = id_base;
        self
    }

    /// Has systemd make a scope for the host's control groups.
    #[cfg(feature = "systemd")]
    #[must_use]
    pub fn in_systemd_scope(mut self) -> Self {
        self.systemd_scope = true;
        self
    }

    /// Allows the backend to work without root.
    #[must_use]
    pub fn rootless(mut self) -> Self {
        self.rootless = true;
        self
    }

    /// Puts the scratch space of sandboxes on the disk of this folder.
    #[must_use]
    pub fn with_scratch_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch_folder = Some(folder.into());
        self
    }

    /// Leaves out a defence of [`OPTIONAL`].
    #[must_use]
    pub fn without(mut self, defence: Defence) -> Self {
        self.without.insert(defence);
        self
    }

    /// Checks that the ids are above those of people and services and fit into 32 bits, and that
    /// only optional defences are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        let last = self.id_base.checked_add(INSTANCES_MAX * SLOTS_MAX);
        if self.id_base < ID_BASE_MIN || last.is_none() {
            return Err(Error::invalid(
                "id_base",
                self.id_base.to_string(),
                format!(
                    "from {ID_BASE_MIN} on, and with {} ids behind it",
                    INSTANCES_MAX * SLOTS_MAX
                ),
            ));
        }
        match self.without.iter().find(|defence| !OPTIONAL.contains(defence)) {
            None => Ok(()),
            Some(defence) => Err(Error::invalid(
                "without",
                format!("{defence:?}"),
                format!("only {OPTIONAL:?} may be left out"),
            )),
        }
    }
}

/// Lower ids belong to people, services and `nobody`.
const ID_BASE_MIN: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unprivileged_and_fit() {
        let check = |base: u32, good: bool| {
            let checked = Settings::default().with_id_base(base).check();
            assert_eq!(checked.is_ok(), good, "{base}: {checked:?}");
        };
        check(Settings::default().id_base, true);
        check(0, false);
        check(1000, false);
        check(65_535, false);
        check(65_536, true);
        check(u32::MAX - INSTANCES_MAX * SLOTS_MAX, true);
        check(u32::MAX - INSTANCES_MAX * SLOTS_MAX + 1, false);
    }

    #[test]
    fn what_everything_rests_on_cannot_be_left_out() {
        assert!(Settings::default().without(Defence::Time).check().is_ok());
        assert!(Settings::default().without(Defence::FileSystem).check().is_err());
    }
}
