//! Metrics of a host, and what is measured when they are read.

use std::borrow::Cow;

use crate::host::Host;
use crate::metrics::{Family, Gauges, ResourceMetrics};

impl Host {
    /// Returns the metrics since the start of the host: Lambda's, by function and resource, and the
    /// host's own. Makes a copy of all, some milliseconds for thousands of functions; invocations
    /// do not wait for it. A host [without metrics](crate::HostBuilder::without_metrics) counts
    /// nothing: all is 0. [`prometheus`](crate::metrics::prometheus()) writes them as text.
    #[must_use]
    pub fn metrics(&self) -> Vec<Family> {
        let gauges = self.gauges();
        self.observer().registry().families(&gauges)
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let activity = self.observer().activity();
        let (waiting, workers) = (activity.waiting, activity.sandboxes.gauges());
        drop(activity);
        let queue = self.event_queue();
        Gauges {
            waiting,
            workers,
            events_waiting: queue.waiting() as u64,
            event_bytes: queue.bytes(),
            event_age: queue.oldest_age(),
            concurrency_max: self.concurrency_max().into(),
            functions: self.functions_count() as u64,
        }
    }

    /// Returns the name of a function in metrics: functions of other accounts than the host's own
    /// bear their account's number, as in `123456789012:function:name`.
    pub(crate) fn series<'a>(&self, function: &'a str) -> Cow<'a, str> {
        self.account_index().series(self.arns().account(), function)
    }

    /// Counts something of a function, if the host counts.
    pub(crate) fn count(&self, function: &str, count: impl FnOnce(&ResourceMetrics)) {
        if let Some(metrics) = self.observer().counted() {
            let series = self.series(function);
            count(&metrics.resource(&series, &series));
        }
    }
}
