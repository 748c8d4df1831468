//! Work that waits for a disk, away from the executor's threads.

use tokio::task::JoinHandle;

use crate::error::Error;

/// Runs work that waits for a disk on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work)).await
}

/// Waits for a task; a panic in it goes on here.
pub(crate) async fn joined<T>(task: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels a task.
            Err(_) => Err(Error::Stopping),
        },
    }
}
