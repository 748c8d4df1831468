//! Time limits: of one wait, and of work that does not count its waits for people and processes.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::world::Clock;

/// Completes with the value of `future`, or with `None` if `budget` passes first.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    budget: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    within_working(clock, budget, &Waiting::default(), future).await
}

/// Completes with the value of `future`, or with `None` if `budget` passes first. Time that
/// `waiting` has measured does not count.
pub(crate) async fn within_working<T>(
    clock: &dyn Clock,
    budget: Duration,
    waiting: &Waiting,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut sleep = None;
    let (mut until, mut before) = (Duration::ZERO, Duration::ZERO);
    poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        loop {
            // The timer is created only when the future is pending.
            let timer = sleep.get_or_insert_with(|| {
                let now = clock.monotonic();
                until = now.saturating_add(budget);
                before = waiting.taken(now);
                clock.sleep(budget)
            });
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = clock.monotonic();
            let waited = waiting.taken(now).saturating_sub(before);
            let longer = waiting.until(now).max(until.saturating_add(waited));
            let Some(rest) = longer.checked_sub(now).filter(|rest| !rest.is_zero()) else {
                return Poll::Ready(None);
            };
            sleep = Some(clock.sleep(rest));
        }
    })
    .await
}

/// Measures the time in which a person was asked or a process ran. Clones share the measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Nanoseconds of finished waits.
    over: AtomicU64,
    /// The start of the current wait in nanoseconds of the monotonic clock, plus one; zero if no
    /// wait lasts.
    since: AtomicU64,
}

impl Waiting {
    /// Waits for `future`, and counts the time as waited.
    pub(crate) async fn of<T>(&self, clock: &dyn Clock, future: impl Future<Output = T>) -> T {
        self.0.since.store(nanos(clock.monotonic()).saturating_add(1), Ordering::Relaxed);
        let value = future.await;
        let since = self.0.since.swap(0, Ordering::Relaxed).saturating_sub(1);
        let took = nanos(clock.monotonic()).saturating_sub(since);
        self.0.over.fetch_add(took, Ordering::Relaxed);
        value
    }

    /// Returns the time that was waited until `now`.
    fn taken(&self, now: Duration) -> Duration {
        let present = match self.0.since.load(Ordering::Relaxed).checked_sub(1) {
            Some(since) => nanos(now).saturating_sub(since),
            None => 0,
        };
        Duration::from_nanos(self.0.over.load(Ordering::Relaxed).saturating_add(present))
    }

    /// Returns when to check again while a wait lasts, zero if none does.
    fn until(&self, now: Duration) -> Duration {
        const LOOK: Duration = Duration::from_secs(1);
        match self.0.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => now.saturating_add(LOOK),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
