//! Events of a host, for observers.

use std::time::Duration;

use crate::function::name::FunctionName;
use crate::invocation::Report;
use crate::worker::protocol::{SandboxId, VmId, WorkerId};

/// An event of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HostEvent {
    /// The start of a sandbox was commanded.
    SandboxStarting {
        /// The id of the new sandbox; later events name it.
        sandbox: SandboxId,
        /// The worker that starts it.
        worker: WorkerId,
        /// The function that it will run.
        function: FunctionName,
    },
    /// A sandbox can take invocations.
    SandboxReady {
        /// The sandbox that became ready.
        sandbox: SandboxId,
        /// The duration of its init.
        init_duration: Duration,
    },
    /// A sandbox could not be started.
    SandboxFailed {
        /// The sandbox that was not started.
        sandbox: SandboxId,
        /// The error with its causes.
        reason: String,
    },
    /// A sandbox ended, and all its resources are free.
    SandboxGone {
        /// The sandbox that ended.
        sandbox: SandboxId,
    },
    /// An invocation was answered.
    Answered {
        /// The invocation's identifier, a UUID.
        request_id: String,
        /// The sandbox that answered.
        sandbox: SandboxId,
        /// Whether the answer is the function's error.
        function_error: bool,
        /// Duration and memory of the invocation.
        report: Report,
    },
    /// An invocation was rejected.
    Rejected {
        /// The invocation's identifier, a UUID.
        request_id: String,
        /// Why it was rejected, in words.
        reason: String,
    },
    /// A virtual machine can take sandboxes.
    VmReady {
        /// The VM that became ready.
        vm: VmId,
        /// The worker that runs it.
        worker: WorkerId,
    },
    /// A virtual machine ended with all its sandboxes, or could not be started.
    VmGone {
        /// The VM that is gone.
        vm: VmId,
        /// The worker that ran it.
        worker: WorkerId,
        /// Why, if it was not stopped: the error with its causes.
        reason: Option<String>,
    },
    /// The placement engine asks for another worker.
    WorkerWanted {
        /// The availability zone of the wanted worker.
        zone: u32,
    },
    /// A drained worker is empty, and the host has released it.
    WorkerRetired {
        /// The worker's number.
        worker: u32,
    },
}
