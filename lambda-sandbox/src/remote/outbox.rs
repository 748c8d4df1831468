//! The messages that wait to be written to a connection, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::Fault;
use super::frame;
use super::message::Message;

/// A queue of messages, which one task writes. Clones are the same queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The writing task has something to do.
    filled: Notify,
    /// There is room again, or the queue was closed.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// What is queued is written, then the connection is shut down.
    Finishing,
    Closed,
}

impl Outbox {
    /// Queues a message. A closed queue drops it.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.bytes += message.cost();
            state.queue.push_back(message);
            self.0.filled.notify_one();
        }
    }

    /// Queues a message unless [`OUTPUT_BYTES_MAX`] would be exceeded. Returns whether it did.
    pub(super) fn try_push(&self, message: Message) -> bool {
        if self.state().bytes + message.cost() > OUTPUT_BYTES_MAX {
            return false;
        }
        self.push(message);
        true
    }

    /// Returns whether more than [`ROOM_BYTES`] wait.
    pub(super) fn is_full(&self) -> bool {
        self.state().bytes > ROOM_BYTES
    }

    /// Waits until at most [`ROOM_BYTES`] wait, or the queue is closed. One task may wait.
    pub(super) async fn room(&self) {
        while self.is_full() {
            self.0.emptied.notified().await;
        }
    }

    /// Has the rest written and the connection shut down.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        self.0.filled.notify_one();
    }

    /// Drops what is queued, and everything later.
    pub(super) fn close(&self) {
        let mut state = self.state();
        *state = State { phase: Phase::Closed, ..State::default() };
        self.0.filled.notify_one();
        self.0.emptied.notify_one();
    }

    /// Writes the messages until the queue is finished or closed.
    ///
    /// # Errors
    ///
    /// [`Fault::TooLong`] for a message that the peer would refuse, [`Fault::Stream`].
    pub(super) async fn write(&self, mut stream: impl AsyncWrite + Unpin) -> Result<(), Fault> {
        let result = self.write_all(&mut stream).await;
        self.close();
        result
    }

    async fn write_all(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), Fault> {
        loop {
            match self.next() {
                (Some(message), _) => {
                    message.check()?;
                    let written = frame::write(stream, &message.header, &message.body).await;
                    written.map_err(Fault::of)?;
                }
                (None, Phase::Open) => {
                    stream.flush().await.map_err(Fault::of)?;
                    if self.state().queue.is_empty() {
                        self.0.filled.notified().await;
                    }
                }
                (None, Phase::Finishing) => return stream.shutdown().await.map_err(Fault::of),
                (None, Phase::Closed) => return Ok(()),
            }
        }
    }

    fn next(&self) -> (Option<Message>, Phase) {
        let mut state = self.state();
        let message = state.queue.pop_front();
        state.bytes -= message.as_ref().map_or(0, Message::cost);
        self.0.emptied.notify_one();
        (message, state.phase)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beyond so many bytes, output stays with the program and requests are not read.
const ROOM_BYTES: usize = 256 * 1024;
/// Beyond so many bytes, output that cannot wait is dropped and counted.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(length: usize) -> Message {
        Message { header: vec![1], body: Bytes::from(vec![0; length]) }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_bounds_what_is_kept() {
        let outbox = Outbox::default();
        let mut queued = 0;
        while outbox.try_push(message(10_000)) {
            queued += 1;
        }
        assert!(outbox.is_full());
        assert!((400..=OUTPUT_BYTES_MAX / 10_000).contains(&queued), "{queued}");
        outbox.close();
        outbox.room().await;
        outbox.push(message(1));
        assert!(!outbox.is_full());
    }

    #[tokio::test]
    async fn what_is_queued_is_written_before_the_end() {
        let outbox = Outbox::default();
        (0..3).for_each(|_| outbox.push(message(5)));
        outbox.finish();
        outbox.push(message(5));
        let mut out = Vec::new();
        outbox.write(&mut out).await.expect("written");
        assert_eq!(out.len(), 3 * (8 + 1 + 5));
    }

    #[tokio::test]
    async fn a_header_that_the_peer_would_refuse_is_not_sent() {
        let outbox = Outbox::default();
        let header = vec![1; frame::HEADER_BYTES_MAX + 1];
        outbox.push(Message { header, body: Bytes::new() });
        let refused = outbox.write(&mut Vec::new()).await.expect_err("too long");
        assert!(matches!(refused, Fault::TooLong { what: "a header", .. }), "{refused}");
    }
}
