//! A network namespace of the host's making that is prepared for one sandbox ahead of its start.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::linux::net::netns;
use crate::linux::start::ahead::Ahead;

/// A network namespace of the host's making, prepared for one sandbox: the loopback is up, the
/// kernel memory of connections is bounded, and the Runtime API's listener exists. With it come the
/// pipes and the socket between host and sandbox. A start with it does no more than a start with a
/// loopback from the backend's own pool.
///
/// Holds nine descriptors until a sandbox takes it.
///
/// Clones are the same namespace. The first sandbox that is created with it takes it.
#[derive(Clone)]
pub struct PreparedNetwork {
    content: Arc<Mutex<Option<Ahead>>>,
    filtered: bool,
}

impl PreparedNetwork {
    /// Prepares the network namespace of the calling thread. It must not be the host's own: the
    /// thread has entered a new one before.
    ///
    /// Moves the thread into a new ipc namespace, which the sandbox gets too. So call it on a
    /// thread that ends afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] in the host's own network namespace. [`Error::Failed`] if the ipc
    /// namespace or the listener cannot be made, for example without root.
    pub fn here() -> Result<Self, Error> {
        netns::refuse_own("/proc/thread-self/ns/net")?;
        let content = Arc::new(Mutex::new(Some(Ahead::here()?)));
        Ok(Self { content, filtered: false })
    }

    /// Declares that the host filters all packets of the namespace's interfaces. A specification
    /// that demands [`Defence::FilteredNetwork`](crate::Defence::FilteredNetwork) may then have it.
    #[must_use]
    pub fn filtered(mut self) -> Self {
        self.filtered = true;
        self
    }

    pub(in crate::linux) fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Takes the namespace, with the wires to the host, for a sandbox.
    pub(in crate::linux) fn take(&self) -> Result<Ahead, Error> {
        let taken = self.content.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reason = "another sandbox has taken it: each needs one of its own";
        taken.ok_or_else(|| Error::invalid("linux.prepared_network", "a namespace", reason))
    }
}

impl fmt::Debug for PreparedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedNetwork").field("filtered", &self.filtered).finish_non_exhaustive()
    }
}
