//! The driver of a sandbox in a virtual machine: passes every call on to the sandbox inside.

use std::fmt;
use std::time::Duration;

use crate::{
    BoxFuture, Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer,
    Outcome, Pressure, ShutdownReason,
};

/// The driver of a sandbox in a virtual machine. Dropping it ends the sandbox, and releases what
/// it holds of the host.
#[derive(Debug)]
pub(super) struct VmDriver {
    inside: Box<dyn Driver>,
    holds: Option<Box<dyn Holds>>,
}

/// What a sandbox in a virtual machine holds of the host. Dropping it releases it, too.
pub(super) trait Holds: Send + fmt::Debug {
    /// Returns whether its release ends the sandbox, which must end before otherwise.
    fn ends_sandbox(&self) -> bool;

    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl VmDriver {
    pub(super) fn new(inside: Box<dyn Driver>, holds: impl Holds + 'static) -> Self {
        Self { inside, holds: Some(Box::new(holds)) }
    }
}

impl Driver for VmDriver {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        self.inside.init()
    }

    fn restore(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        self.inside.restore()
    }

    fn is_restored(&self) -> bool {
        self.inside.is_restored()
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
                Some(holds) if holds.ends_sandbox() => {
                    drop(inside);
                    Ok(())
                }
                _ => inside.destroy().await,
            };
            if let Some(holds) = holds {
                match &destroyed {
                    Ok(()) => holds.release().await,
                    // The sandbox may not have ended.
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
