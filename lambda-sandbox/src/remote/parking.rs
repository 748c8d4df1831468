//! A sandbox without a connection: it was parked after its init, so that its machine can be saved
//! and restored, and waits until a connection adopts it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::forward::Forward;
use super::guest::Wake;
use super::message::Awakening;
use crate::{Driver, Error};

/// The place for one parked sandbox.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// What wakes the machine. Without it nothing can be parked.
    wake: Option<Arc<dyn Wake>>,
    parked: Mutex<Option<Parked>>,
}

/// A sandbox that no connection has.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) driver: Box<dyn Driver>,
    pub(super) forward: Arc<Forward>,
    pub(super) payload_bytes_max: usize,
}

impl Parking {
    pub(super) fn new(wake: Arc<dyn Wake>) -> Self {
        Self { wake: Some(wake), parked: Mutex::default() }
    }

    /// Checks that a sandbox can be parked.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refused = |why: &str| {
            let (what, remedy) = ("a parked sandbox", "use a guest of the backend of machines");
            Err(Error::Unavailable { what, why: why.into(), remedy })
        };
        if self.wake.is_none() {
            return refused("the server has nothing that wakes its machine");
        }
        if self.place().is_some() {
            return refused("another one is parked");
        }
        Ok(())
    }

    /// Parks a sandbox. One that is there already ends.
    pub(super) fn park(&self, parked: Parked) {
        *self.place() = Some(parked);
    }

    /// Wakes the machine, and only then gives the sandbox out.
    pub(super) fn adopt(&self, awakening: &Awakening) -> Result<Parked, Error> {
        let none = || Error::step("adopting a sandbox", std::io::Error::other("none is parked"));
        let mut place = self.place();
        if place.is_none() {
            return Err(none());
        }
        let wake = self.wake.as_ref().ok_or_else(none)?;
        let woken = wake.wake(&awakening.seed, awakening.now);
        woken.map_err(|source| Error::step("seeding a restored machine and its clock", source))?;
        place.take().ok_or_else(none)
    }

    fn place(&self) -> MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
