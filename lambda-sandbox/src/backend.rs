//! The trait that makes sandboxes.

use std::collections::BTreeSet;
use std::fmt;

use crate::capture::Capture;
use crate::{BoxFuture, Capability, Completed, Created, Error, Isolation, Sandbox, SandboxSpec};

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
        Box::pin(async move {
            let mut spec = spec;
            let capture = Capture::of(&mut spec.log);
            let finished = self.create(spec).await?.run().await?;
            Ok(capture.completed(finished))
        })
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
