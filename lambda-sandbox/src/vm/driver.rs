//! The driver of a sandbox in a virtual machine: passes every call on to the sandbox inside.

use std::time::Duration;

use super::machine::Machine;
use super::shared::{Held, SharedVm};
use crate::{
    BoxFuture, Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer,
    Outcome, Pressure, ShutdownReason,
};

/// The driver of a sandbox in a virtual machine. Dropping it ends the sandbox, and releases what
/// it holds of the host.
#[derive(Debug)]
pub(super) struct VmDriver {
    inside: Box<dyn Driver>,
    holds: Option<Holds>,
}

/// What a sandbox in a virtual machine holds of the host.
#[derive(Debug)]
pub(super) enum Holds {
    /// A machine of its own.
    Machine(Machine),
    /// Disks of a machine that it shares.
    Slots(Held, SharedVm),
}

impl Holds {
    /// Releases it after the sandbox has ended.
    async fn release(self) {
        match self {
            Self::Machine(machine) => machine.end().await,
            Self::Slots(held, _machine) => held.give_back(),
        }
    }
}

impl VmDriver {
    pub(super) fn new(inside: Box<dyn Driver>, holds: Holds) -> Self {
        Self { inside, holds: Some(holds) }
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
        if let (Some(holds), Ok(runtime)) =
            (self.holds.take(), tokio::runtime::Handle::try_current())
        {
            drop(runtime.spawn(async move {
                tokio::time::sleep(ABANDONED_TIME).await;
                holds.release().await;
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

    /// The end of a sandbox's own machine releases what the sandbox inside holds.
    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Self { inside, holds } = *self;
            let destroyed = match &holds {
                Some(Holds::Slots(..)) => inside.destroy().await,
                _ => {
                    drop(inside);
                    Ok(())
                }
            };
            if let Some(holds) = holds {
                match &destroyed {
                    Ok(()) => holds.release().await,
                    // The sandbox may not have ended: the disks are given back later.
                    Err(_) => drop(holds),
                }
            }
            destroyed
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
