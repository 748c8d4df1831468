//! The requests that come over a connection of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Fault;
use super::message::{self, Request};

/// Headers and bodies, or how the connection ended.
pub(super) type Messages = mpsc::Receiver<Result<(Vec<u8>, Bytes), Fault>>;

/// The requests of the peer.
pub(super) struct Inbox {
    messages: Messages,
    body_bytes_max: Arc<AtomicUsize>,
}

impl Inbox {
    pub(super) fn new(messages: Messages, body_bytes_max: Arc<AtomicUsize>) -> Self {
        Self { messages, body_bytes_max }
    }

    /// Waits for the first message. Returns its header.
    pub(super) async fn hello(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.messages.recv().await.unwrap_or(Err(Fault::Closed))?.0)
    }

    /// Waits for the next request. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Result<(Request, Bytes), Fault> {
        let (header, body) = self.messages.recv().await.unwrap_or(Err(Fault::Closed))?;
        Ok((message::parse(&header)?, body))
    }

    /// Sets how long the bodies of requests may be from the next on.
    pub(super) fn limit_bodies(&self, bytes: usize) {
        self.body_bytes_max.store(bytes, Ordering::Release);
    }
}
