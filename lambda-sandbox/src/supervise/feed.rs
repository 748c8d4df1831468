//! Feeds a program's standard input.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::{Error, Stdin};

/// A task that writes to the program's standard input; dropped, it stops, and the program finds the end.
#[derive(Debug)]
pub(crate) struct Feed(JoinHandle<()>);

impl Feed {
    /// Begins to write `stdin`. Needs a tokio runtime.
    pub(crate) fn start(
        mut input: Box<dyn AsyncWrite + Send + Unpin>,
        stdin: Stdin,
    ) -> Result<Self, Error> {
        let task = match stdin {
            Stdin::Empty => tokio::spawn(async {}),
            // A program that reads no further closes its end: that is its right.
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
