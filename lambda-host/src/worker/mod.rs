//! A worker: makes sandboxes and runs invocations in them.

pub(crate) mod failure;
pub(crate) mod life;
pub(crate) mod local;
pub(crate) mod protocol;
#[cfg(feature = "roles")]
pub(crate) mod roles;
pub(crate) mod runtime;
pub(crate) mod specification;
