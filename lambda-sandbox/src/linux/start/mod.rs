//! The start of a sandbox: the parts made ahead, the steps as data, and the new process that
//! carries them out.

pub(super) mod ahead;
pub(super) mod attach;
pub(super) mod carry;
mod clone_args;
pub(super) mod exec;
pub mod plan;
pub(super) mod processor;
pub(super) mod raw;
pub(super) mod spawn;
pub(super) mod terminal;
pub(super) mod wires;
