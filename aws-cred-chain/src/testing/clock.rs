//! A virtual clock for tests, which moves by command, or when nothing else can happen.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::world::lock;
use crate::world::{BoxFuture, Clock};

/// A virtual clock. Clones share it.
///
/// The clock of [`VirtualClock::new`] moves by itself. If the earliest sleeper is polled again and
/// nothing else has happened since, the clock jumps to the end of its sleep. So waits cost no real
/// time. The clock of [`VirtualClock::manual`] moves only by [`VirtualClock::advance`].
/// [`VirtualClock::run`] completes a future in the time of the clock, and reports if it would wait
/// for ever.
#[derive(Clone, Debug)]
pub struct VirtualClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    start: SystemTime,
    elapsed: Duration,
    automatic: bool,
    next: u64,
    sleepers: BTreeMap<(Duration, u64), Waker>,
}

impl VirtualClock {
    /// Returns a clock that begins at `start` and moves when all futures wait for it.
    #[must_use]
    pub fn new(start: SystemTime) -> Self {
        Self::make(start, true)
    }

    /// Returns a clock that begins at `start` and moves only by [`VirtualClock::advance`].
    #[must_use]
    pub fn manual(start: SystemTime) -> Self {
        Self::make(start, false)
    }

    /// Returns the number of futures that sleep.
    pub(super) fn sleepers(&self) -> usize {
        lock(&self.0).sleepers.len()
    }

    fn make(start: SystemTime, automatic: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            start,
            elapsed: Duration::ZERO,
            automatic,
            next: 0,
            sleepers: BTreeMap::new(),
        })))
    }

    /// Moves the clock by `by`, and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let wakers: Vec<Waker> = {
            let mut state = lock(&self.0);
            state.elapsed += by;
            let elapsed = state.elapsed;
            let later = state.sleepers.split_off(&(elapsed + Duration::from_nanos(1), 0));
            std::mem::replace(&mut state.sleepers, later).into_values().collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> SystemTime {
        let state = lock(&self.0);
        state.start + state.elapsed
    }

    fn monotonic(&self) -> Duration {
        lock(&self.0).elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        let mut state = lock(&self.0);
        state.next += 1;
        let key = (state.elapsed + duration, state.next);
        drop(state);
        Box::pin(Sleep { clock: self.clone(), key, polled_at: None })
    }
}

struct Sleep {
    clock: VirtualClock,
    key: (Duration, u64),
    /// The time of the clock at the last poll.
    polled_at: Option<Duration>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut others = Vec::new();
        {
            let mut state = lock(&self.clock.0);
            if state.elapsed < self.key.0 {
                let earliest = state.sleepers.keys().next() == Some(&self.key);
                let idle = self.polled_at == Some(state.elapsed);
                if !(state.automatic && earliest && idle) {
                    state.sleepers.insert(self.key, cx.waker().clone());
                    let automatic = state.automatic;
                    let elapsed = state.elapsed;
                    drop(state);
                    self.polled_at = Some(elapsed);
                    if automatic {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                state.elapsed = self.key.0;
            }
            state.sleepers.remove(&self.key);
            others.extend(state.sleepers.values().cloned());
        }
        for waker in others {
            waker.wake();
        }
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        lock(&self.clock.0).sleepers.remove(&self.key);
    }
}
