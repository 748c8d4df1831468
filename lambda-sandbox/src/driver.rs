//! The trait by which a backend controls one sandbox, and the handle that ends a sandbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    BoxFuture, Error, Finished, Handle, InitFailure, InitReport, Invocation, Outcome, Pressure,
    ShutdownReason,
};

/// Controls one sandbox. The author of a backend implements it, and [`Sandbox`](crate::Sandbox)
/// calls it in the right order.
///
/// An implementation can rely on this order: `init` once, then `invoke` and `settle` in turn, with
/// `freeze` after a `settle` or not; or `run` once instead of all of them. After an `init`, a
/// `settle` or a `freeze` that failed, or an `invoke` whose answer does not leave the sandbox
/// usable ([`crate::Answer::leaves_usable`]), comes `abandon`, or `reset` and `init` again.
/// `destroy` comes last, at any point. After a method that ended the sandbox only `destroy` is
/// called.
///
/// An implementation guarantees: dropping the driver, or the future of any method, ends the sandbox
/// at any time and releases its resources, in the background if that takes time.
pub trait Driver: Send + fmt::Debug {
    /// Starts the runtime, waits until it and its extensions ask for their first event, and
    /// freezes.
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>>;

    /// Lets a sandbox go on that was restored from a snapshot after its init: thaws it, lets the
    /// runtime run its hooks (`restore/next` of the Runtime API), and freezes it again. Called at
    /// most once, between `init` and the first `invoke`.
    fn restore(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(async { Ok(InitReport::default()) })
    }

    /// Returns whether the sandbox was restored from a snapshot, so that `init` runs the hooks
    /// after a restore.
    fn is_restored(&self) -> bool {
        false
    }

    /// Thaws if it is frozen, hands over `invocation` and waits for its end, for its timeout at
    /// most.
    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>>;

    /// Waits until the runtime and the extensions ask for the next event. The programs may go on
    /// running until [`Driver::freeze`].
    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>>;

    /// Freezes a sandbox that has settled. A backend that cannot freeze does nothing.
    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>>;

    /// Ends a sandbox whose init or invocation failed. Does not wait: registered extensions get the
    /// SHUTDOWN event and their time in the background.
    fn abandon(&mut self, _reason: ShutdownReason) {}

    /// Sets the time limit of the next init.
    fn set_init_limit(&mut self, _limit: Duration) {}

    /// Returns whether [`Driver::reset`] may work.
    fn can_reset(&self) -> bool {
        false
    }

    /// Gives extensions the SHUTDOWN event and their time, ends every program, and keeps the files,
    /// so that `init` can follow.
    fn reset(&mut self, _reason: ShutdownReason) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(Error::Ended) })
    }

    /// Runs the program to its end, without the Runtime API.
    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>>;

    /// Sends extensions the SHUTDOWN event and waits for them, for the specification's time at
    /// most.
    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()>;

    /// Ends everything inside at once, and waits until all resources are released.
    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;

    /// Returns how long processes inside have stalled, or `None` if the backend does not measure
    /// it.
    fn pressure(&self) -> Option<Pressure> {
        None
    }

    /// Returns a handle to the living sandbox, or `None` if the backend has none.
    fn handle(&self) -> Option<Handle> {
        None
    }

    /// Returns a handle that ends everything inside, from any thread at any time.
    fn killer(&self) -> Killer;
}

/// Ends a sandbox from anywhere, even while it is busy. After the sandbox has ended it does
/// nothing.
#[derive(Clone)]
pub struct Killer(Arc<dyn Fn() + Send + Sync>);

impl Killer {
    /// Makes a handle of a function. The function may be called several times, and from any thread.
    pub fn new(kill: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(kill))
    }

    /// Ends everything inside the sandbox. A pending call of the sandbox reports that the program
    /// was killed.
    pub fn kill(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Killer")
    }
}
