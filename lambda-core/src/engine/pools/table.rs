//! The table of what is taken out of functions' reserved concurrency.

use std::collections::BTreeMap;

use crate::id::FunctionId;

/// What the functions that share take out of the reserved concurrency of another, by that one.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Pools {
    pub(super) by_owner: BTreeMap<FunctionId, Pool>,
}

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Pool {
    /// Accepted invocations beyond what each of them is provisioned with.
    pub(super) beyond: u32,
    /// What they are provisioned with.
    pub(super) provisioned: u32,
}
