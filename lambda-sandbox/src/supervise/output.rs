//! Reads a program's outputs as lines: in the background, and on demand up to what is available.
//!
//! Within the sandbox's budget each write is read at once. Beyond it the host reads rarely and in
//! larger pieces, and the program waits for room in its pipe. Output that no log uses is dropped
//! unread.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::outlet::Outlet;
use crate::budget::{Budget, WAKING};
use crate::log::{LineSplitter, LogSink, Stream};

/// The most bytes of one read.
const CHUNK_BYTES: usize = 64 * 1024;
thread_local! {
    /// Where a read puts its bytes. A buffer for each read would be filled with zeros each time,
    /// one for each sandbox would take memory while it idles.
    static CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
/// The estimated cost of a read that finds bytes, without the copy, and the speed of the copy. A
/// read that finds none is not charged: it costs less than a measurement of its time would.
const READ_TIME: Duration = Duration::from_micros(1);
const BYTES_IN_A_NANOSECOND: u64 = 8;
/// After so many reads a task lets others run. Each yield costs a wake of another thread.
const READS_IN_A_ROW: u32 = 8;
/// The most bytes of one drain, so that a program that never stops writing does not delay its own
/// answer.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// How often unused output is dropped.
const DROP_EVERY: Duration = Duration::from_millis(20);

/// How often a full log is asked whether it has room again.
const FULL_TIME: Duration = Duration::from_millis(1);

/// A program's standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    pumps: Vec<Arc<Pump>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Pump {
    outlet: Arc<dyn Outlet>,
    stream: Stream,
    splitter: Mutex<LineSplitter>,
    sink: Arc<dyn LogSink>,
    budget: Arc<Budget>,
}

impl Output {
    /// Starts to read both outputs. Must be called in a tokio runtime.
    pub(crate) fn start(
        stdout: Arc<dyn Outlet>,
        stderr: Arc<dyn Outlet>,
        sink: &Arc<dyn LogSink>,
        budget: &Arc<Budget>,
    ) -> Self {
        let mut output = Self { pumps: Vec::new(), tasks: Vec::new() };
        output.add([stdout, stderr], sink, budget);
        output
    }

    /// Starts to read both outputs of another program too.
    pub(crate) fn add(
        &mut self,
        [stdout, stderr]: [Arc<dyn Outlet>; 2],
        sink: &Arc<dyn LogSink>,
        budget: &Arc<Budget>,
    ) {
        for (outlet, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let pump = Arc::new(Pump {
                outlet,
                stream,
                splitter: Mutex::new(LineSplitter::new(stream)),
                sink: Arc::clone(sink),
                budget: Arc::clone(budget),
            });
            self.tasks.push(tokio::spawn({
                let pump = Arc::clone(&pump);
                async move { pump.run().await }
            }));
            self.pumps.push(pump);
        }
    }

    /// Passes on all output written until now, including an unfinished line, up to a limit.
    pub(crate) fn drain(&self) {
        for pump in &self.pumps {
            let mut taken = 0;
            while let Took::Bytes(bytes) = pump.take() {
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

enum Took {
    Bytes(usize),
    Nothing,
    End,
}

impl Pump {
    async fn run(&self) {
        let mut reads = 0_u32;
        while self.outlet.readable().await.is_ok() {
            self.budget.charge(WAKING);
            let wanted = self.sink.wants_lines() || self.sink.takes_bytes();
            let unwanted = (!wanted).then_some(DROP_EVERY);
            let pause = unwanted.or_else(|| self.budget.exceeded()).or_else(|| self.full());
            let Some(mut pause) = pause else {
                reads += 1;
                match self.take() {
                    Took::End => return,
                    // A program that writes without a pause leaves the thread to others at times.
                    Took::Bytes(_) if reads.is_multiple_of(READS_IN_A_ROW) => {
                        tokio::task::yield_now().await;
                    }
                    Took::Bytes(_) | Took::Nothing => {}
                }
                continue;
            };
            self.outlet.rest();
            loop {
                tokio::time::sleep(pause).await;
                match self.budget.exceeded().or_else(|| self.full()) {
                    Some(longer) => pause = longer,
                    None => break,
                }
            }
            if unwanted.is_some() && self.budget.pay(|| self.outlet.try_drop()) {
                continue;
            }
            if let Took::End = self.take() {
                return;
            }
        }
    }

    /// Returns how long to wait before a full log is asked again.
    fn full(&self) -> Option<Duration> {
        self.sink.is_full().then_some(FULL_TIME)
    }

    /// Reads once. It holds the splitter's lock, so that two readers keep the order.
    fn take(&self) -> Took {
        let mut splitter = self.splitter();
        // Taken out, because a log may read another output.
        let mut chunk = CHUNK.take();
        chunk.resize(CHUNK_BYTES, 0);
        let took = match self.outlet.try_read(&mut chunk) {
            Ok(bytes) if bytes > 0 => {
                let bytes = chunk.get(..bytes).unwrap_or_default();
                let copied = Duration::from_nanos(bytes.len() as u64 / BYTES_IN_A_NANOSECOND);
                self.budget.charge(READ_TIME + copied);
                self.budget.pay(|| {
                    if self.sink.takes_bytes() {
                        self.sink.bytes(self.stream, bytes);
                    } else {
                        splitter.push(bytes, self.sink.as_ref());
                    }
                });
                Took::Bytes(bytes.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Took::Nothing,
            Ok(_) => {
                splitter.flush(self.sink.as_ref());
                Took::End
            }
            Err(_broken) => Took::End,
        };
        CHUNK.set(chunk);
        took
    }

    fn splitter(&self) -> std::sync::MutexGuard<'_, LineSplitter> {
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
