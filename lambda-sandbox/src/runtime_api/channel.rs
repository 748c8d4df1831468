//! The byte streams that requests come over: TCP on a loopback, vsock, or memory.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::BoxFuture;

/// A byte stream between a program in a sandbox and the host: bytes go both ways, in order, and either side ends it.
pub trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Channel for T {}

/// Takes the connections that programs in a sandbox open to the Runtime API.
///
/// What is sent over them is not trusted. The server takes 64 at most at a time, and asks for the next when one has ended.
pub trait Accept: Send + Sync + fmt::Debug + 'static {
    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    ///
    /// When none can be taken now, as where descriptors have run out: the server asks again after a pause.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Channel>>>;
}

impl Accept for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Channel>>> {
        Box::pin(async move {
            let (stream, _peer) = Self::accept(self).await?;
            // Without it the Python and Node clients lose 40 ms a step to delayed acknowledgements.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Channel>)
        })
    }
}

/// Connections that somebody else takes and hands over. When all senders are gone there are no more.
impl<T: Channel + fmt::Debug + 'static> Accept for mpsc::Receiver<T> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Channel>>> {
        Box::pin(async move {
            match self.recv().await {
                Some(stream) => Ok(Box::new(stream) as Box<dyn Channel>),
                None => std::future::pending().await,
            }
        })
    }
}
