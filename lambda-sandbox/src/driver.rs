//! The trait that drives one sandbox, and the handle that ends it.

use std::fmt;
use std::sync::Arc;

use crate::{
    BoxFuture, Error, Finished, Handle, InitFailure, InitReport, Invocation, Outcome, Pressure,
    ShutdownReason,
};

/// Drives one sandbox: what a backend's author implements and [`Sandbox`](crate::Sandbox) calls in the right order.
///
/// The order, which an implementor may rely on: `init` once, then `invoke` and `settle` in turn, or `run` once in
/// place of them all; `destroy` last, at any point. Nothing is called after a method that ended the sandbox but
/// `destroy`.
///
/// The implementor guarantees: dropping the driver, or the future of any method, at any time, ends the
/// sandbox and releases all that it held (in the background where it must wait).
pub trait Driver: Send + fmt::Debug {
    /// Starts the runtime and waits until it and its extensions ask for their first event; then freezes.
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>>;

    /// Thaws, hands over `invocation` and waits for its end, no longer than its timeout.
    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>>;

    /// Waits until runtime and extensions ask for the next event, then freezes.
    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>>;

    /// Runs the program to its end, without the Runtime API.
    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>>;

    /// Tells extensions of the end and waits for them, no longer than the specification allows.
    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()>;

    /// Ends everything inside at once and waits until all is released.
    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;

    /// Returns how long those inside have waited for what they lacked, where that can be told.
    fn pressure(&self) -> Option<Pressure> {
        None
    }

    /// Returns a handle that reaches the sandbox while it lives; `None` where the backend has none.
    fn handle(&self) -> Option<Handle> {
        None
    }

    /// Returns a handle that ends everything inside, usable from anywhere at any time.
    fn killer(&self) -> Killer;
}

/// Ends a sandbox from anywhere, also while it is busy. After the sandbox is gone it does nothing.
#[derive(Clone)]
pub struct Killer(Arc<dyn Fn() + Send + Sync>);

impl Killer {
    /// Makes a handle of a function that may be called often, and from any thread.
    pub fn new(kill: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(kill))
    }

    /// Ends everything inside the sandbox; what waits for it sees it exited.
    pub fn kill(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Killer")
    }
}
