//! The standard input of a program.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::Error;

/// The most bytes of [`Stdin::Bytes`]. [`Stdin::reader`] has no limit.
pub const STDIN_BYTES_MAX: usize = 256 << 20;

/// A boxed reader.
type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// The standard input of a program.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Stdin {
    /// No input: end of file at once.
    #[default]
    Empty,
    /// These bytes, then end of file.
    Bytes(Bytes),
    /// The bytes of a reader ([`Stdin::reader`]).
    Reader(OnceReader),
}

/// A reader that the first sandbox takes. Clones share it.
#[derive(Clone)]
pub struct OnceReader(Arc<Mutex<Option<Reader>>>);

impl Stdin {
    /// Passes on the bytes of `reader`, no faster than the program reads. Clones of the
    /// specification share the reader: the first sandbox takes it, and later ones fail at their
    /// start.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::Reader(OnceReader(Arc::new(Mutex::new(Some(Box::pin(reader))))))
    }

    /// Returns whether the input is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Bytes(bytes) if bytes.len() > STDIN_BYTES_MAX => Err(Error::invalid(
                "stdin",
                format!("{} bytes", bytes.len()),
                format!("at most {STDIN_BYTES_MAX} at once; give a reader for more"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(all(any(feature = "runtime-api", feature = "remote"), unix))]
impl OnceReader {
    /// Takes the reader. Fails if another sandbox has taken it.
    pub(crate) fn take(&self) -> Result<Reader, Error> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::invalid("stdin", "a reader", "another sandbox has read it"))
    }
}

impl fmt::Debug for OnceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        f.write_str(if there { "OnceReader(unread)" } else { "OnceReader(taken)" })
    }
}

impl fmt::Debug for Stdin {
    /// Shows only the length, because input may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Reader(reader) => reader.fmt(f),
        }
    }
}

impl From<Bytes> for Stdin {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&'static str> for Stdin {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Stdin {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for Stdin {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
