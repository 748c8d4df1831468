//! How much an account may keep: numbers of versions, aliases and other resources, and the bytes of
//! its archives.

use super::Inner;
use super::record::Record;
use crate::error::Error;

/// AWS's limit of all archives of an account together, in bytes.
pub(crate) const CODE_BYTES_MAX: u64 = 75 << 30;
/// Lambda has no limit of these but that of the archives. A host keeps them in memory.
const VERSIONS_MAX: usize = 10_000;
const ALIASES_MAX: usize = 1_000;
const FUNCTIONS_MAX: usize = 100_000;
pub(crate) const LAYER_VERSIONS_MAX: usize = 10_000;
pub(crate) const MAPPINGS_MAX: usize = 10_000;
pub(crate) const SIGNING_CONFIGS_MAX: usize = 1_000;

impl Inner {
    /// Refuses a change of a function after which the account would keep more than it may. A change
    /// that makes nothing more passes.
    pub(super) fn check_bounds(
        &self,
        before: Option<&Record>,
        after: &Record,
    ) -> Result<(), Error> {
        let more = |of: fn(&Record) -> usize, max: usize, what: &'static str| {
            let count = of(after);
            check_count(count, count > before.map_or(0, of), max, what)
        };
        more(|it| it.versions.len(), VERSIONS_MAX, "versions of a function")?;
        more(|it| it.attachments.aliases.len(), ALIASES_MAX, "aliases of a function")?;
        if before.is_none() {
            check_count(self.read().len() + 1, true, FUNCTIONS_MAX, "functions")?;
        }
        let (old, new) = (before.map_or(0, Record::code_bytes), after.code_bytes());
        match new > old {
            true => self.check_code_bytes(new - old),
            false => Ok(()),
        }
    }

    /// Refuses archives of `more` bytes when the account would have too many.
    pub(crate) fn check_code_bytes(&self, more: u64) -> Result<(), Error> {
        match self.code_bytes().saturating_add(more) > self.settings.code_bytes_max {
            true => Err(Error::TooLarge {
                what: "code storage",
                reason: "Code storage limit exceeded.".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

/// Refuses one more of something of which there are as many as may be.
pub(crate) fn check_count(
    count: usize,
    grows: bool,
    max: usize,
    what: &'static str,
) -> Result<(), Error> {
    match grows && count > max {
        true => Err(Error::parameter(format!("The limit of {what} is {max}."))),
        false => Ok(()),
    }
}
