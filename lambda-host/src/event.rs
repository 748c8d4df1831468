//! What happens in a host, for whoever watches it.

use std::time::Duration;

use crate::function::config::FunctionName;
use crate::invocation::Report;

/// Something that happened in a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HostEvent {
    /// A sandbox is being made.
    SandboxStarting {
        /// The sandbox's number.
        sandbox: u64,
        /// Whose sandbox it is.
        function: FunctionName,
    },
    /// A sandbox can take invocations.
    SandboxReady {
        /// The sandbox's number.
        sandbox: u64,
        /// How long its init took.
        init_duration: Duration,
    },
    /// A sandbox could not be made.
    SandboxFailed {
        /// The sandbox's number.
        sandbox: u64,
        /// Why.
        reason: String,
    },
    /// A sandbox is gone, with all that it held.
    SandboxGone {
        /// The sandbox's number.
        sandbox: u64,
    },
    /// An invocation was answered.
    Answered {
        /// The invocation's identifier.
        request_id: String,
        /// Which sandbox answered.
        sandbox: u64,
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
}
