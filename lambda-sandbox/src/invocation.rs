//! What goes into a sandbox and what comes out: invocations, answers, usage, and ways to end.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Error, Limits, TIME_MAX};

/// One call of the function.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The request's id, unique for each invocation.
    pub request_id: String,
    /// The event as the caller sent it.
    pub payload: Bytes,
    /// The time that the function has from the moment it is handed the invocation.
    pub timeout: Duration,
    /// The same end on the wall clock, which the runtime is told (`Lambda-Runtime-Deadline-Ms`).
    pub deadline: SystemTime,
    /// The name by which the function was called.
    pub invoked_function_arn: String,
    /// The value of the `X-Amzn-Trace-Id` header.
    pub trace_id: Option<String>,
    /// The client context, JSON, as mobile SDKs send it.
    pub client_context: Option<String>,
    /// The Cognito identity, JSON.
    pub cognito_identity: Option<String>,
    /// Where a streamed answer's pieces go as they arrive. Without it they are collected into
    /// [`Response::body`]. A receiver that does not take them holds the function back.
    pub stream: Option<mpsc::Sender<Bytes>>,
}

impl Invocation {
    /// Makes an invocation that ends `timeout` from now at the latest, [`TIME_MAX`] if that is less.
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

    /// Checks what can be checked without a sandbox.
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
        // A runtime sends it back as a part of a path.
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
    /// The body as the runtime posted it; empty where it went to [`Invocation::stream`].
    pub body: Bytes,
    /// The body's content type, where the runtime named one.
    pub content_type: Option<String>,
    /// True when the runtime chose the streaming response mode.
    pub streamed: bool,
}

/// An error that the function or its runtime reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// The `Lambda-Runtime-Function-Error-Type` header, such as `Unhandled` or `Runtime.ImportModuleError`.
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
    /// The time was over before an answer came.
    TimedOut,
    /// The kernel killed a process of the sandbox for reaching the memory limit. Told by the limit's own
    /// event counter, never guessed from a signal.
    OutOfMemory,
    /// The runtime ended before it answered.
    Exited(Exit),
}

impl Answer {
    /// Returns whether the sandbox can serve another invocation after this one.
    #[must_use]
    pub fn leaves_usable(&self) -> bool {
        matches!(self, Self::Success(_) | Self::FunctionError(_))
    }
}

/// What an invocation used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// From handing over to the answer.
    pub duration: Duration,
    /// The highest memory use of the sandbox so far, in bytes, where the backend measures it.
    ///
    /// On Linux as the kernel counts it, which sets memory aside in steps of 256 KiB for each processor. By control groups of version
    /// 1, which serve one sandbox after another, it may tell up to 1 MiB too much, never too little.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time of all processes of the sandbox during this invocation, where measured.
    pub cpu_time: Option<Duration>,
}

/// An invocation's end: how, and at what cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub answer: Answer,
    /// What it used.
    pub usage: Usage,
}

/// What a successful init took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InitReport {
    /// From starting the runtime until it and all extensions asked for their first event.
    pub duration: Duration,
    /// What init used.
    pub usage: Usage,
}

/// Why a sandbox did not come up. The sandbox is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitFailure {
    /// The runtime or an extension reported an error of its own.
    #[error("the runtime reported {}", .0.error_type)]
    Reported(FunctionError),
    /// The runtime ended.
    #[error("the runtime ended during init: {0}")]
    Exited(Exit),
    /// The kernel killed a process of the sandbox for reaching the memory limit.
    #[error("the memory limit was reached during init")]
    OutOfMemory,
    /// The runtime did not ask for an invocation in time.
    #[error("init did not end within {0:?}")]
    TimedOut(Duration),
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
    /// Who or what ended it.
    pub ended_by: EndedBy,
    /// Whether the memory limit killed any process of the sandbox.
    pub out_of_memory: bool,
    /// What it used.
    pub usage: Usage,
}

impl Finished {
    /// Makes the end of a program that no memory limit has touched; for authors of backends.
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

/// Who or what ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndedBy {
    /// The program itself, with a status.
    Program,
    /// A signal from inside the sandbox or of the kernel's, such as SIGSEGV.
    Signal,
    /// The memory limit, told by the limit's own event counter.
    Memory,
    /// A limit of kernel memory that the memory limit does not count: too many connections, or locks of files
    /// ([`crate::Defence::KernelMemory`]).
    KernelMemory,
    /// The limit of time on the wall clock ([`crate::TimeLimits::run`]).
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

/// Why a sandbox is shut down, as extensions are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// It was idle, or its worker ends.
    Spindown,
    /// An invocation timed out.
    Timeout,
    /// The runtime failed.
    Failure,
}

impl ShutdownReason {
    /// Returns the word of the Extensions API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spindown => "spindown",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }
}
