//! What a host decides about the backend, beside each sandbox's specification.

use std::collections::BTreeSet;

use crate::linux::instance::{INSTANCES_MAX, SLOTS_MAX};
use crate::{Defence, Error};

/// What a host decides about the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The first user and group id that sandboxes have outside. Each live sandbox of this machine has one of its
    /// own, of the 16,777,216 from here on (1,024 hosts of 16,384 sandboxes); nothing inside can change its id, so
    /// that one is enough. None of them may be of a person, a service, or a range in `/etc/subuid`.
    ///
    /// The default is `0x7000_0000`, above what systemd hands out to containers. Hosts of one machine may differ:
    /// a host takes no part that a live one has.
    pub id_base: u32,
    /// Whether to work with what is left of the defences where this process is not root: user namespaces, and the
    /// control groups that are delegated to its user. [`crate::Backend::isolation`] tells what is in force then, and
    /// [`crate::Limits::isolation_min`] refuses sandboxes that need more. As root it changes nothing.
    ///
    /// The default is no: the backend refuses to start without root.
    pub rootless: bool,
    /// Defences left out though this machine has them: those of [`OPTIONAL`] only. To find out what one costs, or
    /// whether it is what refuses something.
    pub without: BTreeSet<Defence>,
    /// Whether the host's control groups lie in a scope that systemd makes and leaves to it, as is the rule on a machine that systemd
    /// runs. The scope has the name `lambda-sandbox-HOST-PID.scope` in `system.slice` and goes with the host. Root only.
    ///
    /// The default is no: the groups lie beside systemd's own.
    #[cfg(feature = "systemd")]
    pub systemd_scope: bool,
}

/// The defences that a kernel may lack and a host may leave out: each stands behind another.
pub const OPTIONAL: &[Defence] = &[Defence::FileAccess, Defence::Scope, Defence::Time];

impl Default for Settings {
    fn default() -> Self {
        Self {
            id_base: 0x7000_0000,
            rootless: false,
            without: BTreeSet::new(),
            #[cfg(feature = "systemd")]
            systemd_scope: false,
        }
    }
}

impl Settings {
    /// Sets the first user and group id of sandboxes outside.
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

    /// Allows to work without root.
    #[must_use]
    pub fn rootless(mut self) -> Self {
        self.rootless = true;
        self
    }

    /// Leaves out a defence of [`OPTIONAL`].
    #[must_use]
    pub fn without(mut self, defence: Defence) -> Self {
        self.without.insert(defence);
        self
    }

    /// Checks that the ids are nobody's by custom and fit into 32 bits, and that what is left out may be.
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

/// Ids below are of people, services and `nobody`.
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
