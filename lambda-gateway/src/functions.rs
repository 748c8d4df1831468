//! The seam to whatever runs functions.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// Invokes functions.
///
/// An implementation ends an invocation that takes longer than its timeout, or lets it run and
/// answers [`InvokeError::TimedOut`]. The caller may drop the future when a client goes away.
pub trait Functions: fmt::Debug + Send + Sync {
    /// Invokes a function and waits for its answer.
    fn invoke(&self, call: Call) -> Invoking<'_>;
}

/// An invocation in progress.
pub type Invoking<'a> = Pin<Box<dyn Future<Output = Result<Answer, InvokeError>> + Send + 'a>>;

/// An invocation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The function's name or ARN, with an alias or version behind a colon if there is one.
    pub function: String,
    /// The event, JSON.
    pub payload: Bytes,
    /// How long the caller waits.
    pub timeout: Duration,
    /// The X-Ray header.
    pub trace_id: Option<String>,
}

/// What a function answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The answer, or the error as JSON with `errorMessage`.
    pub payload: Bytes,
    /// Whether the function failed.
    pub failed: bool,
}

impl Answer {
    /// Returns an answer.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>, failed: bool) -> Self {
        Self { payload: payload.into(), failed }
    }
}

/// Why there is no answer of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// The function runs as often as it may at once.
    #[error("the function is throttled")]
    Throttled,
    /// It did not answer in time.
    #[error("the function did not answer in time")]
    TimedOut,
    /// The event is larger than the function takes.
    #[error("the event is too large")]
    TooLarge,
    /// It is not there, or cannot be run.
    #[error("the function cannot be invoked")]
    Unavailable,
}
