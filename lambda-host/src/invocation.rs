//! An invocation as its caller sees it: what goes in, what comes back, and the report in Lambda's words.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::function::version::Version;

/// The largest payload of an invocation, each way, in bytes (AWS: 6 MB).
pub const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

/// What a caller gives to an invocation.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) payload: Bytes,
    pub(crate) client_context: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl Request {
    /// Returns a request with a payload: JSON, up to [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), client_context: None, trace_id: None, request_id: None }
    }

    /// Adds what a mobile client tells of itself: a JSON object in ASCII.
    #[must_use]
    pub fn with_client_context(mut self, json: impl Into<String>) -> Self {
        self.client_context = Some(json.into());
        self
    }

    /// Sets the invocation's identifier, a UUID; a random one otherwise.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Adds the X-Ray trace header.
    #[must_use]
    pub fn with_trace_id(mut self, trace_id: impl Into<String>) -> Self {
        self.trace_id = Some(trace_id.into());
        self
    }
}

impl<T: Into<Bytes>> From<T> for Request {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

/// What an invocation came to. That the function failed is an answer too.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The invocation's identifier, a UUID.
    pub request_id: String,
    /// The version of the function that answered.
    pub version: Version,
    /// The function's answer, or its error as JSON (`errorType`, `errorMessage`).
    pub payload: Bytes,
    /// Whether the function failed: it raised an error, timed out, ran out of memory or ended.
    pub function_error: bool,
    /// The last 4 KB of the invocation's log, with Lambda's START, END and REPORT lines.
    pub log_tail: Bytes,
    /// What it took.
    pub report: Report,
}

/// What an invocation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// From the dispatch to a ready sandbox until its answer.
    pub duration: Duration,
    /// How long the sandbox's init took; `None` in a sandbox that was there already.
    pub init_duration: Option<Duration>,
    /// The function's memory in MB.
    pub memory_mb: u32,
    /// The most memory that the sandbox held so far, in bytes; `None` where the backend cannot tell.
    pub memory_peak_bytes: Option<u64>,
}

impl Report {
    /// Returns the billed duration: init and duration together, rounded up to a millisecond.
    ///
    /// Source: AWS, ["Lambda standardizes billing for INIT phase"][billing], since August 2025.
    ///
    /// [billing]: https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
    #[must_use]
    pub fn billed(&self) -> Duration {
        let nanos = (self.duration + self.init_duration.unwrap_or_default()).as_nanos();
        Duration::from_millis(u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    /// Tells whether the invocation had to wait for a new sandbox.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.init_duration.is_some()
    }

    /// Returns the most memory held in whole MB, rounded up.
    #[must_use]
    pub fn memory_used_mb(&self) -> Option<u64> {
        self.memory_peak_bytes.map(|bytes| bytes.div_ceil(1 << 20))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(f, "Duration: {:.2} ms\t", ms(self.duration))?;
        write!(f, "Billed Duration: {} ms\t", self.billed().as_millis())?;
        write!(f, "Memory Size: {} MB\t", self.memory_mb)?;
        if let Some(used_mb) = self.memory_used_mb() {
            write!(f, "Max Memory Used: {used_mb} MB\t")?;
        }
        if let Some(init) = self.init_duration {
            write!(f, "Init Duration: {:.2} ms\t", ms(init))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: Report = Report {
        duration: Duration::from_micros(1_204),
        init_duration: Some(Duration::from_micros(80_500)),
        memory_mb: 128,
        memory_peak_bytes: Some((40 << 20) + 1),
    };

    #[test]
    fn report_reads_as_lambda_writes_it() {
        let expected = "Duration: 1.20 ms\tBilled Duration: 82 ms\tMemory Size: 128 MB\t\
                        Max Memory Used: 41 MB\tInit Duration: 80.50 ms\t";
        assert_eq!(REPORT.to_string(), expected);
        let warm = Report { init_duration: None, memory_peak_bytes: None, ..REPORT };
        assert_eq!(
            warm.to_string(),
            "Duration: 1.20 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\t"
        );
    }
}
