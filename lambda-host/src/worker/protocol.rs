//! The worker protocol: what a worker manager and its workers say to each other.
//!
//! Every message is data that serde carries: a worker may be in the manager's process or on another
//! machine. A message names the worker and its epoch, which the worker draws at its start: a
//! manager that sees another epoch knows that all that the worker ran before is gone, and drops
//! what is late from the earlier one.
//!
//! 1. The worker sends [`WorkerEvent::Joined`] with its capacity and all that it runs.
//! 2. The manager sends [`WorkerCommand`]s. The worker answers each with the events that its
//!    documentation names, in any order and at any time.
//! 3. A command about a sandbox that the worker does not have is answered by [`WorkerEvent::Gone`],
//!    or [`WorkerEvent::Refused`] for an invocation.
//!
//! Code is named by its digest; a worker that lacks it asks its
//! [`FetchCode`](crate::code::FetchCode).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::Span;

use crate::code::CodeDigest;
use crate::function::account::AccountIndex;
use crate::function::config::FunctionConfig;
use crate::function::name::FunctionName;
use crate::function::version::{Version, VersionKey};
use crate::invocation::Report;
use crate::logs::LogEvent;

/// The version of the messages in this module. A worker of another version is not taken.
pub const VERSION: u16 = 2;

/// Names a worker; the manager gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// Names one life of a worker; the worker draws it at random at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Names a sandbox; the placement engine gives it, and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub u64);

/// Names a network interface; the placement engine gives it, and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InterfaceId(pub u64);

/// Names a virtual machine; the placement engine gives it, and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmId(pub u64);

/// Names an invocation; the manager gives it, and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InvocationId(pub u64);

/// A message from the manager to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToWorker {
    /// The sender's version of the protocol.
    pub version: u16,
    /// The worker.
    pub worker: WorkerId,
    /// The command.
    pub command: WorkerCommand,
}

impl ToWorker {
    /// Returns a message of this version.
    #[must_use]
    pub fn new(worker: WorkerId, command: WorkerCommand) -> Self {
        Self { version: VERSION, worker, command }
    }
}

/// A message from a worker to the manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FromWorker {
    /// The sender's version of the protocol.
    pub version: u16,
    /// The worker.
    pub worker: WorkerId,
    /// Which life of the worker.
    pub epoch: Epoch,
    /// The event.
    pub event: WorkerEvent,
}

impl FromWorker {
    /// Returns a message of this version.
    #[must_use]
    pub fn new(worker: WorkerId, epoch: Epoch, event: WorkerEvent) -> Self {
        Self { version: VERSION, worker, epoch, event }
    }
}

/// A command to a worker. The list is exhaustive: a worker must not ignore a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "a worker must not ignore a command")]
pub enum WorkerCommand {
    /// Make a sandbox. Answered by [`WorkerEvent::Ready`] or [`WorkerEvent::Failed`].
    Start {
        /// The new sandbox.
        sandbox: SandboxId,
        /// The function that it runs all its life.
        deployment: Box<Deployment>,
        /// The network interface that it is attached to; `None`: it reaches no network.
        #[serde(default)]
        interface: Option<InterfaceId>,
        /// The VM that it is made in, which is ready; `None` on a worker without VMs.
        #[serde(default)]
        vm: Option<VmId>,
    },
    /// Start a VM. Answered by [`WorkerEvent::VmReady`] or [`WorkerEvent::VmGone`].
    StartVm {
        /// The new VM.
        vm: VmSpec,
    },
    /// Stop a VM that has no sandbox. Answered by [`WorkerEvent::VmGone`].
    StopVm {
        /// The VM.
        vm: VmId,
    },
    /// Run an invocation in a ready sandbox. Answered by [`WorkerEvent::Ended`] or
    /// [`WorkerEvent::Refused`].
    Dispatch {
        /// The sandbox.
        sandbox: SandboxId,
        /// The invocation.
        invocation: Invocation,
    },
    /// The caller has taken parts of a streamed answer: the worker may send as many more. Not
    /// answered.
    Read {
        /// The sandbox.
        sandbox: SandboxId,
        /// The invocation.
        invocation: InvocationId,
        /// How many parts.
        parts: u32,
    },
    /// Destroy an idle sandbox. Answered by [`WorkerEvent::Gone`].
    Stop {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// Destroy a sandbox at once, whatever it does. Answered by [`WorkerEvent::Ended`] for an
    /// invocation that runs, and [`WorkerEvent::Gone`].
    Kill {
        /// The sandbox.
        sandbox: SandboxId,
    },
}

/// One deployment of a function, as a worker needs it to make a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deployment {
    /// Names the deployment; new code or settings have another number.
    pub number: u64,
    /// The function's ARN without a qualifier.
    pub arn: String,
    /// The region in the function's environment.
    pub region: String,
    /// The function's version.
    pub version: Version,
    /// The settings. The values of environment variables may be secret: `Debug` hides them.
    pub config: Arc<FunctionConfig>,
    /// The code.
    pub code: CodeDigest,
    /// Whether sandboxes are kept ready of it.
    #[serde(default)]
    pub provisioned: bool,
    /// The account that owns the function.
    #[serde(default)]
    pub(crate) account: AccountIndex,
}

