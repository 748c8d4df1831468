//! Reads a program's outputs as lines, in the background, and on demand up to what is there now.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use crate::Error;
use crate::log::{LineSplitter, LogSink, Stream};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most bytes taken by one drain, so that a program that never stops writing does not hold up its own answer.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// A program's standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    pumps: Vec<Arc<Pump>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Pump {
    pipe: Receiver,
    splitter: Mutex<LineSplitter>,
    sink: Arc<dyn LogSink>,
}

impl Output {
    /// Starts to read both pipes. Needs a tokio runtime.
    pub(crate) fn start(
        stdout: OwnedFd,
        stderr: OwnedFd,
        sink: &Arc<dyn LogSink>,
    ) -> Result<Self, Error> {
        let mut output = Self { pumps: Vec::new(), tasks: Vec::new() };
        for (pipe, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let pipe = Receiver::from_owned_fd(pipe)
                .map_err(|source| Error::step("registering the output pipe", source))?;
            let pump = Arc::new(Pump {
                pipe,
                splitter: Mutex::new(LineSplitter::new(stream)),
                sink: Arc::clone(sink),
            });
            output.tasks.push(tokio::spawn({
                let pump = Arc::clone(&pump);
                async move { pump.run().await }
            }));
            output.pumps.push(pump);
        }
        Ok(output)
    }

    /// Passes on all that was written until now, the unfinished line too.
    pub(crate) fn drain(&self) {
        for pump in &self.pumps {
            let mut taken = 0;
            while let Took::Bytes(bytes) = pump.take(read_now) {
                taken += bytes;
                if taken > DRAIN_BYTES_MAX {
                    break;
                }
            }
            pump.splitter().flush(pump.sink.as_ref());
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.drain();
    }
}

/// Reads what is there, whether or not tokio has heard of it yet: the word of a program's end may be heard first, although what the
/// program wrote was there before.
fn read_now(pipe: &Receiver, chunk: &mut [u8]) -> io::Result<usize> {
    nix::unistd::read(pipe, chunk).map_err(io::Error::from)
}

enum Took {
    Bytes(usize),
    Nothing,
    End,
}

impl Pump {
    async fn run(&self) {
        while self.pipe.readable().await.is_ok() {
            if let Took::End = self.take(Receiver::try_read) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads once, under the splitter's lock, so that two readers keep the order.
    fn take(&self, read: impl FnOnce(&Receiver, &mut [u8]) -> io::Result<usize>) -> Took {
        let mut splitter = self.splitter();
        let mut chunk = vec![0; CHUNK_BYTES];
        match read(&self.pipe, &mut chunk) {
            Ok(0) => {
                splitter.flush(self.sink.as_ref());
                Took::End
            }
            Ok(bytes) => {
                splitter.push(&chunk[..bytes], self.sink.as_ref());
                Took::Bytes(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Took::Nothing,
            Err(_broken) => Took::End,
        }
    }

    fn splitter(&self) -> std::sync::MutexGuard<'_, LineSplitter> {
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
