//! Reads a program's outputs as lines, in the background, and on demand up to what is there now.
//!
//! As long as that is within the sandbox's budget, each write is read at once. Beyond it the host reads a hundred times a second and
//! less, and then drops all but the end: the program waits for room in its pipe meanwhile.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::Error;
use crate::budget::{Budget, PAUSE_FIRST, Standing, WAKING, longer};
use crate::log::{LineSplitter, LogSink, Stream};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes passed on between two looks at the budget.
const PIECE_BYTES: usize = 4 * 1024;
/// Most bytes taken by one drain, so that a program that never stops writing does not hold up its own answer.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// What is kept of output that is dropped: its end.
const KEPT_BYTES: usize = 1024;
/// What is kept at a drain.
const KEPT_LAST_BYTES: usize = 16 * 1024;

/// A program's standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    pumps: Vec<Arc<Pump>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Pump {
    pipe: Arc<OwnedFd>,
    stream: Stream,
    splitter: Mutex<Splitter>,
    sink: Arc<dyn LogSink>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Splitter {
    lines: LineSplitter,
    /// Bytes dropped since the last line.
    dropped: u64,
}

impl Output {
    /// Starts to read both pipes. Needs a tokio runtime.
    pub(crate) fn start(
        stdout: OwnedFd,
        stderr: OwnedFd,
        sink: &Arc<dyn LogSink>,
        budget: &Arc<Budget>,
    ) -> Result<Self, Error> {
        let mut output = Self { pumps: Vec::new(), tasks: Vec::new() };
        for (pipe, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let failed = |errno: Errno| Error::step("registering the output pipe", errno);
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
            let pipe = Arc::new(pipe);
            let watched = crate::pipe::watch(&pipe)
                .map_err(|source| Error::step("registering the output pipe", source))?;
            let splitter = Splitter { lines: LineSplitter::new(stream), dropped: 0 };
            let pump = Arc::new(Pump {
                pipe,
                stream,
                splitter: Mutex::new(splitter),
                sink: Arc::clone(sink),
                budget: Arc::clone(budget),
            });
            output.tasks.push(tokio::spawn({
                let pump = Arc::clone(&pump);
                async move { pump.run(watched).await }
            }));
            output.pumps.push(pump);
        }
        Ok(output)
    }

    /// Passes on all that was written until now, the unfinished line too; where that exceeds the budget, its end.
    pub(crate) fn drain(&self) {
        for pump in &self.pumps {
            let whole = pump.sink.takes_bytes();
            if !whole && pump.budget.standing() == Standing::Over {
                pump.drop_all_but(KEPT_LAST_BYTES);
            }
            let mut taken = 0;
            while let Took::Bytes(bytes) = pump.take(CHUNK_BYTES) {
                taken += bytes;
                let over = !whole && pump.budget.standing() == Standing::Over;
                if taken > DRAIN_BYTES_MAX || over {
                    break;
                }
            }
            pump.splitter().lines.flush(pump.sink.as_ref());
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

type Watched = AsyncFd<Arc<OwnedFd>>;

enum Took {
    Bytes(usize),
    Nothing,
    End,
}

impl Pump {
    async fn run(&self, watched: Watched) {
        let mut watched = Some(watched);
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(watch) = watched.take().or_else(|| crate::pipe::watch(&self.pipe).ok()) else {
                return;
            };
            let Ok(mut ready) = watch.readable().await else { return };
            self.budget.charge(WAKING);
            let within = self.budget.standing() == Standing::Within;
            if within && (self.sink.wants_lines() || self.sink.takes_bytes()) {
                pause = PAUSE_FIRST;
                match self.take(CHUNK_BYTES) {
                    Took::End => return,
                    Took::Nothing => ready.clear_ready(),
                    Took::Bytes(_) => {}
                }
                drop(ready);
                watched = Some(watch);
                tokio::task::yield_now().await;
                continue;
            }
            drop(ready);
            // The runtime is woken by each write to what it watches, whether anybody waits for it or not.
            drop(watch);
            tokio::time::sleep(pause).await;
            if let Took::End = self.take_late(&mut pause) {
                return;
            }
        }
    }

    /// Does after a pause what the budget has room for.
    fn take_late(&self, pause: &mut Duration) -> Took {
        if self.sink.takes_bytes() {
            *pause = longer(*pause);
            return self.take(CHUNK_BYTES);
        }
        let (over, kept) = match (self.sink.wants_lines(), self.budget.standing()) {
            (false, _) => (true, 0),
            (true, Standing::Over) => (true, KEPT_BYTES),
            (true, _) => (false, 0),
        };
        if over && self.drop_all_but(kept) > 0 {
            *pause = longer(*pause);
            return Took::Nothing;
        }
        *pause = longer(*pause);
        self.take(if over { KEPT_BYTES } else { CHUNK_BYTES })
    }

    /// Reads once, under the splitter's lock, so that two readers keep the order.
    fn take(&self, bytes_max: usize) -> Took {
        let mut splitter = self.splitter();
        let mut chunk = vec![0; bytes_max];
        match self.budget.pay(|| nix::unistd::read(&self.pipe, &mut chunk)) {
            Ok(0) => {
                splitter.lines.flush(self.sink.as_ref());
                Took::End
            }
            Ok(bytes) if self.sink.takes_bytes() => {
                let read = chunk.get(..bytes).unwrap_or_default();
                self.budget.pay(|| self.sink.bytes(self.stream, read));
                Took::Bytes(bytes)
            }
            Ok(bytes) => {
                self.pass_on(chunk.get(..bytes).unwrap_or_default(), &mut splitter);
                Took::Bytes(bytes)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Took::Nothing,
            Err(_broken) => Took::End,
        }
    }

    /// Passes on what was read, or as much of it as the budget has room for, and its end.
    fn pass_on(&self, mut bytes: &[u8], splitter: &mut Splitter) {
        while !bytes.is_empty() {
            if bytes.len() > KEPT_BYTES && self.budget.standing() == Standing::Over {
                let (surplus, end) = bytes.split_at(bytes.len() - KEPT_BYTES);
                splitter.dropped += surplus.len() as u64;
                bytes = end;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES));
            self.budget.pay(|| {
                let dropped = std::mem::take(&mut splitter.dropped);
                if dropped > 0 {
                    splitter.lines.flush(self.sink.as_ref());
                    self.sink.dropped(self.stream, dropped);
                }
                splitter.lines.push(piece, self.sink.as_ref());
            });
            bytes = rest;
        }
    }

    /// Drops what is in the pipe but for its end, without a copy of it.
    fn drop_all_but(&self, kept: usize) -> u64 {
        let mut splitter = self.splitter();
        self.budget.pay(|| {
            let dropped = crate::pipe::drop_all_but(self.pipe.as_fd(), kept);
            splitter.dropped += dropped;
            dropped
        })
    }

    fn splitter(&self) -> std::sync::MutexGuard<'_, Splitter> {
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
