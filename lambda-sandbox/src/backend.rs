//! The trait of backends, which create sandboxes.

use std::collections::BTreeSet;
use std::fmt;

use crate::capture::Capture;
use crate::{BoxFuture, Capability, Completed, Created, Error, Isolation, Sandbox, SandboxSpec};

/// Creates sandboxes of one kind.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Creates a sandbox. Nothing of the function runs yet.
    ///
    /// An implementation must leave nothing behind after an error or when the future is dropped.
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>>;

    /// Creates a sandbox, runs its program to the end without the Runtime API, and releases the
    /// sandbox. Returns how the program ended, its outputs and its usage. Dropping the future ends
    /// the program.
    ///
    /// The outputs also go to the specification's log.
    fn run(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Completed, Error>> {
        Box::pin(async move {
            let mut spec = spec;
            let capture = Capture::of(&mut spec.log);
            let finished = self.create(spec).await?.run().await?;
            Ok(capture.completed(finished))
        })
    }

    /// Returns the defences between a function and everything else that are in force.
    fn isolation(&self) -> Isolation;

    /// Returns the optional features of this backend.
    fn capabilities(&self) -> BTreeSet<Capability>;

    /// Removes what ended host processes left on this machine, and releases what this backend keeps
    /// for later sandboxes. Live sandboxes are not affected.
    ///
    /// It may be called at any time. Returns the names of what it removed.
    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>>;
}

/// The result of [`Backend::sweep`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The names of the removed resources, such as the paths of control groups.
    pub removed: Vec<String>,
}
