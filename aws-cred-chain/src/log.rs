//! Events for `tracing`, if the feature `tracing` is on. No event holds a secret or a body.

use std::time::Duration;

use crate::credentials::Source;

#[cfg(feature = "tracing")]
pub(crate) fn attempt(name: &str, attempt: u32, took: Duration) {
    tracing::debug!(call = name, attempt, ?took, "attempt ended");
}

#[cfg(feature = "tracing")]
pub(crate) fn resolved(source: Source, took: Duration) {
    tracing::info!(%source, ?took, "credentials resolved");
}

#[cfg(feature = "tracing")]
pub(crate) fn unresolved(error: &crate::error::Error) {
    tracing::info!(error = %error.report(), "no credentials");
}

#[cfg(feature = "tracing")]
pub(crate) fn note(what: &str, error: &dyn std::fmt::Display) {
    tracing::warn!(%error, "{what}");
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn attempt(_: &str, _: u32, _: Duration) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn resolved(_: Source, _: Duration) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn unresolved(_: &crate::error::Error) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn note(_: &str, _: &dyn std::fmt::Display) {}
