//! What all machines of a backend have in common.

use std::collections::BTreeSet;
use std::io::Read as _;

use bytes::Bytes;

use super::blocking::blocking;
use super::events::Teller;
use super::machine::Machine;
use super::monitor::Parts;
use super::snapshots::{Key, Snapshots};
use crate::remote::RemoteBackend;
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
}

/// Returns random bytes for a restored machine.
pub(super) fn seed() -> Result<Bytes, Error> {
    let mut seed = [0; SEED_BYTES];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    read.map_err(|source| Error::failed("reading random bytes", "/dev/urandom", source))?;
    Ok(Bytes::copy_from_slice(&seed))
}

const SEED_BYTES: usize = 64;
