//! The input and output of a sandbox: invocations, answers, usage, and causes of the end.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Error, Limits, TIME_MAX};

/// One call of the function.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The id of the request, unique for each invocation: 1 to 256 letters, digits and characters
    /// of `-_.~:`.
    pub request_id: String,
    /// The payload, as the caller sent it.
    pub payload: Bytes,
    /// The time limit, counted from the handover to the function.
    pub timeout: Duration,
    /// The end of the time limit on the wall clock, which is sent to the runtime
    /// (`Lambda-Runtime-Deadline-Ms`).
    pub deadline: SystemTime,
    /// The ARN by which the function was called.
    pub invoked_function_arn: String,
    /// The value of the `X-Amzn-Trace-Id` header.
    pub trace_id: Option<String>,
    /// The client context of mobile SDKs, as JSON.
    pub client_context: Option<String>,
    /// The Cognito identity, as JSON.
    pub cognito_identity: Option<String>,
    /// The receiver of a streamed answer's parts. Without it they are collected into
    /// [`Response::body`]. A receiver that is slow makes the function wait. After the receiver was
    /// dropped, parts are dropped too.
    pub stream: Option<mpsc::Sender<StreamPart>>,
}

/// A part of a streamed answer. [`StreamPart::Begin`] comes first, once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a receiver must handle each part")]
pub enum StreamPart {
    /// The runtime has begun the answer.
    Begin {
        /// The content type of the body, if the runtime sent one.
        content_type: Option<String>,
    },
    /// Bytes of the body.
    Data(Bytes),
}

impl Invocation {
    /// Creates an invocation with a time limit. The deadline is `timeout` from now, or [`TIME_MAX`]
    /// if that is less.
    #[must_use]
    pub fn new(
        request_id: impl Into<String>,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Self {
        Self {
            request_id: request_id.into(),
            payload: payload.into(),
            timeout,
            deadline: SystemTime::now() + timeout.min(TIME_MAX),
            invoked_function_arn: "arn:aws:lambda:us-east-1:000000000000:function:function".into(),
            trace_id: None,
            client_context: None,
            cognito_identity: None,
            stream: None,
        }
    }

    /// Checks the payload's size and the form of the request id.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], naming the field.
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        let (length, max) = (self.payload.len(), limits.payload_bytes_max);
        if length > max {
            let reason = format!("at most {max} bytes");
            return Err(Error::invalid("payload", format!("{length} bytes"), reason));
        }
        // The runtime sends it back as a part of a path.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
        let id = &self.request_id;
        if id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX || !id.bytes().all(plain) {
            let reason = "1 to 256 letters, digits and signs of \"-_.~:\"";
            return Err(Error::invalid("request_id", id, reason));
        }
        Ok(())
    }
}

const REQUEST_ID_BYTES_MAX: usize = 256;

/// A function's successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The body as the runtime posted it; empty if it went to [`Invocation::stream`].
    pub body: Bytes,
    /// The content type of the body, if the runtime sent one.
    pub content_type: Option<String>,
    /// Whether the runtime chose the streaming response mode.
    pub streamed: bool,
}

/// An error that the function or its runtime reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// The `Lambda-Runtime-Function-Error-Type` header, such as `Unhandled` or
    /// `Runtime.ImportModuleError`.
    pub error_type: String,
    /// The JSON body (`errorMessage`, `errorType`, `stackTrace`) as the runtime posted it.
    pub body: Bytes,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It ended with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The function answered.
    Success(Response),
    /// The function, or its runtime for it, reported an error.
    FunctionError(FunctionError),
    /// The time limit passed without an answer.
    TimedOut,
    /// The kernel killed a process of the sandbox at the memory limit. The kernel's event counter
    /// of the limit says so; a signal alone does not count.
    OutOfMemory,
    /// The runtime ended without an answer.
    Exited(Exit),
}

impl Answer {
    /// Returns whether the sandbox can serve another invocation after this one.
    #[must_use]
    pub fn leaves_usable(&self) -> bool {
        matches!(self, Self::Success(_) | Self::FunctionError(_))
    }
}

