//! The locks and atomics of a load. `tests/schedules.rs` compiles it with shuttle's in their place.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
pub(super) use std::sync::{Mutex, OnceLock, TryLockError};
