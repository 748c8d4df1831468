//! Connections that are opened before it is known for which sandbox.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::client::{RemoteBackend, RemoteDriver};
use super::link::Link;
use crate::{Created, Error, Sandbox, SandboxSpec};

impl RemoteBackend {
    /// Opens a connection for a sandbox that is adopted later.
    pub(crate) async fn ahead(&self) -> Result<Ahead, Error> {
        Ok(Ahead(Link::open(&*self.connect, self.patience).await?))
    }
}

/// A connection that says nothing until it adopts a sandbox. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<Link>);

impl Ahead {
    /// As [`RemoteBackend::adopt`].
    pub(crate) async fn adopt(
        self,
        spec: &SandboxSpec,
        seed: Bytes,
        now: SystemTime,
    ) -> Result<Sandbox<Created>, Error> {
        let mut driver = RemoteDriver::new(self.0, spec);
        driver.adopt(spec, seed, now).await?;
        Ok(Sandbox::new(Box::new(driver)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::duplex;

    use super::*;
    use crate::conformance::{self, FUNCTION};
    use crate::fake::FakeBackend;
    use crate::remote::guest::Wake;
    use crate::remote::{Connect, Duplex, Server};
    use crate::{BoxFuture, Driver as _, Invocation};

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
