//! Writes a program's standard input.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::{Error, Stdin};

/// A task that writes a program's standard input. Dropping it ends the input.
#[derive(Debug)]
pub(crate) struct Feed(JoinHandle<()>);

impl Feed {
    /// Starts to write `stdin`. Must be called in a tokio runtime.
    pub(crate) fn start(
        mut input: Box<dyn AsyncWrite + Send + Unpin>,
        stdin: Stdin,
    ) -> Result<Self, Error> {
        let task = match stdin {
            Stdin::Empty => tokio::spawn(async {}),
            // A program may close its input before it has read all: errors are ignored.
            Stdin::Bytes(bytes) => tokio::spawn(async move { drop(input.write_all(&bytes).await) }),
            Stdin::Reader(reader) => {
                let mut reader = reader.take()?;
                tokio::spawn(async move { drop(tokio::io::copy(&mut reader, &mut input).await) })
            }
        };
        Ok(Self(task))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.abort();
    }
}
