//! The log of a server's sandbox: sends its output to the client that has the sandbox.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::message::{Message, Reply};
use super::outbox::Outbox;
use crate::{LogLine, LogSink, Stream};

/// Sends output to the client's log.
#[derive(Debug)]
pub(super) struct Forward {
    to: Mutex<Destination>,
    /// Bytes that were dropped since the client was told last.
    lost: AtomicU64,
}

/// The connection that has the sandbox, and what its client's log takes.
#[derive(Debug, Clone)]
struct Destination {
    outbox: Outbox,
    wants_lines: bool,
    takes_bytes: bool,
}

impl Forward {
    pub(super) fn new(outbox: &Outbox) -> Self {
        let to = Destination { outbox: outbox.clone(), wants_lines: false, takes_bytes: false };
        Self { to: Mutex::new(to), lost: AtomicU64::new(0) }
    }

    pub(super) fn attach(&self, outbox: &Outbox, wants_lines: bool, takes_bytes: bool) {
        *self.to() = Destination { outbox: outbox.clone(), wants_lines, takes_bytes };
    }

    /// Keeps output of a parked sandbox from growing: it is frozen, and has none.
    pub(super) fn detach(&self) {
        let closed = Outbox::default();
        closed.close();
        self.to().outbox = closed;
    }

    fn to(&self) -> MutexGuard<'_, Destination> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, reply: &Reply, body: Bytes, bytes: usize) {
        let outbox = self.to().outbox.clone();
        let lost = self.lost.swap(0, Ordering::AcqRel);
        let told = lost == 0 || tell(&outbox, &Reply::Lost(lost));
        if !told || !outbox.try_push(Message::new(reply, body)) {
            let lost = if told { 0 } else { lost };
            self.lost.fetch_add(lost + bytes as u64, Ordering::AcqRel);
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let lost = self.lost.load(Ordering::Acquire);
        if lost > 0 {
            self.to().outbox.push(Message::new(&Reply::Lost(lost), Bytes::new()));
        }
    }
}

impl LogSink for Forward {
    fn line(&self, line: LogLine) {
        let bytes = line.text.len();
        self.send(&Reply::Line(line), Bytes::new(), bytes);
    }

    fn wants_lines(&self) -> bool {
        self.to().wants_lines
    }

    fn takes_bytes(&self) -> bool {
        self.to().takes_bytes
    }

    fn bytes(&self, stream: Stream, bytes: &[u8]) {
        self.send(&Reply::Output(stream), Bytes::copy_from_slice(bytes), bytes.len());
    }

    fn is_full(&self) -> bool {
        self.to().outbox.is_full()
    }
}

/// Queues something that may be left out for a client that does not read.
pub(super) fn tell(outbox: &Outbox, reply: &Reply) -> bool {
    outbox.try_push(Message::new(reply, Bytes::new()))
}
