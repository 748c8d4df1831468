//! The driver of a sandbox from whose init a snapshot is made: of the first with its name.
//!
//! After the init the sandbox is parked, frozen, and its machine saved while it stands still. Then
//! the machine gets random bytes and the time, as each that is restored from the snapshot does, and
//! the runtime runs its hooks. If the machine cannot be saved, it goes on all the same.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedMutexGuard;

use super::base::{Base, seed};
use super::blocking::blocking;
use super::clones::{Clones, Source};
use super::events::VmEvent;
use super::machine::Saver;
use super::snapshots::{Key, Snapshots};
use crate::remote::RemoteDriver;
use crate::{
    BoxFuture, Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer,
    Outcome, Pressure, SandboxSpec, ShutdownReason,
};

/// The driver of a sandbox from whose init a snapshot is made.
#[derive(Debug)]
pub(super) struct FirstDriver {
    inside: RemoteDriver,
    /// Until the first init.
    making: Option<Making>,
}

/// What a snapshot is made with.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) base: Arc<Base>,
    pub(super) clones: Arc<Clones>,
    pub(super) key: Key,
    pub(super) source: Source,
    pub(super) spec: SandboxSpec,
    pub(super) saver: Saver,
    /// Held so that others wait for the snapshot.
    pub(super) turn: OwnedMutexGuard<()>,
}

impl FirstDriver {
    pub(super) fn new(inside: RemoteDriver, making: Making) -> Self {
        Self { inside, making: Some(making) }
    }

    async fn init_and_save(&mut self) -> Result<InitReport, InitFailure> {
        // After a reset, files of the earlier init are there: no snapshot is made then.
        let Some(making) = self.making.take() else { return self.inside.init().await };
        let report = self.inside.init().await?;
        self.inside.park().await?;
        let Making { base, clones, key, source, spec, saver, turn } = making;
        let (snapshots, at) = (base.snapshots.clone(), key.clone());
        let (saved, resumed) = blocking(move || {
            let saved = save(&saver, &snapshots, &at);
            // It may not have been stopped.
            (saved, saver.resume())
        })
        .await?;
        resumed?;
        let name = source.name.clone();
        match saved {
            Ok(duration) => {
                base.teller.tell(VmEvent::SnapshotMade { name, duration });
                clones.want(key, source);
            }
            Err(error) => {
                let error = Arc::new(error);
                base.teller.tell(VmEvent::SnapshotFailed { name, error });
            }
        }
        drop(turn);
        self.inside.adopt(&spec, seed()?, SystemTime::now()).await?;
        // Runs the hooks, because it was adopted.
        let hooks = self.inside.init().await?;
        Ok(InitReport { duration: report.duration + hooks.duration, is_restored: false, ..report })
    }
}

/// Writes and keeps a snapshot. Returns how long that took. Blocks.
fn save(saver: &Saver, snapshots: &Snapshots, key: &Key) -> Result<Duration, Error> {
    let began = Instant::now();
    let writing = snapshots.begin()?;
    saver.save(&writing.files)?;
    snapshots.keep(writing, key)?;
    Ok(began.elapsed())
}

impl Driver for FirstDriver {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(self.init_and_save())
    }

    fn restore(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        self.inside.restore()
    }

    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>> {
        self.inside.invoke(invocation)
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.inside.settle()
    }

    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.inside.freeze()
    }

    fn abandon(&mut self, reason: ShutdownReason) {
        self.inside.abandon(reason);
    }

    fn set_init_limit(&mut self, limit: Duration) {
        self.inside.set_init_limit(limit);
    }

    fn can_reset(&self) -> bool {
        self.inside.can_reset()
    }

    fn reset(&mut self, reason: ShutdownReason) -> BoxFuture<'_, Result<(), Error>> {
        self.inside.reset(reason)
    }

    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>> {
        self.making = None;
        self.inside.run()
    }

    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()> {
        self.inside.shutdown(reason)
    }

    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::new(self.inside).destroy()
    }

    fn pressure(&self) -> Option<Pressure> {
        self.inside.pressure()
    }

    fn handle(&self) -> Option<Handle> {
        self.inside.handle()
    }

    fn killer(&self) -> Killer {
        self.inside.killer()
    }
}
