//! What can go wrong between a caller and the host. A function's own failure is no error of the host:
//! it is an [`Answer`](crate::Answer).

use std::path::PathBuf;

use crate::function::config::FunctionName;

/// An error of the host, by what its caller does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting breaks a documented constraint: correct it.
    #[error("1 validation error detected: {message}")]
    Validation {
        /// Which value at which setting breaks which rule.
        message: String,
    },
    /// A setting is well formed but cannot be used: correct it.
    #[error("{message}")]
    InvalidParameter {
        /// What is wrong with it.
        message: String,
    },
    /// The function's code cannot be used: upload another.
    #[error("could not unzip uploaded file: {reason}")]
    InvalidCode {
        /// What is wrong with it, naming the entry.
        reason: String,
    },
    /// The payload is not JSON.
    #[error("could not parse request body into json: {reason}")]
    InvalidPayload {
        /// Where the JSON breaks.
        reason: String,
    },
    /// The payload is over the limit: send less.
    #[error("request must be smaller than {bytes_max} bytes for the InvokeFunction operation")]
    PayloadTooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// No function has this name: deploy it.
    #[error("function not found: {arn}")]
    FunctionNotFound {
        /// The function's ARN.
        arn: String,
    },
    /// A function of this name is there already: update or delete it.
    #[error("function already exist: {name}")]
    FunctionExists {
        /// The function's name.
        name: FunctionName,
    },
    /// A concurrency or rate limit was met: try again later, or raise it.
    #[error("rate exceeded: {limit}")]
    Throttled {
        /// Which limit, in AWS's words (`ReservedFunctionConcurrentInvocationLimitExceeded`, ...).
        limit: &'static str,
    },
    /// No worker has room for another sandbox: try again later, or add a worker.
    #[error("no capacity for another sandbox of this function: {reason}")]
    NoCapacity {
        /// What was missing.
        reason: String,
    },
    /// The host cannot start the sandbox: see the cause, which is not the function's fault.
    #[error("sandbox could not be started: {reason}")]
    SandboxUnavailable {
        /// The backend's error with its causes.
        reason: String,
    },
    /// The host is stopping and takes no new invocations.
    #[error("host is stopping")]
    Stopping,
    /// A file of the host could not be read or written.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: std::io::Error,
    },
    /// The function registry could not be read or written.
    #[error("function registry: {operation}")]
    Registry {
        /// What was tried.
        operation: &'static str,
        /// Why it did not work.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sandbox backend cannot be used on this machine.
    #[error("sandbox backend")]
    Backend(#[from] lambda_sandbox::Error),
}

impl Error {
    pub(crate) fn validation(field: &str, value: &str, rule: &str) -> Self {
        let value: String = value.chars().take(VALUE_SHOWN_MAX).collect();
        Self::Validation {
            message: format!("Value '{value}' at '{field}' failed to satisfy constraint: {rule}"),
        }
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn registry<E>(operation: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Registry { operation, source: Box::new(source) }
    }
}

/// Renders an error with all its causes, `a: b: c`.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

const VALUE_SHOWN_MAX: usize = 200;