impl Deployment {
    /// Returns whether its sandboxes are asked to start from a snapshot: those of a published
    /// version, unless they are kept ready.
    pub(crate) fn snap_starts(&self) -> bool {
        self.config.snap_start && self.version != Version::Latest && !self.provisioned
    }

    pub(crate) fn key(&self) -> VersionKey {
        VersionKey { account: self.account, name: self.config.name.clone(), version: self.version }
    }
}

/// An invocation on its way to a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invocation {
    /// The invocation.
    pub id: InvocationId,
    /// The identifier that the function sees, a UUID.
    pub request_id: String,
    /// The event.
    pub payload: Bytes,
    /// The longest that it may take from its dispatch on.
    pub timeout: Duration,
    /// Data of a mobile client, as JSON.
    pub client_context: Option<String>,
    /// The X-Ray trace header.
    pub trace_id: Option<String>,
    /// The function's ARN as the caller named it, with its qualifier.
    pub function_arn: String,
    /// Whether the caller takes a streamed answer part by part.
    #[serde(default)]
    pub streamed: bool,
    /// The caller's span, for a worker of the same process. It crosses no wire: there the trace
    /// header tells what an invocation belongs to.
    #[serde(skip, default = "Span::none")]
    pub(crate) span: Span,
}

/// A part of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "a receiver must handle each part")]
pub enum StreamPart {
    /// The function has begun its answer.
    Begin {
        /// The content type of the body, if the function named one.
        content_type: Option<String>,
    },
    /// Bytes of the body.
    Data(Bytes),
}

/// How many parts of a streamed answer a worker may send before the caller has taken the first.
pub const STREAM_WINDOW: u32 = 16;

/// What happened on a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerEvent {
    /// The worker is there. Sent once at its start, and again when its connection was lost.
    Joined {
        /// What it has.
        capacity: WorkerCapacity,
        /// All sandboxes that it runs.
        sandboxes: Vec<RunningSandbox>,
        /// All VMs that are ready.
        #[serde(default)]
        vms: Vec<VmSpec>,
    },
    /// A VM is ready for sandboxes.
    VmReady {
        /// The VM.
        vm: VmId,
    },
    /// A VM is gone with all sandboxes in it, could not be started, or never was there.
    VmGone {
        /// The VM.
        vm: VmId,
        /// Why, if it was not stopped: the error with its causes.
        reason: Option<String>,
    },
    /// The worker lives.
    Beat,
    /// A sandbox is ready for invocations.
    Ready {
        /// The sandbox.
        sandbox: SandboxId,
        /// The time that its init took.
        init_duration: Duration,
    },
    /// A sandbox could not be made, and nothing of it is left.
    Failed {
        /// The sandbox.
        sandbox: SandboxId,
        /// The fault, the function's or the worker's.
        fault: StartFault,
    },
    /// A part of the answer to an invocation with `streamed`. At most [`STREAM_WINDOW`] more than
    /// were taken ([`WorkerCommand::Read`]), and two at the end. Sent before
    /// [`WorkerEvent::Ended`], whose payload is then empty or the function's error.
    Streamed {
        /// The sandbox.
        sandbox: SandboxId,
        /// The invocation.
        invocation: InvocationId,
        /// The part.
        part: StreamPart,
    },
    /// An invocation came to its end.
    Ended {
        /// The sandbox.
        sandbox: SandboxId,
        /// The invocation.
        invocation: InvocationId,
        /// What its caller gets.
        outcome: Outcome,
        /// Processor time that it used.
        cpu_time: Duration,
        /// Whether the sandbox can take another; if not, the worker destroys it and sends
        /// [`WorkerEvent::Gone`].
        reusable: bool,
    },
    /// An invocation did not reach the function: another sandbox may take it.
    Refused {
        /// The sandbox.
        sandbox: SandboxId,
        /// The invocation.
        invocation: InvocationId,
    },
    /// Lines of a sandbox's log, in order. Sent before the sandbox's last event.
    Logged {
        /// The sandbox.
        sandbox: SandboxId,
        /// The name of its stream.
        stream: String,
        /// The lines.
        events: Vec<LogEvent>,
    },
    /// A sandbox was frozen after invocations. Sent some time later, together with its log.
    Frozen {
        /// The sandbox.
        sandbox: SandboxId,
        /// Each invocation, and the time from its answer until the sandbox was frozen.
        invocations: Vec<(InvocationId, Duration)>,
    },
    /// A sandbox is gone with all that it held, or never was there.
    Gone {
        /// The sandbox.
        sandbox: SandboxId,
    },
}

