//! The time of day, for what people and later starts of a host read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::worker::civil;

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Renders milliseconds since 1970 as `2026-11-23T21:19:54.007Z`.
pub(crate) fn iso_8601(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc() {
        assert_eq!(iso_8601(1_795_468_794_007), "2026-11-23T21:19:54.007Z");
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00.000Z");
    }
}
