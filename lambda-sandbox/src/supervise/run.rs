//! The run of a program within limits of time and output, and who ended it.

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

/// Counts output, passes on what is within the limit and drops the rest.
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

    /// Waits until there was more than the limit.
    async fn exceeded(&self) {
        self.over.notified().await;
    }
}

impl Metered {
    /// Takes so many bytes off what is left; returns how many of them are within the limit.
    fn within(&self, bytes: u64) -> u64 {
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let left = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let left = left.unwrap_or_else(|left| left);
        if left < bytes {
            // One permit is kept, so that a waiter who comes later is told, too.
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

    /// Output is read to be counted, whether anybody wants it or not.
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
    /// Waits until the program has ended or has reached a limit, in which case it is killed and waited for no longer than
    /// [`DEATH_TIME`]: a process in the kernel's hands may not die. Returns the limit, if one was reached.
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

    /// Tells whoever listens when the memory limit kills.
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

    /// Waits until all processes together have used the time that they have. Looks again when they could have used what is left,
    /// and no more often than every [`LOOK_TIME`].
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

/// Longest wait for the end of what was killed.
const DEATH_TIME: Duration = Duration::from_secs(5);
/// Shortest time between two looks at the processor time.
const LOOK_TIME: Duration = Duration::from_millis(2);
/// Guards the division; a specification with less is refused.
const LEAST_CPUS: f64 = 0.001;
/// Time between two looks for kills by the memory limit, while somebody listens.
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