/// What a worker has for sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerCapacity {
    /// Memory for sandboxes, in bytes.
    pub memory_bytes: u64,
    /// The most sandboxes that are attached to network interfaces.
    #[serde(default)]
    pub interface_slots: u32,
    /// What separates its sandboxes.
    #[serde(default)]
    pub boundary: Boundary,
}

/// What separates the sandboxes of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Boundary {
    /// The sandboxes alone.
    #[default]
    Sandbox,
    /// A VM for each account, with many sandboxes: the first generation of AWS Lambda.
    VmPerAccount,
    /// A VM for each sandbox: the second generation of AWS Lambda.
    VmPerSandbox,
}

impl RunningSandbox {
    pub(crate) fn key(&self) -> VersionKey {
        VersionKey { account: self.account, name: self.function.clone(), version: self.version }
    }
}

impl WorkerCapacity {
    /// Returns a capacity of so much memory, in bytes, for sandboxes without a network.
    #[must_use]
    pub fn of_memory(memory_bytes: u64) -> Self {
        Self { memory_bytes, interface_slots: 0, boundary: Boundary::Sandbox }
    }
}

/// A sandbox that a worker runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningSandbox {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its function.
    pub function: FunctionName,
    /// The account that owns the function.
    #[serde(default)]
    pub(crate) account: AccountIndex,
    /// The function's version.
    #[serde(default)]
    pub version: Version,
    /// The number of the deployment that it runs.
    pub deployment: u64,
    /// The network interface that it is attached to.
    #[serde(default)]
    pub interface: Option<InterfaceId>,
    /// The VM that it is in.
    #[serde(default)]
    pub vm: Option<VmId>,
    /// The invocation that runs in it.
    pub invocation: Option<InvocationId>,
}

/// A VM of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmSpec {
    /// The VM.
    pub vm: VmId,
    /// The account whose sandboxes it runs; `None` until its first sandbox.
    pub(crate) account: Option<AccountIndex>,
    /// The memory for sandboxes in it, in bytes.
    pub memory_bytes: u64,
}

/// What the caller of an invocation gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The function's answer, or its error as JSON.
    pub payload: Bytes,
    /// Whether the function failed.
    pub function_error: bool,
    /// The last 4 KB of the invocation's log, with Lambda's START, END and REPORT lines.
    pub log_tail: Bytes,
    /// What the invocation took.
    pub report: Report,
}

/// Why a sandbox could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartFault {
    /// The function's: its init raised an error, ended or took too long.
    Function {
        /// What the function or the worker says.
        error: FunctionError,
        /// The error's type.
        kind: String,
        /// The end of its output.
        log: Bytes,
        /// The name of the sandbox's log stream.
        log_stream: String,
        /// The time until the init failed.
        init_duration: Duration,
    },
    /// The machine's: another worker, or another time, may do.
    Worker {
        /// The error with its causes.
        reason: String,
    },
}

/// What is said of a function that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FunctionError {
    /// JSON of its runtime, which its caller gets as it is.
    Reported(Bytes),
    /// The worker's words, which its caller gets behind the identifier of the request.
    Described(String),
}
