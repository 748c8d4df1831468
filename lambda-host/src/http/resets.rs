//! Requests that an HTTP/2 client takes back. A client that opens and resets streams without end
//! makes the server begin work that nobody waits for (CVE-2023-44487).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The resets of a connection: a token bucket.
#[derive(Debug)]
pub(super) struct Resets(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled_at: Instant,
}

impl Resets {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Bucket { left: BURST, filled_at: now }))
    }

    /// Counts a reset. Tells whether the connection has made too many.
    pub(super) fn count(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled_at);
        let added = u32::try_from(passed.as_millis() / PERIOD.as_millis()).unwrap_or(u32::MAX);
        if added > 0 {
            bucket.left = bucket.left.saturating_add(added).min(BURST);
            bucket.filled_at = now;
        }
        let left = bucket.left.checked_sub(1);
        bucket.left = left.unwrap_or(0);
        left.is_none()
    }
}

/// How many streams may be reset at once.
const BURST: u32 = 100;
/// How long one more reset takes to be allowed.
const PERIOD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_ten_in_a_second() {
        let start = Instant::now();
        let resets = Resets::new(start);
        let over = |at_ms: u64, count: usize| {
            let at = start + Duration::from_millis(at_ms);
            (0..count).filter(|_| resets.count(at)).count()
        };
        assert_eq!(over(0, 105), 5);
        assert_eq!(over(99, 1), 1);
        assert_eq!(over(1000, 12), 2);
        assert_eq!(over(3_600_000, 101), 1);
    }
}
