//! Why a connection to a remote backend ended.

use std::io;
use std::time::Duration;

use crate::Error;

/// Why a connection to a remote backend ended. It is the source of the [`Error::Failed`] that a
/// client returns ([`Fault::in_error`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The byte stream failed, or could not be opened.
    #[error("the connection failed: {0}")]
    Stream(io::ErrorKind),
    /// The peer's first bytes are of another protocol.
    #[error("the peer does not speak the protocol of remote backends")]
    NotHello,
    /// The peer has another version of the protocol.
    #[error("the peer has version {theirs} of the protocol, and this is version {ours}")]
    #[expect(missing_docs, reason = "the variant says it")]
    Version { ours: u32, theirs: u32 },
    /// The peer said no hello in this time.
    #[error("the peer said no hello within {0:?}")]
    NoHello(Duration),
    /// The peer sent, or was to be sent, more than a limit.
    #[error("{what} of {bytes} bytes exceeds {max}")]
    TooLong {
        /// The part that is too long.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The peer sent bytes that are no message.
    #[error("a message is garbled: {0}")]
    Garbled(&'static str),
    /// The peer sent a message out of its turn.
    #[error("the peer sent {0} out of turn")]
    Unexpected(&'static str),
    /// The peer did not answer in this time.
    #[error("the peer did not answer within {0:?}")]
    Silent(Duration),
}

impl Fault {
    /// Returns the fault that is the source of an error.
    #[must_use]
    pub fn in_error(error: &Error) -> Option<&Self> {
        match error {
            Error::Failed { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    /// Returns the fault of a stream that failed while a message was read or written.
    pub(super) fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed,
            kind => Self::Stream(kind),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::step("speaking with the remote backend", io::Error::other(fault))
    }
}
