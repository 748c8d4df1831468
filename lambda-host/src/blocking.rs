//! Blocking work, such as disk access, on threads where it may block.

use tokio::task::JoinHandle;

use crate::error::Error;

/// Runs blocking work on tokio's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work)).await
}

/// Waits for a task. A panic in the task is resumed here.
pub(crate) async fn joined<T>(task: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A task is cancelled only if the runtime shuts down.
            Err(_) => Err(Error::Stopping),
        },
    }
}
