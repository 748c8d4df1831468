//! What every sandbox's task of a worker needs.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lambda_sandbox::Backend;
use tokio::sync::watch;

use super::connection::Connection;
use super::protocol::{Epoch, WorkerEvent};
#[cfg(feature = "roles")]
use super::roles::Roles;
use super::runtime::Runtimes;
use crate::code::{CodeDigest, CodeStore};
use crate::error::Error;
use crate::network::InterfaceProvider;

/// What the tasks of one worker share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) runtimes: Arc<Runtimes>,
    pub(super) code: CodeStore,
    /// The bandwidth of streamed answers ([`lambda_sandbox::Limits::stream_bytes_per_second`]).
    pub(super) stream_bytes_per_second: Option<u64>,
    #[cfg(feature = "roles")]
    pub(super) roles: Option<Arc<Roles>>,
    /// Connects sandboxes to network interfaces.
    pub(super) interfaces: Option<Arc<dyn InterfaceProvider>>,
    pub(super) epoch: Epoch,
    /// How many tasks run.
    pub(super) running: watch::Sender<usize>,
    pub(super) connection: OnceLock<Connection>,
}

impl Context {
    /// Sends an event to the host.
    pub(super) async fn tell(&self, event: WorkerEvent) {
        if let Some(connection) = self.connection.get() {
            // An error means that the host has ended: nobody listens.
            connection.send(self.epoch, event).await.unwrap_or_default();
        }
    }

    /// Fetches the archive of code that this worker lacks.
    pub(super) async fn fetch(&self, digest: &CodeDigest) -> Result<Bytes, Error> {
        let connection = self.connection.get().ok_or(Error::Stopping)?;
        connection.code().fetch(digest).await
    }
}
