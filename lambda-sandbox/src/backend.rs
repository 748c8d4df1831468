//! The two traits that a backend implements: one that makes sandboxes, one that drives a sandbox.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{
    Capability, Completed, Created, Error, Finished, Handle, InitFailure, InitReport, Invocation,
    Isolation, Outcome, Pressure, Sandbox, SandboxSpec, ShutdownReason,
};

/// A future on the heap, so that the traits are usable as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes sandboxes of one kind.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Makes a sandbox; nothing of the function runs yet.
    ///
    /// The implementor guarantees that an error, or dropping the future, leaves nothing behind.
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>>;

    /// Makes a sandbox, runs its program to the end without the Runtime API, and releases everything: how it ended, what it
    /// wrote and what it used. Dropping the future ends the program.
    ///
    /// What the program writes goes to the specification's log as well.
    fn run(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Completed, Error>> {
        Box::pin(crate::capture::run(self, spec))
    }

    /// Returns what is in force between a function and everything else.
    fn isolation(&self) -> Isolation;

    /// Returns what this backend can do beyond the least.
    fn capabilities(&self) -> BTreeSet<Capability>;

    /// Removes what an earlier process of the same host left behind, and nothing else.
    ///
    /// May be called at any time; returns what was removed.
    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>>;
}

/// What [`Backend::sweep`] removed, each by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// What was removed.
    pub removed: Vec<String>,
}

/// Drives one sandbox: what a backend's author implements and [`Sandbox`] calls in the right order.
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
