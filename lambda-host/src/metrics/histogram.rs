//! Counts of durations up to fixed bounds.

use std::time::Duration;

use super::family::Value;

/// Durations, counted up to bounds in seconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// By bound; not cumulative. What is longer than every bound is only in `count`.
    counts: Box<[u64]>,
    count: u64,
    sum: Duration,
}

/// The number and the sum of durations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Returns no counts up to `bounds`, which ascend.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = vec![0; bounds.len()].into_boxed_slice();
        Self { bounds, counts, count: 0, sum: Duration::ZERO }
    }

    pub(super) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    pub(super) fn value(&self) -> Value {
        let mut below = 0;
        let buckets = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            below += count;
            (*bound, below)
        });
        Value::Histogram {
            buckets: buckets.collect(),
            count: self.count,
            sum: self.sum.as_secs_f64(),
        }
    }

    /// Returns the bound below which a share of the observations lies, such as 0.99; `None` without observations, and
    /// for a share that reaches beyond the last bound.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let Value::Number(all) = Value::from(self.count) else { return None };
        let mut below = 0;
        let reached = |(bound, count): (&f64, &u64)| {
            below += count;
            let Value::Number(below) = Value::from(below) else { return None };
            (below >= all * share).then_some(*bound)
        };
        if self.count == 0 {
            return None;
        }
        self.bounds.iter().zip(&self.counts).find_map(reached)
    }
}

impl Sum {
    pub(super) fn observe(&mut self, duration: Duration) {
        self.count += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn value(&self) -> Value {
        Value::Summary { count: self.count, sum: self.sum.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_counted_up_to_their_bound() {
        let mut histogram = Histogram::new(&[0.001, 0.01, 0.1]);
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
