//! The byte streams of connections, and what opens them.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// A byte stream: bidirectional, ordered, closed by either side.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// Opens connections to a server.
pub trait Connect: Send + Sync + fmt::Debug + 'static {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
}
