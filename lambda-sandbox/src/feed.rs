//! Feeds a program's standard input.

use std::os::fd::OwnedFd;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::task::JoinHandle;

use crate::{Error, Stdin};

/// A task that writes to the program's standard input; dropped, it stops, and the program finds the end.
#[derive(Debug)]
pub(crate) struct Feed(JoinHandle<()>);

impl Feed {
    /// Begins to write `stdin` to the pipe. Needs a tokio runtime.
    pub(crate) fn start(pipe: OwnedFd, stdin: Stdin) -> Result<Self, Error> {
        let mut pipe = Sender::from_owned_fd(pipe)
            .map_err(|source| Error::step("registering the input pipe", source))?;
        let task = match stdin {
            Stdin::Empty => tokio::spawn(async {}),
            // A program that reads no further closes the pipe: that is its right.
            Stdin::Bytes(bytes) => tokio::spawn(async move { drop(pipe.write_all(&bytes).await) }),
            Stdin::Reader(reader) => {
                let mut reader = reader.take()?;
                tokio::spawn(async move { drop(tokio::io::copy(&mut reader, &mut pipe).await) })
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
