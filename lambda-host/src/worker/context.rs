//! What every sandbox's task of a worker needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use lambda_sandbox::{Backend, SmallFile};
use tokio::sync::watch;

use super::connection::Connection;
use super::container::own_layer;
use super::protocol::{Deployment, Epoch, WorkerEvent};
#[cfg(feature = "roles")]
use super::roles::Roles;
use super::runtime::Runtimes;
use crate::code::{CodeDigest, CodeLease, CodeStore};
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
    /// Whether published versions that are asked to start from snapshots do.
    pub(super) snapshots: bool,
    /// Connects sandboxes to network interfaces.
    pub(super) interfaces: Option<Arc<dyn InterfaceProvider>>,
    pub(super) epoch: Epoch,
    /// How many tasks run.
    pub(super) running: watch::Sender<usize>,
    pub(super) connection: OnceLock<Connection>,
    /// Layers with files that the host adds to container images, by name; few, as the host decides
    /// on their contents. They are held as long as the worker, so that roots mounted with them
    /// serve later sandboxes.
    pub(super) own_layers: Mutex<BTreeMap<String, CodeLease>>,
}

impl Context {
    /// Sends an event to the host.
    pub(super) async fn tell(&self, event: WorkerEvent) {
        if let Some(connection) = self.connection.get() {
            // An error means that the host has ended: nobody listens.
            connection.send(self.epoch, event).await.unwrap_or_default();
        }
    }

    /// Returns whether sandboxes of a deployment start from a snapshot. One would have the
    /// credentials of a role in it.
    pub(super) fn snap_starts(&self, deployment: &Deployment) -> bool {
        #[cfg(feature = "roles")]
        let has_roles = self.roles.is_some();
        #[cfg(not(feature = "roles"))]
        let has_roles = false;
        self.snapshots && !has_roles && deployment.snap_starts()
    }

    /// Holds the layer with these files, which need not be written yet.
    pub(super) fn own_layer(&self, files: &[SmallFile]) -> CodeLease {
        let name = own_layer(files);
        let mut layers = self.own_layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.entry(name).or_insert_with_key(|name| self.code.lease_layer(name)).clone()
    }

    /// Fetches the archive of code that this worker lacks.
    pub(super) async fn fetch(&self, digest: &CodeDigest) -> Result<Bytes, Error> {
        let connection = self.connection.get().ok_or(Error::Stopping)?;
        connection.code().fetch(digest).await
    }
}
