//! Calls of the monitor, which block: where they run, and their errors.

use std::io;

use crate::Error;

/// Runs work that blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)
}

/// Keeps the causes of a monitor's error in its text.
pub(super) fn failed(step: &'static str) -> impl Fn(lambda_vmm::Error) -> Error {
    move |error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Error::step(step, io::Error::other(text))
    }
}
