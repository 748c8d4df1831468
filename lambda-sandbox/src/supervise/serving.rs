//! The task that serves the Runtime API to a sandbox's programs.

use tokio::task::JoinHandle;

/// The task. It ends on drop, and closes its connections soon after.
#[derive(Debug)]
pub(super) struct Serving(JoinHandle<()>);

impl Serving {
    pub(super) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }

    /// Ends the task. Its connections are closed when this returns.
    pub(super) async fn end(mut self) {
        self.0.abort();
        // An aborted task has dropped its connections when it is joined.
        drop((&mut self.0).await);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
