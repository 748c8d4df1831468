//! What all machines of a backend have in common.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blocking::blocking;
use super::events::Teller;
use super::machine::Machine;
use super::monitor::Parts;
use super::snapshots::{Key, Snapshots};
use crate::remote::{Ahead, RemoteBackend};
use crate::{Capability, Error, Isolation};

/// What all machines of a backend have in common.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) parts: Parts,
    pub(super) snapshots: Snapshots,
    pub(super) isolation: Isolation,
    pub(super) capabilities: BTreeSet<Capability>,
    pub(super) teller: Teller,
}

impl Base {
    /// Does something with the files of snapshots, on a thread that may block.
    pub(super) async fn in_snapshots<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Snapshots, &Key) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (snapshots, key) = (self.snapshots.clone(), key.clone());
        blocking(move || work(&snapshots, &key)).await?
    }

    /// Returns the agent of a machine, which is like that of any other machine of this backend.
    pub(super) fn agent(&self, machine: &Machine) -> RemoteBackend {
        let (isolation, capabilities) = (self.isolation.clone(), self.capabilities.clone());
        let patience = self.parts.settings.patience;
        RemoteBackend::known(machine.way(), patience, isolation, capabilities)
    }

    /// Connects to the agent of a restored machine. Its kernel takes a new connection for one from
    /// before the snapshot, and refuses it, until the agent has closed that one: monitors give
    /// connections the same numbers. So it is tried again for a time.
    pub(super) async fn connect(&self, machine: &Machine) -> Result<Ahead, Error> {
        let (agent, began) = (self.agent(machine), Instant::now());
        loop {
            match agent.ahead().await {
                Err(_refused) if began.elapsed() < CONNECT_TIME => {
                    tokio::time::sleep(RETRY_TIME).await;
                }
                connected => return connected,
            }
        }
    }
}

/// How long a restored agent may take to close its old connections.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const RETRY_TIME: Duration = Duration::from_millis(1);

/// Returns random bytes for a restored machine.
pub(super) fn seed() -> Result<Bytes, Error> {
    let mut seed = [0; SEED_BYTES];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    read.map_err(|source| Error::failed("reading random bytes", "/dev/urandom", source))?;
    Ok(Bytes::copy_from_slice(&seed))
}

const SEED_BYTES: usize = 64;
