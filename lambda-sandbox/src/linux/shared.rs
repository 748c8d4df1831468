//! State that the sandboxes of a host share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::linux::features::Defences;
use crate::linux::guard::filters::Filters;
use crate::linux::inits::Inits;
use crate::linux::janitor::Janitor;
use crate::linux::root::image::Images;
use crate::linux::root::template::Templates;
use crate::linux::slots::Slots;
use crate::linux::start::ahead::Pool;
use crate::linux::start::plan::Step;
use crate::linux::start::spawn::Spawner;
use crate::{Error, Isolation};

/// The state of a host. It lives until the host and its last sandbox are dropped.
pub(super) struct Shared {
    pub(super) slots: Arc<Slots>,
    pub(super) defences: Defences,
    pub(super) isolation: Isolation,
    pub(super) inits: Inits,
    pub(super) images: Images,
    pub(super) templates: Templates,
    pub(super) filters: Filters,
    pub(super) ahead: Option<Pool>,
    /// Whether a refill of the pool is scheduled.
    pub(super) refilling: AtomicBool,
    pub(super) spawner: Spawner,
    /// The steps that mount `/proc`; empty without root, where they depend on the specification.
    pub(super) processes: Arc<[Step]>,
    pub(super) janitor: Janitor,
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
