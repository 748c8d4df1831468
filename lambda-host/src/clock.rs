//! The time of day, for what people and later starts of a host read.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
