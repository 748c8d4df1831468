//! Network namespaces, and the interfaces in them.

pub(super) mod netlink;
pub(super) mod netns;
