//! Locks that a panicking holder does not poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever a panicking holder left: what is guarded here is valid after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
