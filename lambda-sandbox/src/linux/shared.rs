//! What the sandboxes of a host share.

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

/// Lives as long as the last sandbox.
pub(super) struct Shared {
    pub(super) slots: Arc<Slots>,
    pub(super) defences: Defences,
    pub(super) isolation: Isolation,
    pub(super) inits: Inits,
    pub(super) images: Images,
    pub(super) templates: Templates,
    pub(super) filters: Filters,
    pub(super) ahead: Option<Pool>,
    /// Whether somebody is about to have the pool filled.
    pub(super) refilling: AtomicBool,
    pub(super) spawner: Spawner,
    /// What mounts `/proc`; nothing without root, where it depends on the root.
    pub(super) processes: Arc<[Step]>,
    pub(super) janitor: Janitor,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Does work that blocks, on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)?
}
