//! The error of this crate. Its variants say what the caller does next.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::trace::{Origin, Trace};
use crate::world::HttpError;

/// The cause of an [`Error`]. It is shared, so that all callers of one load can have it.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// Why there are no credentials. No variant ever holds a secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No source is configured: configure one, or ask the next provider.
    NotConfigured {
        /// The sources that were asked, each with the reason why it gave nothing.
        attempts: Trace,
    },
    /// A setting is wrong: fix it where `origin` points.
    Invalid {
        /// What is wrong with the setting.
        problem: String,
        /// The option, variable or line of a file that holds the setting.
        origin: Origin,
        /// How to correct it, if known.
        hint: Option<String>,
    },
    /// The login of a person has ended or is missing: run `command`.
    LoginRequired {
        /// Why a login is needed.
        problem: String,
        /// The command that logs in.
        command: String,
    },
    /// The service refused the request: ask for a permission or correct the request. A retry does
    /// not help.
    Denied {
        /// The name of the service, such as `STS`.
        service: &'static str,
        /// The operation of the service.
        operation: &'static str,
        /// The service's error code.
        code: String,
        /// The service's message, shortened.
        message: String,
        /// How to correct it, if known.
        hint: Option<String>,
    },
    /// A failure that may pass: retry later, or report it.
    Failed {
        /// What this crate was doing.
        operation: String,
        /// How to correct it, if known.
        hint: Option<String>,
        /// The underlying error.
        cause: Option<Cause>,
    },
    /// A time budget of [`crate::Options`] ran out.
    TimedOut {
        /// What this crate was doing.
        operation: String,
        /// The budget that ran out.
        budget: Duration,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured { attempts } => {
                write!(f, "no credentials are configured{}", attempts.one_line())
            }
            Self::Invalid { problem, origin, hint } => {
                write!(f, "{problem}{}{}", origin.suffix(), advice(hint))
            }
            Self::LoginRequired { problem, command } => write!(f, "{problem} (run: {command})"),
            Self::Denied { service, operation, code, message, hint } => {
                write!(f, "{service} refused {operation}: {code}: {message}{}", advice(hint))
            }
            Self::Failed { operation, hint, .. } => {
                write!(f, "{operation} did not succeed{}", advice(hint))
            }
            Self::TimedOut { operation, budget } => {
                let millis = budget.as_millis();
                write!(f, "{operation} took longer than its budget of {millis} ms")
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Failed { cause, .. } => cause.as_ref().map(|cause| &**cause as _),
            _ => None,
        }
    }
}

fn advice(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
}

impl Error {
    pub(crate) fn invalid(problem: impl Into<String>, origin: Origin) -> Self {
        Self::Invalid { problem: problem.into(), origin, hint: None }
    }

    pub(crate) fn not_unicode(variable: &str) -> Self {
        let origin = Origin::Variable(variable.to_owned().into());
        Self::invalid(format!("the value of {variable} is not Unicode"), origin)
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

    /// Returns whether the cause is an exchange that timed out.
    pub(crate) fn is_time_out(&self) -> bool {
        let cause = self.source().and_then(|cause| cause.downcast_ref::<HttpError>());
        matches!(cause, Some(HttpError::TimedOut { .. }))
    }

    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Invalid { hint, .. } | Self::Denied { hint, .. } | Self::Failed { hint, .. } =
            &mut self
        {
            *hint = Some(text.into());
        }
        self
    }

    /// Returns whether the same call may succeed later although nobody changes anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::TimedOut { .. })
    }

    /// Returns the message and those of all causes in one line, for logs and terminals.
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

/// The cause of an error: an answer that violates the protocol.
#[derive(Debug)]
struct Unexpected(String);

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unexpected {}
