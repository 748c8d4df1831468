//! Token buckets that limit a sandbox's traffic. Pure: the time is an argument.

use std::num::NonZeroU64;
use std::time::Duration;

/// A sandbox's rate limits. `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the two directions there are")]
pub struct Rates {
    /// Bytes per second from the sandbox.
    pub up_bytes_per_second: Option<NonZeroU64>,
    /// Bytes per second to the sandbox.
    pub down_bytes_per_second: Option<NonZeroU64>,
}

/// A token bucket. A token is a byte; the burst is 50 ms of the rate, and at least two of the
/// largest packets.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Option<NonZeroU64>,
    tokens: u64,
    filled_at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: Option<NonZeroU64>) -> Self {
        let mut bucket = Self { rate, tokens: 0, filled_at: Duration::ZERO };
        bucket.tokens = bucket.burst();
        bucket
    }

    fn burst(&self) -> u64 {
        self.rate.map_or(0, |rate| (rate.get() / 20).max(BURST_MIN))
    }

    /// Takes `bytes` at time `now` since a fixed start. Returns whether they may pass.
    pub(crate) fn take(&mut self, now: Duration, bytes: usize) -> bool {
        let Some(rate) = self.rate else { return true };
        let passed = now.saturating_sub(self.filled_at);
        // The tokens are capped at a burst, so a long pause cannot overflow.
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let added = u128::from(rate.get()) * u128::from(micros) / 1_000_000;
        if added > 0 {
            let added = u64::try_from(added).unwrap_or(u64::MAX);
            self.tokens = self.tokens.saturating_add(added).min(self.burst());
            self.filled_at = now;
        }
        let Some(left) = self.tokens.checked_sub(bytes as u64) else { return false };
        self.tokens = left;
        true
    }

    /// Returns how long after `now` the largest packet may pass.
    pub(crate) fn wait_for_largest(&self, now: Duration) -> Duration {
        self.wait(now, 65_545)
    }

    fn wait(&self, now: Duration, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let missing = (bytes as u64).saturating_sub(self.tokens);
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(rate.get());
        let due = self.filled_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_sub(now)
    }
}

const BURST_MIN: u64 = 2 * 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_second_the_rate_and_one_burst_pass() {
        let mut bucket = Bucket::new(NonZeroU64::new(10_000_000));
        let mut passed = 0_u64;
        for microsecond in (0..1_000_000).step_by(10) {
            if bucket.take(Duration::from_micros(microsecond), 1500) {
                passed += 1500;
            }
        }
        assert!((9_900_000..=10_000_000 + 500_000).contains(&passed), "{passed}");
    }

    #[test]
    fn a_pause_earns_one_burst() {
        let mut bucket = Bucket::new(NonZeroU64::new(1));
        let later = Duration::from_secs(u64::from(u32::MAX) * 1000);
        assert!(bucket.take(later, 2 * 65_536));
        assert!(!bucket.take(later, 2));
        assert_eq!(bucket.wait(later, 2), Duration::from_secs(2));
    }

    #[test]
    fn without_a_rate_all_passes() {
        assert!(Bucket::new(None).take(Duration::ZERO, usize::MAX));
    }
}
