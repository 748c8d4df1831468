//! Counts of durations up to fixed bounds, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::Value;

/// Durations, counted up to bounds in seconds.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// By bound, not cumulative; the last one counts what is longer than every bound.
    counts: Box<[AtomicU64]>,
    /// In nanoseconds: wraps after 584 years.
    sum_ns: AtomicU64,
}

/// The number and the sum of durations.
#[derive(Debug, Default)]
pub(super) struct Sum {
    count: AtomicU64,
    /// In nanoseconds: wraps after 584 years.
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Returns no counts up to `bounds`, which ascend.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos(duration), Ordering::Relaxed);
    }

    /// Returns the counts. Observations of the same moment may be in the counts and not yet in the
    /// sum.
    pub(super) fn value(&self) -> Value {
        let mut below = 0;
        let mut up_to = |count: &AtomicU64| {
            below += count.load(Ordering::Relaxed);
            below
        };
        let buckets = self.bounds.iter().zip(&self.counts);
        let buckets: Vec<_> = buckets.map(|(bound, count)| (*bound, up_to(count))).collect();
        let count = self.counts.last().map_or(0, up_to);
        Value::Histogram { buckets, count, sum: seconds(&self.sum_ns) }
    }

    /// Returns the bound below which a share of the observations lies, such as 0.99; `None` without
    /// observations, and for a share that reaches beyond the last bound.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let Value::Histogram { buckets, count, .. } = self.value() else { return None };
        let Value::Number(wanted) = Value::from(count) else { return None };
        let reached =
            |below: u64| matches!(Value::from(below), Value::Number(it) if it >= wanted * share);
        let found = buckets.iter().find(|(_, below)| reached(*below));
        found.filter(|_| count > 0).map(|(bound, _)| *bound)
    }
}

impl Sum {
    pub(super) fn observe(&self, duration: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos(duration), Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(super) fn value(&self) -> Value {
        Value::Summary { count: self.count.load(Ordering::Relaxed), sum: seconds(&self.sum_ns) }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: &AtomicU64) -> f64 {
    Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_counted_up_to_their_bound() {
        let histogram = Histogram::new(&[0.001, 0.01, 0.1]);
        assert_eq!(histogram.quantile(0.5), None);
        for ms in [0, 1, 2, 10, 50, 5000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let expected = Value::Histogram {
            buckets: vec![(0.001, 2), (0.01, 4), (0.1, 5)],
            count: 6,
            sum: 5.063,
        };
        assert_eq!(histogram.value(), expected);
        assert_eq!(histogram.quantile(0.5), Some(0.01));
        assert_eq!(histogram.quantile(0.99), None, "beyond the last bound");
    }
}
