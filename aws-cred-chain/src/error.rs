//! The one error of this crate; its variants say what the caller does next.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use crate::trace::{Origin, Trace};

/// The cause of an [`Error`], shared so that all callers of one load can have it.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// Why there are no credentials. No variant ever holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No source is configured: configure one, or ask the next provider.
    #[error("no credentials are configured{}", attempts.one_line())]
    NotConfigured {
        /// What was looked at, and why each gave nothing.
        attempts: Trace,
    },
    /// A setting is wrong: fix it where `origin` points.
    #[error("{problem}{}{}", origin.suffix(), advice(hint))]
    Invalid {
        /// What is wrong.
        problem: String,
        /// Where.
        origin: Origin,
        /// What to do.
        hint: Option<String>,
    },
    /// A person must log in: run `command`.
    #[error("{problem} (run: {command})")]
    LoginRequired {
        /// Why.
        problem: String,
        /// The command to run.
        command: String,
    },
    /// The service refused: ask for a permission or correct the request; a retry changes nothing.
    #[error("{service} refused {operation}: {code}: {message}{}", advice(hint))]
    Denied {
        /// The service.
        service: &'static str,
        /// What was asked of it.
        operation: &'static str,
        /// The service's code.
        code: String,
        /// The service's message, shortened.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It did not work this time: retry later, or report it.
    #[error("{operation} did not succeed{}", advice(hint))]
    Failed {
        /// What was being done.
        operation: String,
        /// What to do.
        hint: Option<String>,
        /// Why.
        #[source]
        cause: Option<Cause>,
    },
    /// The budget of time ran out.
    #[error("{operation} took longer than its budget of {} ms", budget.as_millis())]
    TimedOut {
        /// What was being done.
        operation: String,
        /// The budget.
        budget: Duration,
    },
}

fn advice(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
}

impl Error {
    pub(crate) fn invalid(problem: impl Into<String>, origin: Origin) -> Self {
        Self::Invalid { problem: problem.into(), origin, hint: None }
    }

    pub(crate) fn failed(
        operation: impl Into<String>,
        cause: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::Failed { operation: operation.into(), hint: None, cause: Some(Arc::new(cause)) }
    }

    pub(crate) fn unexpected(operation: impl Into<String>, what: impl Into<String>) -> Self {
        Self::failed(operation, Unexpected(what.into()))
    }

    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Invalid { hint, .. } | Self::Denied { hint, .. } | Self::Failed { hint, .. } =
            &mut self
        {
            *hint = Some(text.into());
        }
        self
    }

    /// Returns whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::TimedOut { .. })
    }

    /// Returns this message and those of all its causes in one line, for logs and terminals.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// An answer that is not what the protocol promises.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unexpected(String);
