//! The output of functions: lines with time stamps, and logs of limited size.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

/// The longest line in one piece, in bytes. Longer lines are split.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// The output from which a line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The time at which the end of the line was read.
    pub at: SystemTime,
    /// The output to which it was written.
    pub stream: Stream,
    /// The bytes without the line feed. They are not always UTF-8.
    pub text: Bytes,
    /// Whether no line feed followed. The line was longer than [`LINE_BYTES_MAX`], or the program
    /// answered or ended in the middle of it.
    pub open: bool,
}

/// Receives a function's output.
///
/// It is called from the task that reads the output. An implementation must not block, and must
/// limit what it keeps.
pub trait LogSink: Send + Sync + fmt::Debug {
    /// Receives a line.
    fn line(&self, line: LogLine);

    /// Returns whether it uses lines. If not, and it takes no bytes either, the output is dropped
    /// unread where that is possible.
    fn wants_lines(&self) -> bool {
        true
    }

    /// Returns whether it receives bytes ([`LogSink::bytes`]) instead of lines. That costs the host
    /// least.
    fn takes_bytes(&self) -> bool {
        false
    }

    /// Receives bytes as they were read.
    fn bytes(&self, _stream: Stream, _bytes: &[u8]) {}

    /// Returns whether it takes no more for now. Output then waits in the program's pipe as long as
    /// there is room, and the program after that.
    fn is_full(&self) -> bool {
        false
    }

    /// Learns that so many bytes of output were dropped before they reached it.
    fn lost(&self, _bytes: u64) {}
}

/// Drops every line.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _line: LogLine) {}

    fn wants_lines(&self) -> bool {
        false
    }
}

/// Keeps the last lines in memory, up to a limit.
#[derive(Debug)]
pub struct MemoryLog {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl MemoryLog {
    /// Creates a log that keeps at most `bytes_max` bytes, including an overhead for each line.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// Returns the kept lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<LogLine> {
        self.kept().lines.iter().cloned().collect()
    }

    /// Returns the number of lines that were dropped because of the limit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.kept().dropped
    }

    /// Removes the kept lines and resets the count of dropped ones.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// Returns the last `bytes_max` bytes of the kept output. Lambda's log tail has 4,096.
    #[must_use]
    pub fn tail(&self, bytes_max: usize) -> Vec<u8> {
        let mut tail = Vec::new();
        for line in &self.kept().lines {
            tail.extend_from_slice(&line.text);
            if !line.open {
                tail.push(b'\n');
            }
        }
        tail.split_off(tail.len().saturating_sub(bytes_max))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of a line beside its text, so that empty lines are limited too.
const LINE_OVERHEAD: usize = size_of::<LogLine>();

impl LogSink for MemoryLog {
    fn line(&self, line: LogLine) {
        let mut kept = self.kept();
        kept.bytes += line.text.len() + LINE_OVERHEAD;
        kept.lines.push_back(line);
        while kept.bytes > self.bytes_max {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.text.len() + LINE_OVERHEAD;
            kept.dropped += 1;
        }
    }
}

/// Splits a stream of bytes into lines. Holds at most [`LINE_BYTES_MAX`] bytes.
#[derive(Debug)]
pub struct LineSplitter {
    stream: Stream,
    open: BytesMut,
}

impl LineSplitter {
    /// Creates a splitter for an output.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, open: BytesMut::new() }
    }

    /// Adds bytes, and passes the lines that they complete on to `sink`.
    pub fn push(&mut self, mut bytes: &[u8], sink: &dyn LogSink) {
        let at = SystemTime::now();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.open.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|byte| *byte == b'\n');
            match end {
                // The common case: the line is complete in these bytes.
                Some(end) if self.open.is_empty() => {
                    let text = Bytes::copy_from_slice(&window[..end]);
                    sink.line(LogLine { at, stream: self.stream, text, open: false });
                }
                Some(end) => {
                    self.open.extend_from_slice(&window[..end]);
                    self.emit(at, false, sink);
                }
                None => self.open.extend_from_slice(window),
            }
            bytes = &bytes[end.map_or(window.len(), |end| end + 1)..];
            if self.open.len() == LINE_BYTES_MAX {
                self.emit(at, true, sink);
            }
        }
    }

    /// Passes on the unfinished line, if there is one.
    pub fn flush(&mut self, sink: &dyn LogSink) {
        if !self.open.is_empty() {
            self.emit(SystemTime::now(), true, sink);
        }
    }

    fn emit(&mut self, at: SystemTime, open: bool, sink: &dyn LogSink) {
        // Copied, because a slice of the buffer would keep the whole buffer alive.
        let text = Bytes::copy_from_slice(&self.open);
        self.open.clear();
        sink.line(LogLine { at, stream: self.stream, text, open });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_bounded() {
        let log = MemoryLog::new(1 << 20);
        let mut splitter = LineSplitter::new(Stream::Stdout);
        splitter.push(b"one\ntw", &log);
        splitter.push(b"o\n\n", &log);
        splitter.push(&vec![b'x'; LINE_BYTES_MAX + 3], &log);
        splitter.flush(&log);
        let lines: Vec<(usize, bool)> =
            log.lines().iter().map(|line| (line.text.len(), line.open)).collect();
        assert_eq!(lines, [(3, false), (3, false), (0, false), (LINE_BYTES_MAX, true), (3, true)]);
    }

    #[test]
    fn a_memory_log_keeps_the_last_lines_within_its_bound() {
        let log = MemoryLog::new(10_000);
        let mut splitter = LineSplitter::new(Stream::Stderr);
        for number in 0..100_000 {
            splitter.push(format!("line {number}\n").as_bytes(), &log);
        }
        assert!(log.dropped() > 99_000);
        assert!(log.tail(4096).len() <= 4096);
        assert!(log.tail(4096).ends_with(b"line 99999\n"));
        assert!(log.kept().bytes <= 10_000);
    }
}
