//! The standard input of a program on the other side: the program's side asks for each part.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::{Notify, mpsc};

use super::message::{Message, Reply, Request};
use super::outbox::Outbox;
use crate::{Error, Stdin};

/// The most bytes of a part.
const PART_BYTES: usize = 256 * 1024;

/// The server's end: a reader that asks the client for a part when it is read.
#[derive(Debug)]
pub(super) struct Input {
    id: u32,
    outbox: Outbox,
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
    is_asked: bool,
    has_ended: bool,
}

impl Input {
    /// Creates a reader, and the sender of the parts that come from the client. The sender has room
    /// for the one part that was asked for.
    pub(super) fn new(id: u32, outbox: &Outbox) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, parts) = mpsc::channel(1);
        let outbox = outbox.clone();
        let part = Bytes::new();
        (Self { id, outbox, parts, part, is_asked: false, has_ended: false }, sender)
    }
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.part.is_empty() && !self.has_ended {
            if !self.is_asked {
                self.is_asked = true;
                self.outbox.push(Message::new(&Reply::WantInput(self.id), Bytes::new()));
            }
            // A connection that has ended ends the input.
            self.part = ready!(self.parts.poll_recv(context)).unwrap_or_default();
            self.has_ended = self.part.is_empty();
            self.is_asked = false;
        }
        let taken = self.part.len().min(buffer.remaining());
        buffer.put_slice(&self.part[..taken]);
        self.part.advance(taken);
        Poll::Ready(Ok(()))
    }
}

/// The client's end: the source of the parts.
pub(super) enum Source {
    Bytes(Bytes),
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl Source {
    /// Takes a standard input. Returns `None` for an empty one.
    pub(super) fn take(stdin: &Stdin) -> Result<Option<Self>, Error> {
        Ok(match stdin {
            Stdin::Empty => None,
            Stdin::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Stdin::Reader(reader) => Some(Self::Reader(reader.take()?)),
        })
    }

    /// Sends a part whenever one is asked for, until the end of the input.
    pub(super) async fn send(mut self, id: u32, outbox: Outbox, asked: Arc<Notify>) {
        loop {
            asked.notified().await;
            let part = self.next().await;
            let is_last = part.is_empty();
            outbox.push(Message::new(&Request::Input(id), part));
            if is_last {
                return;
            }
        }
    }

    /// Returns the next part, which is empty at the end. An error of the reader is its end, as for
    /// a sandbox of this process.
    async fn next(&mut self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.split_to(bytes.len().min(PART_BYTES)),
            Self::Reader(reader) => {
                let mut part = BytesMut::with_capacity(8 * 1024);
                match (&mut *reader).take(PART_BYTES as u64).read_buf(&mut part).await {
                    Ok(_) => part.freeze(),
                    Err(_broken) => Bytes::new(),
                }
            }
        }
    }
}
