//! Runs a program within its limits of time and output, and finds the cause of its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bell::Bell;
use super::platform::{Platform, ended};
use crate::log::{LogLine, LogSink, Stream};
use crate::{EndedBy, Event, Exit, Limits, TimeLimits};

/// A log sink that counts output, passes on what is within the limit, and drops the rest.
#[derive(Debug)]
pub(crate) struct Metered {
    sink: Arc<dyn LogSink>,
    left: AtomicU64,
    over: Notify,
}

impl Metered {
    pub(crate) fn new(sink: Arc<dyn LogSink>, bytes_max: u64) -> Self {
        Self { sink, left: AtomicU64::new(bytes_max), over: Notify::new() }
    }

    /// Waits until the limit was exceeded.
    async fn exceeded(&self) {
        self.over.notified().await;
    }
}

impl Metered {
    /// Subtracts bytes from the rest of the limit. Returns how many of them are within the limit.
    fn within(&self, bytes: u64) -> u64 {
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let left = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let left = left.unwrap_or_else(|left| left);
        if left < bytes {
            // `Notify` stores one permit, so a task that waits later is notified too.
            self.over.notify_one();
        }
        left.min(bytes)
    }
}

impl LogSink for Metered {
    fn line(&self, mut line: LogLine) {
        let bytes = line.text.len() as u64 + u64::from(!line.open);
        let within = self.within(bytes);
        if within < bytes {
            line.text.truncate(usize::try_from(within).unwrap_or(usize::MAX));
            line.open = true;
            if line.text.is_empty() {
                return;
            }
        }
        self.sink.line(line);
    }

    /// Output must be read in order to be counted, even if the log does not use it.
    fn wants_lines(&self) -> bool {
        true
    }

    fn takes_bytes(&self) -> bool {
        self.sink.takes_bytes()
    }

    fn bytes(&self, stream: Stream, bytes: &[u8]) {
        let within = usize::try_from(self.within(bytes.len() as u64)).unwrap_or(usize::MAX);
        self.sink.bytes(stream, &bytes[..within.min(bytes.len())]);
    }

    fn is_full(&self) -> bool {
        self.sink.is_full()
    }

    fn lost(&self, bytes: u64) {
        self.sink.lost(bytes);
    }
}

/// A program that runs within limits.
pub(crate) struct Run<'a, P> {
    pub(crate) platform: &'a P,
    pub(crate) times: TimeLimits,
    pub(crate) limits: &'a Limits,
    pub(crate) output: Option<Arc<Metered>>,
    pub(crate) bell: &'a Bell,
}

impl<P: Platform> Run<'_, P> {
    /// Waits until the program has ended or reached a limit. At a limit it is killed, and waited
    /// for at most [`DEATH_TIME`], because a process may be unable to die. Returns the limit that
    /// was reached, if any.
    pub(crate) async fn watch(
        self,
        exit: &mut watch::Receiver<Option<Exit>>,
    ) -> (Exit, Option<EndedBy>) {
        let (platform, times) = (self.platform, self.times);
        let reached = tokio::select! {
            biased;
            exit = ended(exit) => return (exit, None),
            () = sleep(times.run) => EndedBy::WallTime,
            () = self.processor_time() => EndedBy::ProcessorTime,
            () = output_exceeded(self.output.as_deref()) => EndedBy::Output,
            never = self.memory() => match never {},
        };
        self.bell.ring(Event::LimitReached(reached));
        platform.kill();
        let death = tokio::time::timeout(DEATH_TIME, ended(exit)).await;
        (death.unwrap_or(Exit::Signal(SIGKILL)), Some(reached))
    }

    /// Sends an event when the memory limit has killed processes.
    async fn memory(&self) -> Infallible {
        let mut told = 0;
        loop {
            self.bell.listened().await;
            let kills = self.platform.sample().out_of_memory_kills;
            if kills > told {
                told = kills;
                self.bell.ring(Event::OutOfMemory(kills));
            }
            tokio::time::sleep(MEMORY_LOOK_TIME).await;
        }
    }

    /// Waits until all processes together have used their processor time. It polls when the rest
    /// could have been used up, and at most every [`LOOK_TIME`].
    async fn processor_time(&self) {
        let Some(limit) = self.times.run_processor else {
            return std::future::pending().await;
        };
        loop {
            let used = self.platform.sample().cpu_time.unwrap_or_default();
            if used >= limit {
                return;
            }
            let machine = std::thread::available_parallelism().map_or(1, usize::from);
            #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
            let at_once = self.limits.cpus.min(machine as f64).max(LEAST_CPUS);
            let earliest = (limit - used).div_f64(at_once);
            tokio::time::sleep(earliest.max(LOOK_TIME)).await;
        }
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep_until(Instant::now() + time).await,
        None => std::future::pending().await,
    }
}

async fn output_exceeded(output: Option<&Metered>) {
    match output {
        Some(output) => output.exceeded().await,
        None => std::future::pending().await,
    }
}

/// The longest wait for the end of a killed program.
const DEATH_TIME: Duration = Duration::from_secs(5);
/// The shortest time between two samples of the processor time.
const LOOK_TIME: Duration = Duration::from_millis(2);
/// Prevents a division by zero. The specification's minimum is larger.
const LEAST_CPUS: f64 = 0.001;
/// The time between two checks for kills by the memory limit, while there is a receiver.
const MEMORY_LOOK_TIME: Duration = Duration::from_millis(50);
const SIGKILL: i32 = 9;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::MemoryLog;

    #[tokio::test]
    async fn output_is_cut_at_its_limit_and_that_is_told() {
        let log = Arc::new(MemoryLog::new(1 << 16));
        let metered = Metered::new(log.clone(), 10);
        let say = |text: &'static [u8]| {
            let (at, text) = (SystemTime::UNIX_EPOCH, Bytes::from_static(text));
            metered.line(LogLine { at, stream: Stream::Stdout, text, open: false });
        };
        say(b"12345");
        let told = tokio::time::timeout(Duration::from_millis(10), metered.exceeded()).await;
        assert!(told.is_err(), "6 of 10 bytes are within");
        say(b"123456789");
        say(b"more");
        metered.exceeded().await;
        assert_eq!(log.tail(100), b"12345\n1234");
    }
}
