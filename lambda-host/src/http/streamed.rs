//! Bodies of responses that are sent as they come.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::connections::Busy;

/// The body of a response of the server.
pub(super) type Reply = Either<Full<Bytes>, Parts>;

/// A body whose parts a task sends.
#[derive(Debug)]
pub(super) struct Parts {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    /// An error that came, until the server has written the parts before it.
    failed: Option<io::Error>,
    busy: Option<Busy>,
}

/// The sender of a body's parts. After an error the connection is closed, so that the client sees
/// that the body is not whole.
pub(in crate::http) type Sender = mpsc::Sender<io::Result<Bytes>>;

/// What a response carries on its way to the server.
#[derive(Clone, Debug)]
struct Attached(Arc<Mutex<Option<Parts>>>);

/// Gives a response a body that `send` sends in a task, in place of its own.
pub(in crate::http) fn attach<F: Future<Output = ()> + Send + 'static>(
    response: &mut Response<Full<Bytes>>,
    send: impl FnOnce(Sender) -> F,
) {
    let (sender, parts) = mpsc::channel(1);
    let parts = Parts { parts, failed: None, busy: None };
    response.extensions_mut().insert(Attached(Arc::new(Mutex::new(Some(parts)))));
    drop(tokio::spawn(send(sender)));
}

/// Returns a response with the body that was attached, or its own. The connection is busy until the
/// body has ended.
pub(super) fn reply(mut response: Response<Full<Bytes>>, busy: Busy) -> Response<Reply> {
    let attached = response.extensions_mut().remove::<Attached>();
    let parts = attached.and_then(|it| it.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    match parts {
        None => response.map(Either::Left),
        Some(mut parts) => {
            parts.busy = Some(busy);
            response.map(|_| Either::Right(parts))
        }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.parts.poll_recv(context) {
            // hyper drops what it has not written yet when a body fails. It writes while a body has
            // nothing to give.
            Poll::Ready(Some(Err(error))) => {
                self.failed = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            part => part.map(|part| part.map(|part| part.map(Frame::data))),
        }
    }
}
