//! How a client reaches a server.

use std::fmt;
use std::io;

use crate::BoxFuture;

/// Opens connections to a server.
pub trait Connect: Send + Sync + fmt::Debug + 'static {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
}

/// A byte stream: bidirectional, ordered, closed by either side.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}
