//! Ids of the worker protocol as the placement engine has them.

use lambda_core::{Decided, Explanation};

use crate::worker::protocol::{SandboxId, WorkerId};

/// Returns a sandbox's id as the engine has it.
pub(super) fn to_engine(sandbox: SandboxId) -> lambda_core::SandboxId {
    lambda_core::SandboxId(sandbox.0)
}

/// Returns a worker's id as the engine has it.
pub(super) fn to_core(worker: WorkerId) -> lambda_core::WorkerId {
    lambda_core::WorkerId(worker.0)
}

/// Tells whether an explanation is of the placement of a sandbox.
pub(super) fn is_of(explanation: &Explanation, sandbox: SandboxId) -> bool {
    matches!(explanation.decided, Decided::Placed { sandbox: Some(it), .. } if it.0 == sandbox.0)
}
