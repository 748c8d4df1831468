//! Concurrency that functions take from the reservation of another function, by its owner.

use std::collections::BTreeMap;

use crate::id::FunctionId;

/// The pools of reserved concurrency, by the function that owns the reservation.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Pools {
    pub(super) by_owner: BTreeMap<FunctionId, Pool>,
}

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Pool {
    /// The accepted invocations of the sharing functions, beyond the provisioned sandboxes of each.
    pub(super) beyond: u32,
    /// What they are provisioned with.
    pub(super) provisioned: u32,
}
