//! The server: offers a backend to the peer of one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::guest::Wake;
use super::inbox::Inbox;
use super::message::{self, Message, Reply, Request, Specification};
use super::outbox::Outbox;
use super::parking::Parking;
use super::session::Session;
use super::short::short;
use super::wire::{bytes_of, value_of};
use super::{Fault, frame};
use crate::Backend;

/// Serves one connection until its end: a description of `backend`, a sweep, or a sandbox, which
/// ends with the connection. Dropping the future ends both.
///
/// # Errors
///
/// Why the connection ended, other than by the peer's wish.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    backend: Arc<dyn Backend>,
) -> Result<(), Fault> {
    serve_with(stream, &*backend, &Parking::default()).await
}

/// Offers a backend to connections, which can leave a sandbox to each other. Clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    backend: Arc<dyn Backend>,
    parking: Arc<Parking>,
}

impl Server {
    /// Creates a server in a machine that may be saved and restored.
    pub fn new(backend: Arc<dyn Backend>, wake: Arc<dyn Wake>) -> Self {
        Self { backend, parking: Arc::new(Parking::new(wake)) }
    }

    /// Serves one connection, as [`serve()`].
    ///
    /// # Errors
    ///
    /// As [`serve()`].
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    ) -> Result<(), Fault> {
        serve_with(stream, &*self.backend, &self.parking).await
    }
}

async fn serve_with(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    backend: &dyn Backend,
    parking: &Parking,
) -> Result<(), Fault> {
    let (mut reader, writer) = tokio::io::split(stream);
    let outbox = Outbox::default();
    outbox.push(Message::hello());
    let (sender, messages) = mpsc::channel(1);
    let body_bytes_max = Arc::new(AtomicUsize::new(SPECIFICATION_BYTES_MAX));
    let mut inbox = Inbox::new(messages, Arc::clone(&body_bytes_max));
    let reading = async {
        loop {
            // A peer that does not read its answers is not read either.
            outbox.room().await;
            let max = || body_bytes_max.load(Ordering::Acquire);
            let message = frame::read(&mut reader, max).await;
            let is_last = !matches!(message, Ok(Some(_)));
            let message = message.and_then(|it| it.ok_or(Fault::Closed));
            if sender.send(message).await.is_err() || is_last {
                return std::future::pending::<()>().await;
            }
        }
    };
    let work = async {
        let result = converse(&mut inbox, &outbox, backend, parking).await;
        // The peer learns from the end of the stream, and reads what was said before.
        outbox.finish();
        result
    };
    let conversation = async {
        let (result, written) = tokio::join!(work, outbox.write(writer));
        result.and(written)
    };
    tokio::select! {
        result = conversation => match result {
            Err(Fault::Closed) => Ok(()),
            result => result,
        },
        () = reading => Ok(()),
    }
}

/// The most bytes of a specification: small files of its root are part of it.
pub(super) const SPECIFICATION_BYTES_MAX: usize = 16 << 20;
/// The time that a client has for its hello.
const HELLO_TIME: Duration = Duration::from_secs(10);

async fn converse(
    inbox: &mut Inbox,
    outbox: &Outbox,
    backend: &dyn Backend,
    parking: &Parking,
) -> Result<(), Fault> {
    let hello = tokio::time::timeout(HELLO_TIME, inbox.hello()).await;
    let hello = hello.map_err(|_elapsed| Fault::NoHello(HELLO_TIME))?;
    message::check_hello(&hello?)?;
    let (request, body) = inbox.next().await?;
    match request {
        Request::Describe => {
            let (isolation, capabilities) = (backend.isolation(), backend.capabilities());
            let description = Reply::Description { isolation, capabilities };
            outbox.push(Message::new(&description, Bytes::new()));
            Ok(())
        }
        Request::Sweep => {
            let swept = tokio::select! {
                swept = backend.sweep() => swept,
                closed = inbox.next() => {
                    closed?;
                    return Err(Fault::Unexpected("a request during a sweep"));
                }
            };
            let (result, body) = match swept {
                Ok(swept) => (Ok(()), bytes_of(&swept)),
                Err(error) => (Err(short(error)), Vec::new()),
            };
            outbox.push(Message::new(&Reply::Swept(result), body.into()));
            Ok(())
        }
        Request::Create => {
            let specification: Specification = value_of(&body)?;
            Session::new(inbox, outbox, parking).serve(backend, specification).await
        }
        Request::Adopt(awakening) => Session::new(inbox, outbox, parking).adopt(awakening).await,
        _ => Err(Fault::Unexpected("a request without a sandbox")),
    }
}
