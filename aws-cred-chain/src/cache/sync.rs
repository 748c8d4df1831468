//! What threads share in a load. `tests/schedules.rs` puts others in their place, which try many schedules.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
pub(super) use std::sync::{Mutex, OnceLock, TryLockError};
