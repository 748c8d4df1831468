//! What a host does with functions beyond running them, a file for each resource of the Lambda API.

pub(crate) mod aliases;
mod code;
mod concurrency;
pub(crate) mod event_invoke;
mod events;
#[cfg(feature = "images")]
mod images;
mod invocations;
pub(crate) mod layers;
mod mappings;
mod metrics;
mod permissions;
pub(crate) mod provisioned;
mod settings;
pub(crate) mod signing;
mod tags;
pub(crate) mod urls;
pub(crate) mod versions;
