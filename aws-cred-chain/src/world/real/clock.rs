//! The clock and the timers of this machine.

use std::collections::BinaryHeap;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use crate::world::{BoxFuture, Clock, lock};

/// The clock of this machine. One thread serves all waits; it starts at the first wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        let at = Instant::now() + duration.min(Duration::from_secs(366 * 86_400));
        Box::pin(Sleep { at, timer: None })
    }
}

struct Sleep {
    at: Instant,
    timer: Option<Arc<Timer>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if let Some(timer) = &self.timer {
            *lock(&timer.waker) = Some(cx.waker().clone());
        } else {
            let waker = Mutex::new(Some(cx.waker().clone()));
            let timer = Arc::new(Timer { at: self.at, waker });
            self.timer = Some(timer.clone());
            timers().add(timer);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The entry stays in the heap until its time, without a waker.
        if let Some(timer) = &self.timer {
            lock(&timer.waker).take();
        }
    }
}

struct Timer {
    at: Instant,
    waker: Mutex<Option<Waker>>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The earliest timer is the greatest, because `BinaryHeap` pops the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

#[derive(Default)]
struct Timers {
    heap: Mutex<BinaryHeap<Arc<Timer>>>,
    changed: Condvar,
}

fn timers() -> &'static Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    static THREAD: OnceLock<bool> = OnceLock::new();
    let timers = TIMERS.get_or_init(Timers::default);
    THREAD.get_or_init(|| {
        let thread = std::thread::Builder::new().name("aws-cred-chain-timer".to_owned());
        thread.spawn(|| TIMERS.get().map(Timers::serve)).is_ok()
    });
    timers
}

impl Timers {
    fn add(&self, timer: Arc<Timer>) {
        lock(&self.heap).push(timer);
        self.changed.notify_one();
    }

    fn serve(&self) {
        let mut heap = lock(&self.heap);
        loop {
            let now = Instant::now();
            let next = heap.peek().map(|timer| timer.at);
            heap = match next {
                Some(at) if at <= now => {
                    let waker = heap.pop().and_then(|timer| lock(&timer.waker).take());
                    drop(heap);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    lock(&self.heap)
                }
                Some(at) => match self.changed.wait_timeout(heap, at - now) {
                    Ok((heap, _)) => heap,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => match self.changed.wait(heap) {
                    Ok(heap) => heap,
                    Err(poisoned) => poisoned.into_inner(),
                },
            };
        }
    }
}
