//! The host's errors. The error of a function is not among them: it is an
//! [`Answer`](crate::Answer).

use std::path::PathBuf;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

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
        /// The variables as they were measured.
        measured: MeasuredEnvironment,
    },
    /// Neither this host nor AWS Lambda has this runtime. Choose one that the host has, or add it.
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
    /// What is to be changed has another revision than the caller expects: read it again.
    #[error("another revision than expected; read it again with {read_with}")]
    RevisionDiffers {
        /// The operation that gives the revision.
        read_with: ReadWith,
    },
    /// A parameter cannot be used: correct it.
    #[error("{reason}")]
    Parameter {
        /// What is wrong, in AWS's words.
        reason: String,
    },
    /// What the request names is not there: make it first.
    #[error("{reason}")]
    NotFound {
        /// What was looked for.
        what: Missing,
        /// What is not there, in AWS's words.
        reason: String,
    },
    /// What is there does not go with the change: remove or change that first.
    #[error("{reason}")]
    Conflict {
        /// What is there, in AWS's words.
        reason: String,
    },
    /// Something would be larger than a limit allows: make room first.
    #[error("{reason}")]
    TooLarge {
        /// What would be too large: `policy`, `code`.
        what: &'static str,
        /// The size and the limit, in AWS's words.
        reason: String,
    },
    /// What was uploaded is no zip archive: upload one.
    #[error("Could not unzip uploaded file. Please check your file, then try to upload again.")]
    NotAnArchive,
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
    /// This host has not the runtime of the function, or other processors than its code is for.
    /// Invoke it on a host that has them, or change the function.
    #[error("function {name} needs {needs}, and this host has {has}")]
    NotRunnable {
        /// The function's name.
        name: FunctionName,
        /// The runtime or architecture that the function needs.
        needs: String,
        /// What the host has.
        has: String,
    },
    /// The invocation came through the same function too often: a loop of functions. End the loop,
    /// or allow it for the function.
    #[error("function {name} is in a loop")]
    Recursion {
        /// The function's name.
        name: FunctionName,
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
    /// An AWS service beside the host refused a request, or cannot be reached: see its words.
    #[error("{service}: {code}: {message}")]
    Service {
        /// The service.
        service: &'static str,
        /// Its code for the error.
        code: String,
        /// Its words.
        message: String,
    },
    /// The function has no network; see the reason.
    #[error(transparent)]
    Network(#[from] crate::network::error::NetworkError),
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

/// Environment variables as their size was measured. They may be secret: `Debug` hides them, and
/// they go to the caller who sent them alone.
#[derive(Clone, PartialEq, Eq)]
pub struct MeasuredEnvironment(pub(crate) String);

impl MeasuredEnvironment {
    /// Returns the variables as a JSON object.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for MeasuredEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What a request looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// A function, version, alias, layer, mapping, policy or other resource.
    Resource,
    /// The provisioned concurrency of a version or an alias.
    ProvisionedConcurrency,
    /// A code signing configuration that is to be used.
    CodeSigningConfig,
}

/// The operation that gives the revision of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadWith {
    /// Of a function, a version or an alias.
    FunctionOrAlias,
    /// Of a function's policy.
    Policy,
    /// Of a layer's policy.
    LayerPolicy,
}

impl std::fmt::Display for ReadWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FunctionOrAlias => "GetFunction/GetAlias",
            Self::Policy => "GetPolicy",
            Self::LayerPolicy => "GetLayerPolicy",
        })
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
    /// The event queue is full.
    EventQueue,
}

impl std::fmt::Display for ThrottleLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReservedConcurrency => "reserved concurrency is in use",
            Self::AccountConcurrency => "concurrency of the account is in use",
            Self::ScalingRate => "scaling rate of the function",
            Self::Waiting => "as many invocations wait as may",
            Self::EventQueue => "the event queue is full",
        })
    }
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: &str, constraint: Constraint) -> Self {
        Self::Invalid(Invalid::new(field, value, constraint))
    }

    pub(crate) fn parameter(reason: impl Into<String>) -> Self {
        Self::Parameter { reason: reason.into() }
    }

    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        Self::NotFound { what: Missing::Resource, reason: reason.into() }
    }

    pub(crate) fn conflict(reason: impl Into<String>) -> Self {
        Self::Conflict { reason: reason.into() }
    }

    /// Nothing is under the name or identifier of the request.
    pub(crate) fn no_such_resource() -> Self {
        Self::not_found("The resource you requested does not exist.")
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

/// Returns the fault of its storage that an error of a database tells of. These errors name no
/// causes.
pub(crate) fn storage<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a StorageError> {
    if let Some(error) = error.downcast_ref::<StorageError>() {
        return Some(error);
    }
    match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
        (Some(TransactionError::Storage(error)), ..)
        | (_, Some(CommitError::Storage(error)), ..)
        | (_, _, Some(TableError::Storage(error)), _)
        | (.., Some(DatabaseError::Storage(error))) => Some(error),
        _ => None,
    }
}

/// Returns which fault of its disk an error of the host has among its causes: that it is full, or
/// read-only.
#[cfg(feature = "http")]
pub(crate) fn disk_fault(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut cause = Some(error);
    while let Some(error) = cause {
        let of_database = match storage(error) {
            Some(StorageError::Io(error)) => Some(error.kind()),
            _ => None,
        };
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if let Some(kind @ (StorageFull | QuotaExceeded | ReadOnlyFilesystem)) =
            kind.or(of_database)
        {
            return Some(kind);
        }
        cause = error.source();
    }
    None
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
