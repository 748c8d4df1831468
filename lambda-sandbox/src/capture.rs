//! The outputs of a program that is run to its end in one call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::log::{LineSplitter, LogLine, LogSink, NoLog, Stream};
use crate::{EndedBy, Finished};

/// The most bytes of each output that [`Completed`] keeps, if the specification has no limit of
/// output.
pub const OUTPUT_BYTES_KEPT: usize = 16 << 20;

/// A program that has run to its end, with its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completed {
    /// How and why it ended, and its usage.
    pub finished: Finished,
    /// Its standard output, byte for byte.
    pub stdout: Bytes,
    /// Its standard error, byte for byte.
    pub stderr: Bytes,
    /// Whether output is missing: beyond [`OUTPUT_BYTES_KEPT`] of each output, or beyond
    /// [`crate::Limits::output_bytes_max`] of both together.
    pub truncated: bool,
}

/// Collects both outputs up to a limit, and passes the lines on to a log.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Mutex<Kept>,
    log: Arc<dyn LogSink>,
    /// Cut standard output and standard error into lines for the log.
    splitters: Mutex<[LineSplitter; 2]>,
}

impl Default for Capture {
    fn default() -> Self {
        Self::with_log(Arc::new(NoLog))
    }
}

#[derive(Debug, Default)]
struct Kept {
    stdout: BytesMut,
    stderr: BytesMut,
    truncated: bool,
}

impl Capture {
    /// Replaces `log` by a capture that passes the lines on to it.
    pub(crate) fn of(log: &mut Arc<dyn LogSink>) -> Arc<Self> {
        let capture = Arc::new(Self::with_log(Arc::clone(log)));
        *log = Arc::clone(&capture) as Arc<dyn LogSink>;
        capture
    }

    /// Combines the outputs with the end of the program.
    pub(crate) fn completed(&self, finished: Finished) -> Completed {
        let (stdout, stderr, truncated) = self.take();
        let truncated = truncated || finished.ended_by == EndedBy::Output;
        Completed { finished, stdout, stderr, truncated }
    }

    fn with_log(log: Arc<dyn LogSink>) -> Self {
        let splitters = [Stream::Stdout, Stream::Stderr].map(LineSplitter::new);
        Self { kept: Mutex::default(), log, splitters: Mutex::new(splitters) }
    }

    /// Takes both outputs. The last value says whether output is missing.
    pub(crate) fn take(&self) -> (Bytes, Bytes, bool) {
        let mut splitters = self.splitters.lock().unwrap_or_else(PoisonError::into_inner);
        splitters.iter_mut().for_each(|splitter| splitter.flush(self.log.as_ref()));
        drop(splitters);
        let kept = std::mem::take(&mut *self.kept());
        (kept.stdout.freeze(), kept.stderr.freeze(), kept.truncated)
    }

    fn keep(&self, stream: Stream, bytes: &[u8]) {
        let mut guard = self.kept();
        let kept = &mut *guard;
        let output = match stream {
            Stream::Stdout => &mut kept.stdout,
            Stream::Stderr => &mut kept.stderr,
        };
        let room = OUTPUT_BYTES_KEPT - output.len();
        kept.truncated |= bytes.len() > room;
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for Capture {
    /// Backends without pipes deliver lines.
    fn line(&self, line: LogLine) {
        let ends: &[u8] = if line.open { b"" } else { b"\n" };
        self.keep(line.stream, &line.text);
        self.keep(line.stream, ends);
        self.log.line(line);
    }

    fn takes_bytes(&self) -> bool {
        true
    }

    fn bytes(&self, stream: Stream, bytes: &[u8]) {
        self.keep(stream, bytes);
        if self.log.wants_lines() {
            let mut splitters = self.splitters.lock().unwrap_or_else(PoisonError::into_inner);
            splitters[usize::from(stream == Stream::Stderr)].push(bytes, self.log.as_ref());
        }
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn lost(&self, bytes: u64) {
        self.kept().truncated = true;
        self.log.lost(bytes);
    }
}
