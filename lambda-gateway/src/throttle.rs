//! Rates of routes: a token bucket. The clock is an argument.

use serde::Deserialize;

/// The rate of a route.
///
/// Source: AWS, [Throttle requests to your REST APIs][doc]: a token bucket.
///
/// [doc]: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Throttle {
    /// Requests per second in the long run.
    pub rate: f64,
    /// How many requests may come at once; 0 refuses all.
    pub burst: u32,
}

impl Throttle {
    /// Returns a rate in requests per second, and how many requests may come at once.
    #[must_use]
    pub fn new(rate: f64, burst: u32) -> Self {
        Self { rate, burst }
    }
}

/// The tokens of a route. Begins full.
#[derive(Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at_ms: u64,
}

impl Bucket {
    /// Returns a full bucket.
    #[must_use]
    pub fn new(throttle: Throttle, unix_ms: u64) -> Self {
        Self { tokens: f64::from(throttle.burst), filled_at_ms: unix_ms }
    }

    /// Takes a token; tells whether there was one. A clock that goes back adds nothing.
    pub fn take(&mut self, throttle: Throttle, unix_ms: u64) -> bool {
        let passed_ms = unix_ms.saturating_sub(self.filled_at_ms);
        // A year is more than enough to fill any bucket, and exact in f64.
        let passed_ms = u32::try_from(passed_ms).unwrap_or(u32::MAX);
        let added = f64::from(passed_ms) * throttle.rate.max(0.0) / 1000.0;
        self.tokens = (self.tokens + added).min(f64::from(throttle.burst));
        self.filled_at_ms = self.filled_at_ms.max(unix_ms);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, throttle: Throttle, at: u64, requests: usize) -> usize {
        (0..requests).filter(|_| bucket.take(throttle, at)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let throttle = Throttle::new(10.0, 5);
        let mut bucket = Bucket::new(throttle, 1000);
        assert_eq!(taken(&mut bucket, throttle, 1000, 9), 5);
        assert_eq!(taken(&mut bucket, throttle, 1099, 9), 0);
        assert_eq!(taken(&mut bucket, throttle, 1300, 9), 3);
        assert_eq!(taken(&mut bucket, throttle, 500, 9), 0, "the clock went back");
        assert_eq!(taken(&mut bucket, throttle, 1_000_000, 9), 5);
        let none = Throttle::new(10.0, 0);
        assert_eq!(taken(&mut Bucket::new(none, 0), none, 10_000, 3), 0);
    }
}
