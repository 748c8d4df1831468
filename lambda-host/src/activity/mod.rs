//! What a host does now and did lately: its workers, sandboxes and invocations, for people who
//! watch it.
//!
//! The driver tells an [`Observer`] what happens. The state behind it is pure: times come in as
//! arguments.

#![cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the page reads all of it"))]

mod invocations;
mod observer;
mod rates;
mod sandboxes;

#[cfg(feature = "http")]
pub(crate) use self::invocations::{Invocation, Outcome};
pub(crate) use self::observer::Observer;
#[cfg(feature = "http")]
pub(crate) use self::rates::SECONDS as INTERVAL_SECONDS;
#[cfg(feature = "http")]
pub(crate) use self::sandboxes::SandboxState;
