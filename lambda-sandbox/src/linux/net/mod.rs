//! Network namespaces and their interfaces.

pub(super) mod netlink;
pub(super) mod netns;
pub(in crate::linux) mod prepared;
