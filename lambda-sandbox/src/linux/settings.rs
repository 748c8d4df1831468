//! What a host decides about the backend, beside each sandbox's specification.

use super::instance::{INSTANCES_MAX, SLOTS_MAX};
use crate::Error;

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
}

impl Default for Settings {
    fn default() -> Self {
        Self { id_base: 0x7000_0000 }
    }
}

impl Settings {
    /// Sets the first user and group id of sandboxes outside.
    #[must_use]
    pub fn with_id_base(mut self, id_base: u32) -> Self {
        self.id_base = id_base;
        self
    }

    /// Checks that the ids are nobody's by custom, and fit into 32 bits.
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
        Ok(())
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
}
