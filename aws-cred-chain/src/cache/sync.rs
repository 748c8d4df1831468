//! The locks and atomics of a load. `tests/schedules.rs` compiles `flight.rs` with those of
//! shuttle.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
pub(super) use std::sync::{Mutex, OnceLock, TryLockError};
