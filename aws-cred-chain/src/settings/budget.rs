//! Limits of time: of one wait, and of work whose waits for people and processes do not count.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::world::Clock;

/// Completes with `future`'s value, or with `None` when `budget` has passed first.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    budget: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    within_working(clock, budget, &Waiting::default(), future).await
}

/// Completes with `future`'s value, or with `None` when `budget` has passed first, not counting the time
/// that `waiting` has seen.
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
            // The timer is made only when there is something to wait for.
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

/// The time in which a person was asked or a process ran, by the monotonic clock. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Nanoseconds in waits that are over.
    over: AtomicU64,
    /// When the present wait began, plus one nanosecond; zero where there is none.
    since: AtomicU64,
}

impl Waiting {
    /// Waits for `future`; the time that it takes does not count.
    pub(crate) async fn of<T>(&self, clock: &dyn Clock, future: impl Future<Output = T>) -> T {
        self.0.since.store(nanos(clock.monotonic()).saturating_add(1), Ordering::Relaxed);
        let value = future.await;
        let since = self.0.since.swap(0, Ordering::Relaxed).saturating_sub(1);
        let took = nanos(clock.monotonic()).saturating_sub(since);
        self.0.over.fetch_add(took, Ordering::Relaxed);
        value
    }

    /// Returns how long was waited until `now`.
    fn taken(&self, now: Duration) -> Duration {
        let present = match self.0.since.load(Ordering::Relaxed).checked_sub(1) {
            Some(since) => nanos(now).saturating_sub(since),
            None => 0,
        };
        Duration::from_nanos(self.0.over.load(Ordering::Relaxed).saturating_add(present))
    }

    /// Returns when to look again while a wait lasts.
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
