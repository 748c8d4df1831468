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

#[cfg(all(test, feature = "vm"))]
mod tests {
    use std::io;
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use tokio::io::duplex;

    use super::*;
    use crate::conformance::{self, FUNCTION};
    use crate::fake::FakeBackend;
    use crate::remote::{Connect, Duplex, RemoteBackend, Server};
    use crate::{BoxFuture, Created, Invocation, Sandbox};

    /// A machine that does as if it could be woken.
    #[derive(Debug)]
    struct Machine(Server);

    #[derive(Debug)]
    struct Woken;

    impl Wake for Woken {
        fn wake(&self, _seed: &[u8], _now: SystemTime) -> io::Result<()> {
            Ok(())
        }
    }

    impl Connect for Machine {
        fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
            let (ours, theirs) = duplex(1 << 16);
            let server = self.0.clone();
            tokio::spawn(async move { server.serve(theirs).await });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn Duplex>) })
        }
    }

    async fn machine() -> (FakeBackend, RemoteBackend) {
        let fake = FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler);
        let server = Server::new(Arc::new(fake.clone()), Arc::new(Woken));
        let backend = RemoteBackend::connect(Machine(server)).await.expect("connected");
        (fake, backend)
    }

    async fn echo(sandbox: Sandbox<Created>) {
        let (idle, _) = sandbox.init().await.expect("restored");
        let event = Invocation::new("id", r#"{"do": "echo"}"#, Duration::from_secs(5));
        let (outcome, busy) = idle.invoke(event).await.expect("invoked");
        assert!(outcome.answer.leaves_usable(), "{outcome:?}");
        busy.expect("usable").settle().await.expect("settled").destroy().await.expect("destroyed");
    }

    #[tokio::test]
    async fn a_connection_adopts_what_it_has_parked() {
        let (fake, backend) = machine().await;
        let spec = conformance::fake_spec();
        let seed = Bytes::from(vec![7; 64]);
        let mut driver = backend.create_to_park(spec.clone()).await.expect("made");
        let killer = driver.killer();
        driver.init().await.expect("init");
        driver.park().await.expect("parked");
        driver.adopt(&spec, seed.clone(), SystemTime::now()).await.expect("adopted");
        echo(Sandbox::new(Box::new(driver))).await;
        drop(killer);
        assert_eq!(fake.live(), 0);
        // One that is parked is killed by the handle from before.
        let mut driver = backend.create_to_park(spec.clone()).await.expect("made");
        let killer = driver.killer();
        driver.init().await.expect("init");
        driver.park().await.expect("parked");
        killer.kill();
        driver.adopt(&spec, seed, SystemTime::now()).await.expect("adopted");
        let (idle, _) = Sandbox::new(Box::new(driver)).init().await.expect("no hooks");
        let event = Invocation::new("id", r#"{"do": "echo"}"#, Duration::from_secs(5));
        let ended = idle.invoke(event).await;
        assert!(!ended.is_ok_and(|(outcome, _)| outcome.answer.leaves_usable()), "it was killed");
    }

    #[tokio::test]
    async fn a_connection_that_was_opened_ahead_adopts_what_another_has_parked() {
        let (fake, backend) = machine().await;
        let (spec, seed) = (conformance::fake_spec(), Bytes::from(vec![7; 64]));
        let ahead = backend.ahead().await.expect("open");
        backend.park(spec.clone()).await.expect("parked");
        echo(ahead.adopt(&spec, seed, SystemTime::now()).await.expect("adopted")).await;
        assert_eq!(fake.live(), 0);
    }
}
