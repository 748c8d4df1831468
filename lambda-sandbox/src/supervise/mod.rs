//! Runs real programs with the Runtime API on any platform: the lifecycle of a
//! [`Sandbox`](crate::Sandbox) over a small trait.
//!
//! A backend implements [`Platform`] for its kind of sandbox: it starts a program, provides its
//! outputs as byte streams, freezes it, kills it, and measures its usage. It provides the
//! connections to the Runtime API by [`Accept`](crate::runtime_api::Accept). [`supervise`] makes a
//! sandbox of both. It serves the Runtime API, enforces the time limits, writes the input, passes
//! the output on, and shuts extensions down.

mod bell;
mod farewell;
pub(crate) mod feed;
mod outlet;
pub(crate) mod output;
pub(crate) mod pipe;
mod platform;
mod report;
mod run;
mod serving;
mod supervised;

pub use outlet::{AHEAD_BYTES, Outlet, Stream};
pub use platform::{External, Platform, Sample, Started, What};
pub use supervised::supervise;
