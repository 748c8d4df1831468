//! Control groups of version 1, version 2 or both: limits and usage.

pub(super) mod block_io;
pub(super) mod cgroup;
pub(super) mod counters;
pub(super) mod cpuset;
pub(super) mod delegation;
pub(super) mod files;
pub(super) mod kept_groups;
#[cfg(feature = "systemd")]
pub(super) mod scope;
