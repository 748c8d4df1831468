//! The log of a sandbox, of which the end is kept for the caller of its invocation.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::{LogLine, LogSink};

use crate::function::version::Version;
use crate::invocation::Report;

/// The log of one invocation, of which the end is kept.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    text: Vec<u8>,
}

impl LogTail {
    /// Adds Lambda's START line.
    pub(crate) fn start(&mut self, request_id: &str, version: Version) {
        self.line(format!("START RequestId: {request_id} Version: {version}").as_bytes());
    }

    /// Adds Lambda's line on an init that took too long.
    pub(crate) fn init_timed_out(&mut self, duration: Duration) {
        let ms = duration.as_secs_f64() * 1000.0;
        let line = format!("INIT_REPORT Init Duration: {ms:.2} ms\tPhase: init\tStatus: timeout");
        self.line(line.as_bytes());
    }

    /// Adds a line, which has no line break at its end.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.text.extend_from_slice(&line[line.len().saturating_sub(LOG_TAIL_BYTES)..]);
        self.text.push(b'\n');
        if self.text.len() > 2 * LOG_TAIL_BYTES {
            self.cut();
        }
    }

    /// Returns what was written so far, at the most 4 KB.
    pub(crate) fn text(mut self) -> Bytes {
        self.cut();
        self.text.into()
    }

    /// Ends with Lambda's END and REPORT lines and returns the last 4 KB.
    pub(crate) fn end(mut self, request_id: &str, report: &Report, status: &str) -> Bytes {
        self.line(format!("END RequestId: {request_id}").as_bytes());
        self.line(format!("REPORT RequestId: {request_id}\t{report}{status}").as_bytes());
        self.cut();
        self.text.into()
    }

    fn cut(&mut self) {
        self.text.drain(..self.text.len().saturating_sub(LOG_TAIL_BYTES));
    }
}

impl From<Bytes> for LogTail {
    fn from(text: Bytes) -> Self {
        Self { text: text.into() }
    }
}

/// Takes a sandbox's output: what it writes before an invocation counts to it, as in Lambda's log.
#[derive(Debug, Default)]
pub(super) struct SandboxLog {
    tail: Mutex<LogTail>,
}

impl SandboxLog {
    pub(super) fn start(&self, request_id: &str, version: Version) {
        self.tail().start(request_id, version);
    }

    pub(super) fn init_timed_out(&self, duration: Duration) {
        self.tail().init_timed_out(duration);
    }

    pub(super) fn take(&self) -> LogTail {
        std::mem::take(&mut self.tail())
    }

    fn tail(&self) -> MutexGuard<'_, LogTail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for SandboxLog {
    fn line(&self, line: LogLine) {
        self.tail().line(&line.text);
    }
}

const LOG_TAIL_BYTES: usize = 4096;

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
    fn log_keeps_its_end_in_bounded_memory() {
        let mut tail = LogTail::default();
        tail.start("id", Version::Latest);
        for _ in 0..10_000 {
            tail.line(b"0123456789");
            assert!(tail.text.capacity() <= 8 * LOG_TAIL_BYTES);
        }
        tail.line(&[b'x'; 100_000]);
        tail.line(b"last");
        let text = tail.end("id", &REPORT, "");
        assert_eq!(text.len(), LOG_TAIL_BYTES);
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.contains("x\nlast\nEND RequestId: id\nREPORT RequestId: id\tDuration"),
            "{text}"
        );
    }
}
