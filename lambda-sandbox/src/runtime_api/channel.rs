//! The byte streams that carry requests: TCP over a loopback, vsock, or memory.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::BoxFuture;

/// A byte stream between a program in a sandbox and the host: bidirectional, ordered, closed by
/// either side.
pub trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Channel for T {}

/// Accepts the connections that programs in a sandbox open to the Runtime API.
///
/// The bytes in them are not trusted. The server has at most 64 connections at a time, and accepts
/// the next one when one has ended.
pub trait Accept: Send + Sync + fmt::Debug + 'static {
    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    ///
    /// If no connection can be accepted now, for example for lack of descriptors. The server tries
    /// again after a pause.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Channel>>>;
}

/// Opens connections to programs in a sandbox, for events of the Telemetry API.
pub trait Dial: Send + Sync + fmt::Debug + 'static {
    /// Connects to a port of the sandbox's loopback.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or the sandbox has ended.
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<Box<dyn Channel>>>;
}

impl Accept for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Channel>>> {
        Box::pin(async move {
            let (stream, _peer) = Self::accept(self).await?;
            // Otherwise the Python and Node clients lose 40 ms a step to delayed acknowledgements.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Channel>)
        })
    }
}

/// Connections that another task accepts and sends. After all senders are dropped, there are no
/// more.
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
