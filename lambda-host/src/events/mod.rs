//! Events: invocations whose caller does not wait, and what reads them from queues and streams.
//!
//! An event is on disk when it is accepted, and until it was handled: it is run at least once. A
//! function that fails is tried again, twice by default; an event that is throttled, or finds no
//! room, waits. Then a destination is told.

pub(crate) mod deliver;
pub(crate) mod dispatch;
pub(crate) mod filter;
mod lanes;
mod outcome;
#[cfg(feature = "services")]
pub(crate) mod poll;
pub(crate) mod queue;
#[cfg(feature = "services")]
pub(crate) mod services;
mod store;
