//! State that the sandboxes of a host share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::linux::features::Defences;
use crate::linux::guard::filters::Filters;
use crate::linux::inits::Inits;
use crate::linux::janitor::Janitor;
use crate::linux::root::image::Images;
use crate::linux::root::scratch::{Disk, Disks};
use crate::linux::root::template::Templates;
use crate::linux::slots::Slots;
use crate::linux::start::ahead::Pool;
use crate::linux::start::plan::Step;
use crate::linux::start::spawn::Spawner;
use crate::{Error, Isolation, Limits};

/// The state of a host. It lives until the host and its last sandbox are dropped.
pub(super) struct Shared {
    pub(super) slots: Arc<Slots>,
    pub(super) defences: Defences,
    pub(super) isolation: Isolation,
    pub(super) inits: Inits,
    pub(super) images: Images,
    pub(super) templates: Templates,
    pub(super) filters: Filters,
    /// Scratch spaces on disk; `None` where they are in memory.
    pub(super) disks: Option<Disks>,
    pub(super) ahead: Option<Pool>,
    /// Whether a refill of the pool is scheduled.
    pub(super) refilling: AtomicBool,
    pub(super) spawner: Spawner,
    /// The steps that mount `/proc`; empty without root, where they depend on the specification.
    pub(super) processes: Arc<[Step]>,
    pub(super) janitor: Janitor,
}

impl Shared {
    /// Returns a scratch space on disk, or `None` where they are in memory.
    pub(super) async fn disk(&self, limits: &Limits) -> Result<Option<Disk>, Error> {
        let Some(disks) = &self.disks else { return Ok(None) };
        let size = (limits.scratch_bytes, limits.scratch_files_max.max(1));
        match disks.take_ready(size) {
            Some(disk) => Ok(Some(disk)),
            None => blocking(disks.maker(size)).await.map(Some),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Runs blocking work on a thread of tokio's blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)?
}
