//! Metrics as they are handed out: families of samples with labels.

/// All samples of one metric.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Family {
    /// The name, in the form of Prometheus: `lambda_invocations_total`.
    pub name: String,
    /// One sentence, with Lambda's own name for the metric if it has one.
    pub help: String,
    /// The kind of all samples.
    pub kind: Kind,
    /// The samples; no two have the same labels.
    pub samples: Vec<Sample>,
}

/// What the values of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number that only grows, from 0 at the start of the host.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts of observations up to bounds.
    Histogram,
    /// The number and the sum of observations.
    Summary,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Names and values of labels.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a summary.
    Summary {
        /// The number of observations.
        count: u64,
        /// Their sum.
        sum: f64,
    },
    /// Of a histogram.
    Histogram {
        /// Bounds in ascending order, each with the number of observations up to it.
        buckets: Vec<(f64, u64)>,
        /// The number of all observations.
        count: u64,
        /// Their sum.
        sum: f64,
    },
}

impl Family {
    pub(super) fn new(name: &str, kind: Kind, help: &str) -> Self {
        Self { name: name.to_owned(), help: help.to_owned(), kind, samples: Vec::new() }
    }

    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: Value) {
        let labels = labels.iter().map(|(name, it)| ((*name).to_owned(), (*it).to_owned()));
        self.samples.push(Sample { labels: labels.collect(), value });
    }

    pub(super) fn with(mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> Self {
        self.add(labels, value.into());
        self
    }
}

impl From<u64> for Value {
    /// Exact up to 2^53, as every number in JSON and in Prometheus.
    #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 lose their last digits")]
    fn from(count: u64) -> Self {
        Self::Number(count as f64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}
