//! The requests of a server's peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Fault;
use super::message::{self, Request};

/// The header and the body of a message, or why there will be none.
type Received = Result<(Vec<u8>, Bytes), Fault>;

/// The requests of the peer.
pub(super) struct Inbox {
    messages: mpsc::Receiver<Received>,
    body_bytes_max: Arc<AtomicUsize>,
}

impl Inbox {
    pub(super) fn new(
        messages: mpsc::Receiver<Received>,
        body_bytes_max: Arc<AtomicUsize>,
    ) -> Self {
        Self { messages, body_bytes_max }
    }

    /// Waits for the first message, which is no request.
    pub(super) async fn hello(&mut self) -> Option<Received> {
        self.messages.recv().await
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

/// The most bytes of a specification: small files of its root are part of it.
pub(super) const SPECIFICATION_BYTES_MAX: usize = 16 << 20;
