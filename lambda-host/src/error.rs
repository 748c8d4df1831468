//! The host's errors. The error of a function is not among them: it is an
//! [`Answer`](crate::Answer).

use std::path::PathBuf;

use crate::function::limits::{Constraint, Invalid};
use crate::function::name::FunctionName;

/// An error of the host. The variants differ by what the caller can do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value violates a documented constraint. Correct it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Environment variables have names that the platform uses. Choose other names.
    #[error("environment variables {} are reserved", names.join(", "))]
    ReservedVariables {
        /// The reserved names.
        names: Vec<String>,
    },
    /// The environment variables are too large. Shorten them.
    #[error("environment variables take {bytes} bytes, at the most {bytes_max}")]
    EnvironmentTooLarge {
        /// The size of all names and values, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The host does not have this runtime. Choose one that it has, or add it.
    #[error("runtime {runtime:?} is none of {}", known.join(", "))]
    RuntimeUnknown {
        /// The runtime's identifier.
        runtime: String,
        /// The identifiers of the host's runtimes.
        known: Vec<String>,
    },
    /// The concurrency cannot be reserved, since part of the account's must stay unreserved.
    /// Reserve less.
    #[error("the account must keep a concurrency of {unreserved_min} unreserved")]
    ConcurrencyReserved {
        /// The part of the account's concurrency that must stay unreserved.
        unreserved_min: u32,
    },
    /// The placement engine refuses the function; see the reason.
    #[error("function cannot be placed: {reason}")]
    Unplaceable {
        /// The engine's reason.
        reason: String,
    },
    /// The name has one qualifier and the request another. Omit one.
    #[error("qualifier {in_name:?} in the name, {beside:?} beside it")]
    QualifiersDiffer {
        /// The qualifier in the name or ARN.
        in_name: String,
        /// The qualifier in the request.
        beside: String,
    },
    /// `$LATEST` cannot be deleted alone. Delete the function.
    #[error("$LATEST cannot be deleted without deleting the function")]
    LatestNotDeletable,
    /// The function does not have the revision that the caller expects. Read it again.
    #[error("function {name} has another revision than expected")]
    RevisionDiffers {
        /// The function's name.
        name: FunctionName,
    },
    /// The function's code cannot be used. Upload other code.
    #[error("could not unzip uploaded file: {reason}")]
    InvalidCode {
        /// The reason, with the entry of the archive.
        reason: String,
    },
    /// The payload is not JSON.
    #[error("could not parse request body into json: {reason}")]
    InvalidPayload {
        /// The error and its position.
        reason: String,
    },
    /// The payload is too large. Send less.
    #[error("payload is over {bytes_max} bytes")]
    PayloadTooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// No function has this name. Deploy it.
    #[error("function not found: {arn}")]
    FunctionNotFound {
        /// The function's ARN.
        arn: String,
    },
    /// The function belongs to another region or account than this host. Call the host that has it.
    #[error("function {target} is of another region or account than {region}, {account}")]
    Elsewhere {
        /// The given name or ARN.
        target: String,
        /// The host's region.
        region: String,
        /// The host's account.
        account: String,
    },
    /// A function with this name exists. Update or delete it.
    #[error("function already exist: {name}")]
    FunctionExists {
        /// The function's name.
        name: FunctionName,
    },
    /// The function is stored but cannot run on this host. Change it as the reason says.
    #[error("function {name} cannot run: {reason}")]
    FunctionFailed {
        /// The function's name.
        name: FunctionName,
        /// Why the host cannot run it.
        reason: String,
    },
    /// A concurrency or rate limit is reached. Try again later, or raise it.
    #[error("throttled: {limit}")]
    Throttled {
        /// The limit that is reached.
        limit: ThrottleLimit,
    },
    /// No worker has room for another sandbox. Try again later, or add a worker.
    #[error("no capacity for another sandbox of this function: {reason}")]
    NoCapacity {
        /// What is missing.
        reason: String,
    },
    /// The host cannot start the sandbox, by no fault of the function; see the reason.
    #[error("sandbox could not be started: {reason}")]
    SandboxUnavailable {
        /// The backend's error with its causes.
        reason: String,
    },
    /// A worker cannot be used. Correct its capacity or its version.
    #[error("worker {worker}: {reason}")]
    Worker {
        /// The worker's number.
        worker: u32,
        /// Why the worker cannot be used.
        reason: String,
    },
    /// The host is stopping and takes no new invocations.
    #[error("host is stopping")]
    Stopping,
    /// A file of the host could not be read or written.
    #[error("{operation} {}", path.display())]
    Io {
        /// The failed operation.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The function registry could not be read or written.
    #[error("function registry: {operation}")]
    Registry {
        /// The failed operation.
        operation: &'static str,
        /// The error of the registry's database.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sandbox backend cannot be used on this machine.
    #[error("sandbox backend")]
    Backend(#[from] lambda_sandbox::Error),
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A limit that throttles invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThrottleLimit {
    /// The function's reserved concurrency is used up.
    ReservedConcurrency,
    /// The account's unreserved concurrency is used up.
    AccountConcurrency,
    /// The function has used up its scaling rate.
    ScalingRate,
    /// Too many invocations wait.
    Waiting,
}

impl std::fmt::Display for ThrottleLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReservedConcurrency => "reserved concurrency is in use",
            Self::AccountConcurrency => "concurrency of the account is in use",
            Self::ScalingRate => "scaling rate of the function",
            Self::Waiting => "as many invocations wait as may",
        })
    }
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: &str, constraint: Constraint) -> Self {
        Self::Invalid(Invalid::new(field, value, constraint))
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

/// Formats an error with all its causes: `a: b: c`.
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
