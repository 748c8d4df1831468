//! The caller's view of an invocation: request, answer, and report.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::function::limits::Constraint;
use crate::function::version::Version;

/// The largest payload of a request or an answer, in bytes (AWS: 6 MB).
pub const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The request of an invocation.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) payload: Bytes,
    pub(crate) client_context: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl Request {
    /// Returns a request with a payload: JSON, up to [`PAYLOAD_BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), client_context: None, trace_id: None, request_id: None }
    }

    /// Adds the client context of a mobile SDK: a JSON object in ASCII.
    #[must_use]
    pub fn with_client_context(mut self, json: impl Into<String>) -> Self {
        self.client_context = Some(json.into());
        self
    }

    /// Sets the invocation's identifier, a UUID; a random one otherwise. An identifier is 1 to 256
    /// letters, digits and signs of `-_.~:`; an invocation with any other is refused with
    /// [`Error::Invalid`].
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

    /// Returns the span of an invocation, in the caller's. Names are OpenTelemetry's, where it has
    /// one.
    pub(crate) fn span(&self, function: &str, trace: &str) -> tracing::Span {
        tracing::info_span!(
            "invocation",
            "faas.name" = function,
            "faas.invocation_id" = tracing::field::Empty,
            "faas.coldstart" = tracing::field::Empty,
            "aws.xray.trace_header" = trace,
            "otel.status_code" = tracing::field::Empty,
        )
    }

    /// Checks the payload, which may have so many bytes, and the identifier.
    pub(crate) fn check(&self, bytes_max: usize) -> Result<(), Error> {
        if self.payload.len() > bytes_max {
            return Err(Error::PayloadTooLarge { bytes_max });
        }
        // Validates the JSON without keeping it.
        serde_json::from_slice::<IgnoredAny>(&self.payload)
            .map_err(|error| Error::InvalidPayload { reason: error.to_string() })?;
        // A sandbox refuses other identifiers, which would count as its end.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
        let good =
            |it: &str| (1..=REQUEST_ID_BYTES_MAX).contains(&it.len()) && it.bytes().all(plain);
        match &self.request_id {
            Some(id) if !good(id) => Err(Error::invalid(
                "request_id",
                id,
                Constraint::Pattern("[A-Za-z0-9_.~:-]{1,256}"),
            )),
            _ => Ok(()),
        }
    }
}

const REQUEST_ID_BYTES_MAX: usize = 256;

impl<T: Into<Bytes>> From<T> for Request {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

/// The answer of an invocation. The error of a function is also an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The invocation's identifier, a UUID.
    pub request_id: String,
    /// The version of the function that answered.
    pub version: Version,
    /// The function's answer, or its error as JSON with `errorType` and `errorMessage`.
    pub payload: Bytes,
    /// Whether the function failed: it raised an error, timed out, ran out of memory or exited.
    pub function_error: bool,
    /// The last 4 KB of the invocation's log, with Lambda's START, END and REPORT lines.
    pub log_tail: Bytes,
    /// Duration and memory of the invocation.
    pub report: Report,
}

/// Duration and memory of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The time from the dispatch to a ready sandbox until the answer.
    pub duration: Duration,
    /// The duration of the sandbox's init; `None` if the sandbox was already ready.
    pub init_duration: Option<Duration>,
    /// The duration of the sandbox's restore from a snapshot; `None` if it was not restored, or was
    /// already ready.
    #[serde(default)]
    pub restore_duration: Option<Duration>,
    /// The part of the restore that is billed: that of the function's hooks.
    #[serde(default)]
    pub billed_restore_duration: Option<Duration>,
    /// The configured memory of the function, in MB.
    pub memory_mb: u32,
    /// The highest memory use of the sandbox so far, in bytes; `None` if the backend cannot measure
    /// it.
    pub memory_peak_bytes: Option<u64>,
}

impl Report {
    /// Returns the billed duration: the sum of init, or of the hooks after a restore, and duration,
    /// rounded up to a millisecond.
    ///
    /// Source: AWS, ["Lambda standardizes billing for INIT phase"][billing], since August 2025.
    ///
    /// [billing]: https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
    #[must_use]
    pub fn billed(&self) -> Duration {
        let before = self.init_duration.or(self.billed_restore_duration).unwrap_or_default();
        let nanos = (self.duration + before).as_nanos();
        Duration::from_millis(u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    /// Returns whether the invocation waited for a new sandbox.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.init_duration.is_some() || self.restore_duration.is_some()
    }

    /// Returns the highest memory use of the sandbox so far, in MB, rounded up.
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
        if let Some(restore) = self.restore_duration {
            write!(f, "Restore Duration: {:.2} ms\t", ms(restore))?;
        }
        if let Some(billed) = self.billed_restore_duration {
            write!(f, "Billed Restore Duration: {} ms\t", billed.as_nanos().div_ceil(1_000_000))?;
        }
        Ok(())
    }
}

/// Returns the header of a new trace that is not sampled, as AWS X-Ray writes it.
pub(crate) fn trace_id(now_ms: u64) -> String {
    let (root, parent) = (uuid::Uuid::new_v4().simple().to_string(), uuid::Uuid::new_v4());
    let parent = parent.as_u64_pair().1;
    format!("Root=1-{:08x}-{};Parent={parent:016x};Sampled=0", now_ms / 1000, &root[..24])
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: Report = Report {
        duration: Duration::from_micros(1_204),
        init_duration: Some(Duration::from_micros(80_500)),
        restore_duration: None,
        billed_restore_duration: None,
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
