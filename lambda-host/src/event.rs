//! What happens in a host, for whoever watches it.

use std::time::Duration;

use crate::function::name::FunctionName;
use crate::invocation::Report;
use crate::worker::protocol::{SandboxId, WorkerId};

/// Something that happened in a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HostEvent {
    /// A sandbox is being made.
    SandboxStarting {
        /// The sandbox.
        sandbox: SandboxId,
        /// The worker that makes it.
        worker: WorkerId,
        /// The function that it will run.
        function: FunctionName,
    },
    /// A sandbox can take invocations.
    SandboxReady {
        /// The sandbox.
        sandbox: SandboxId,
        /// How long its init took.
        init_duration: Duration,
    },
    /// A sandbox could not be made.
    SandboxFailed {
        /// The sandbox.
        sandbox: SandboxId,
        /// Why.
        reason: String,
    },
    /// A sandbox is gone, with all that it held.
    SandboxGone {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// An invocation was answered.
    Answered {
        /// The invocation's identifier.
        request_id: String,
        /// Which sandbox answered.
        sandbox: SandboxId,
        /// Whether the function failed.
        function_error: bool,
        /// What it took.
        report: Report,
    },
    /// An invocation was refused.
    Rejected {
        /// The invocation's identifier.
        request_id: String,
        /// Why.
        reason: String,
    },
    /// The engine asks for another worker.
    WorkerWanted {
        /// The availability zone to have it in.
        zone: u32,
    },
    /// A worker holds no sandbox any more and was let go.
    WorkerRetired {
        /// The worker's number.
        worker: u32,
    },
}