/// The resources that an invocation, an init or a run used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The wall time, for an invocation from the handover to the answer.
    pub duration: Duration,
    /// The highest memory use of the sandbox so far, in bytes, if the backend measures it.
    ///
    /// On Linux it is the kernel's count, which reserves memory in steps of 256 KiB for each
    /// processor. With control groups of version 1, which serve one sandbox after another, it can
    /// be up to 1 MiB too high, but never too low.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time of all processes of the sandbox during this time, if the backend measures it.
    pub cpu_time: Option<Duration>,
}

/// The end of an invocation and its usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub answer: Answer,
    /// Its usage.
    pub usage: Usage,
}

/// The duration and usage of a successful init.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InitReport {
    /// From the start of the runtime until it and all extensions asked for their first event. Of a
    /// restored sandbox: how long the runtime's hooks after the restore took.
    pub duration: Duration,
    /// The usage of the init, or of the hooks.
    pub usage: Usage,
    /// Whether the sandbox started from a snapshot ([`crate::SandboxSpec::snapshot`]), so that its
    /// init was that of another sandbox.
    pub is_restored: bool,
}

/// Why an init failed. The sandbox has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitFailure {
    /// The runtime or an extension reported an error.
    #[error("the runtime reported {}", .0.error_type)]
    Reported(FunctionError),
    /// The runtime or an external extension ended.
    #[error("the runtime ended during init: {0}")]
    Exited(Exit),
    /// The kernel killed a process of the sandbox at the memory limit.
    #[error("the memory limit was reached during init")]
    OutOfMemory,
    /// The runtime or an extension did not ask for its first event within this time.
    #[error("init did not end within {0:?}")]
    TimedOut(Duration),
    /// The runtime reported an error after the restore of a snapshot (`restore/error` of the
    /// Runtime API).
    #[error("the runtime reported {} after its restore", .0.error_type)]
    RestoreReported(FunctionError),
    /// The runtime did not end its hooks after the restore of a snapshot within this time
    /// ([`crate::TimeLimits::restore`]).
    #[error("the hooks after the restore of a snapshot did not end within {0:?}")]
    RestoreTimedOut(Duration),
    /// The runtime could not be started.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The end of a program that ran without the Runtime API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// The cause of the end.
    pub ended_by: EndedBy,
    /// Whether the memory limit killed any process of the sandbox.
    pub out_of_memory: bool,
    /// Its usage.
    pub usage: Usage,
}

impl Finished {
    /// Creates a result. `out_of_memory` is set for [`EndedBy::Memory`] only. For authors of
    /// backends.
    #[must_use]
    pub fn new(exit: Exit, ended_by: EndedBy, usage: Usage) -> Self {
        Self { exit, ended_by, out_of_memory: ended_by == EndedBy::Memory, usage }
    }

    /// Returns whether the program ended by itself with status 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.ended_by == EndedBy::Program && self.exit == Exit::Status(0)
    }
}

/// The cause of a program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndedBy {
    /// The program itself, with a status.
    Program,
    /// A signal from inside the sandbox or from the kernel, such as SIGSEGV.
    Signal,
    /// The memory limit, according to the kernel's event counter of the limit.
    Memory,
    /// A limit of kernel memory that is not charged to the memory limit: too many connections or
    /// file locks ([`crate::Defence::KernelMemory`]).
    KernelMemory,
    /// The limit of wall time ([`crate::TimeLimits::run`]).
    WallTime,
    /// The limit of processor time ([`crate::TimeLimits::run_processor`]).
    ProcessorTime,
    /// The limit of output ([`Limits::output_bytes_max`]).
    Output,
    /// The host, by a [`crate::Killer`].
    Host,
}

impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => "ended by itself",
            Self::Signal => "ended by a signal",
            Self::Memory => "memory limit reached",
            Self::KernelMemory => "too many connections or locks of files",
            Self::WallTime => "time limit reached",
            Self::ProcessorTime => "processor time limit reached",
            Self::Output => "output limit reached",
            Self::Host => "killed by the host",
        })
    }
}

/// The reason of a shutdown, which is sent to extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// The sandbox was idle, or its host shuts down.
    Spindown,
    /// An invocation timed out.
    Timeout,
    /// The runtime failed.
    Failure,
}

impl ShutdownReason {
    /// Returns the value of `shutdownReason` in the Extensions API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spindown => "spindown",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }
}
