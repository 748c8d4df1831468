//! The seam between the driver and a worker, which may be in this process or on another machine: what
//! crosses it is data alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::registry::Function;
use crate::invocation::{Answer, LogTail};

/// Names a sandbox; given by the placement engine, never used twice.
pub(crate) type SandboxNumber = u64;
/// Names an invocation; given by the driver, never used twice.
pub(crate) type InvocationNumber = u64;

/// Makes sandboxes and runs invocations in them, as the driver says.
///
/// Whoever implements it answers each command with the events that its documentation names, in any order
/// and at any time, and never blocks in [`Worker::carry_out`].
pub(crate) trait Worker: Send + Sync + fmt::Debug {
    /// Begins to carry a command out.
    fn carry_out(&self, command: WorkerCommand);
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub(crate) enum WorkerCommand {
    /// Make a sandbox. Answered by [`WorkerEvent::Ready`] or [`WorkerEvent::Failed`].
    Start {
        /// Its number.
        sandbox: SandboxNumber,
        /// What runs in it, all its life.
        function: Arc<Function>,
    },
    /// Run an invocation in a ready sandbox. Answered by [`WorkerEvent::Ended`].
    Dispatch {
        /// Where.
        sandbox: SandboxNumber,
        /// What.
        invocation: Invocation,
    },
    /// Destroy an idle sandbox. Answered by [`WorkerEvent::Gone`].
    Stop {
        /// Which.
        sandbox: SandboxNumber,
    },
    /// Destroy a sandbox at once, whatever it does. Answered by [`WorkerEvent::Ended`] for an invocation that
    /// runs, and [`WorkerEvent::Gone`].
    Kill {
        /// Which.
        sandbox: SandboxNumber,
    },
    /// Nothing more will be said of a sandbox that is gone. Not answered.
    Forget {
        /// Which.
        sandbox: SandboxNumber,
    },
}

/// An invocation on its way to a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// Its number.
    pub(crate) number: InvocationNumber,
    /// Its identifier, a UUID.
    pub(crate) request_id: String,
    /// The event.
    pub(crate) payload: Bytes,
    /// The function's timeout, from the dispatch on.
    pub(crate) timeout: Duration,
    /// What a mobile client tells of itself, as JSON.
    pub(crate) client_context: Option<String>,
    /// The X-Ray trace header.
    pub(crate) trace_id: Option<String>,
}

/// What a worker tells.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// A sandbox is ready for invocations.
    Ready {
        /// Which.
        sandbox: SandboxNumber,
        /// How long its init took.
        init_duration: Duration,
    },
    /// A sandbox could not be made, and nothing of it is left.
    Failed {
        /// Which.
        sandbox: SandboxNumber,
        /// Whose fault it is.
        fault: StartFault,
    },
    /// An invocation came to its end.
    Ended {
        /// Where.
        sandbox: SandboxNumber,
        /// Which.
        invocation: InvocationNumber,
        /// What it came to.
        answer: Answer,
        /// Processor time that it used.
        cpu_time: Duration,
        /// Whether the sandbox can take another; if not, the worker destroys it and tells of it.
        reusable: bool,
    },
    /// An invocation did not reach the function: another sandbox may take it.
    Refused {
        /// Where.
        sandbox: SandboxNumber,
        /// Which.
        invocation: InvocationNumber,
    },
    /// A sandbox is gone, with all that it held.
    Gone {
        /// Which.
        sandbox: SandboxNumber,
    },
}

/// Why a sandbox could not be made.
#[derive(Debug)]
pub(crate) enum StartFault {
    /// The function's: its init raised an error, ended or took too long.
    Function {
        /// The error as JSON, as its caller sees it.
        payload: Bytes,
        /// The error's type.
        kind: String,
        /// The end of what it wrote.
        log: LogTail,
        /// How long the init took until it failed.
        init_duration: Duration,
    },
    /// The machine's: another worker, or another time, may do.
    Worker {
        /// The error with its causes.
        reason: String,
    },
}
