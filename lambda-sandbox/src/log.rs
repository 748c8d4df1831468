//! A function's output: lines with time stamps, bounded wherever they are held.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

/// Longest line that is passed on whole, in bytes. What is longer comes in pieces.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which of the program's outputs a line came from.
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
    /// When the line's end was read.
    pub at: SystemTime,
    /// Where it was written to.
    pub stream: Stream,
    /// Its bytes without the line feed: whatever the program wrote, not always UTF-8.
    pub text: Bytes,
    /// True when no line feed followed: the line was longer than [`LINE_BYTES_MAX`], or the program
    /// answered or ended in the middle of it.
    pub open: bool,
}

/// Takes a function's output.
///
/// Called from the task that reads the output: an implementor must not block, and must bound what it keeps.
pub trait LogSink: Send + Sync + fmt::Debug {
    /// Takes one line.
    fn line(&self, line: LogLine);

    /// Returns whether it does anything with lines. Otherwise output is not even read.
    fn wants_lines(&self) -> bool {
        true
    }

    /// Returns whether it takes output byte for byte ([`LogSink::bytes`]) in place of lines, which costs the host least.
    fn takes_bytes(&self) -> bool {
        false
    }

    /// Takes what was read of an output.
    fn bytes(&self, _stream: Stream, _bytes: &[u8]) {}
}

/// Forgets every line.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _line: LogLine) {}

    fn wants_lines(&self) -> bool {
        false
    }
}

/// Keeps the last lines in memory, within a bound.
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
    /// Makes a log that keeps at most `bytes_max` bytes of lines.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// Returns the lines kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<LogLine> {
        self.kept().lines.iter().cloned().collect()
    }

    /// Returns how many lines were dropped to stay within the bound.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.kept().dropped
    }

    /// Forgets what is kept, as at the start of an invocation.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// Returns the last `bytes_max` bytes of the output, as Lambda's log tail does with 4,096.
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

/// What a line costs beside its text, so that empty lines are bounded too.
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

/// Cuts a stream of bytes into lines and never holds more than [`LINE_BYTES_MAX`].
#[derive(Debug)]
pub struct LineSplitter {
    stream: Stream,
    open: BytesMut,
}

impl LineSplitter {
    /// Makes one for an output.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, open: BytesMut::new() }
    }

    /// Takes the next bytes, and passes on the lines that end in them.
    pub fn push(&mut self, mut bytes: &[u8], sink: &dyn LogSink) {
        let at = SystemTime::now();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.open.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|byte| *byte == b'\n');
            match end {
                // Most lines come whole.
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
        // Copied, not split off: a short line must not keep the whole buffer alive.
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
