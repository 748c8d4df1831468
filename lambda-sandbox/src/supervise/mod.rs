//! Drives real programs behind the Runtime API, whatever runs them: the lifecycle of a [`Sandbox`](crate::Sandbox) over a small trait.
//!
//! A backend implements [`Platform`] for its kind of sandbox: it starts a program, passes on its outputs as byte streams, stops and counts
//! it. How requests to the Runtime API come out of the sandbox is [`Accept`](crate::runtime_api::Accept). [`supervise`] makes a sandbox of
//! both: it serves the Runtime API, holds the time limits, feeds the input, passes the output on and tells extensions of the end.

mod bell;
mod farewell;
pub(crate) mod feed;
mod outlet;
pub(crate) mod output;
pub(crate) mod pipe;
mod platform;
mod run;
mod supervised;

pub use outlet::{AHEAD_BYTES, Outlet, Stream};
pub use platform::{External, Platform, Sample, Started, What};
pub use supervised::supervise;
