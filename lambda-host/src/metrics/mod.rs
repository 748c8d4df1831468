//! Metrics of a host: Lambda's own by function and resource, and those of sandboxes, placement and
//! queues.
//!
//! A host keeps its metrics itself and hands out copies ([`Host::metrics`](crate::Host::metrics)).
//! There is no global recorder: two hosts in one process have metrics of their own. The number of
//! series is bounded. A program that uses another metrics library reads the families and feeds them
//! to it; [`prometheus()`] writes them as text.

mod custom;
mod emf;
mod family;
mod function;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the page has quantiles"))]
mod histogram;
mod prometheus;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the page has totals"))]
mod registry;

pub use self::family::{Family, Kind, Sample, Value};
pub(crate) use self::function::ResourceMetrics;
pub use self::function::{ColdStart, Throttle};
pub use self::prometheus::prometheus;
pub(crate) use self::registry::{Gauges, Registry, WorkerGauges};
