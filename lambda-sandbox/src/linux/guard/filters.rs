//! The compiled system call filters of a host, one for each profile.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::linux::guard::filter::compile;
use crate::linux::guard::profile::SystemCalls;
use crate::linux::sys::sealed_file;

/// The compiled filters of the profiles other than the default, each compiled at its first use.
#[derive(Debug, Default)]
pub(in crate::linux) struct Filters(Mutex<BTreeMap<SystemCalls, Arc<OwnedFd>>>);

impl Filters {
    /// Returns the filter of a profile, or `None` for the default, which the spawn thread holds.
    pub(in crate::linux) fn of(&self, profile: SystemCalls) -> Result<Option<Arc<OwnedFd>>, Error> {
        if profile == SystemCalls::Default {
            return Ok(None);
        }
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filters) = made.get(&profile) {
            return Ok(Some(Arc::clone(filters)));
        }
        let file = sealed_file(c"sandbox-filters", &compile(profile))
            .map_err(|source| Error::step("making a file in memory", source))?;
        let filters = Arc::new(file);
        made.insert(profile, Arc::clone(&filters));
        Ok(Some(filters))
    }
}
