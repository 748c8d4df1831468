//! The driver of a sandbox in a machine of its own: passes every call on to the sandbox inside.

use std::time::Duration;

use super::machine::Machine;
use crate::{
    BoxFuture, Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer,
    Outcome, Pressure, ShutdownReason,
};

/// The driver of a sandbox in a machine of its own. Dropping it ends the machine.
#[derive(Debug)]
pub(super) struct VmDriver {
    inside: Box<dyn Driver>,
    machine: Option<Machine>,
}

impl VmDriver {
    pub(super) fn new(inside: Box<dyn Driver>, machine: Machine) -> Self {
        Self { inside, machine: Some(machine) }
    }
}

impl Driver for VmDriver {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        self.inside.init()
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

    /// The machine runs on in the background while extensions have their time.
    fn abandon(&mut self, reason: ShutdownReason) {
        self.inside.abandon(reason);
        if let (Some(machine), Ok(runtime)) =
            (self.machine.take(), tokio::runtime::Handle::try_current())
        {
            drop(runtime.spawn(async move {
                tokio::time::sleep(ABANDONED_TIME).await;
                machine.end().await;
            }));
        }
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
        self.inside.run()
    }

    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()> {
        self.inside.shutdown(reason)
    }

    /// The end of the machine releases what the sandbox inside holds.
    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Self { inside, machine } = *self;
            drop(inside);
            if let Some(machine) = machine {
                machine.end().await;
            }
            Ok(())
        })
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

/// How long the machine of an abandoned sandbox runs on: Lambda gives extensions two seconds.
const ABANDONED_TIME: Duration = Duration::from_secs(3);
