//! Ids of the worker protocol as the placement engine has them.

use crate::worker::protocol::{SandboxId, WorkerId};

/// Returns a sandbox's id as the engine has it.
pub(super) fn to_engine(sandbox: SandboxId) -> lambda_core::SandboxId {
    lambda_core::SandboxId(sandbox.0)
}

/// Returns a worker's id as the engine has it.
pub(super) fn to_core(worker: WorkerId) -> lambda_core::WorkerId {
    lambda_core::WorkerId(worker.0)
}
