//! A credential load shared by many callers. Any caller that polls advances it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::sync::{AtomicBool, Mutex, OnceLock, Ordering, TryLockError};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::world::BoxFuture;
use crate::world::lock;

/// The result of a load.
pub(crate) type Outcome = Result<Arc<Credentials>, Error>;

/// One load. Each caller that polls it advances it. A wake of the load wakes one waiter; its
/// completion wakes all.
pub(crate) struct Flight {
    future: Mutex<Option<BoxFuture<'static, Outcome>>>,
    outcome: OnceLock<Outcome>,
    begun: AtomicBool,
    signal: Arc<Signal>,
}

/// The waker that is passed to the future of the load.
#[derive(Default)]
struct Signal {
    /// Set by a wake and cleared before a poll, so that a wake during a poll is noticed after it.
    woken: AtomicBool,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.wake_one();
    }
}

impl Signal {
    fn wake_one(&self) {
        let waker = lock(&self.waiters).wakers.values().next().cloned();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = lock(&self.waiters).wakers.values().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Flight {
    pub(crate) fn new(future: BoxFuture<'static, Outcome>) -> Arc<Self> {
        Arc::new(Self {
            future: Mutex::new(Some(future)),
            outcome: OnceLock::new(),
            begun: AtomicBool::new(false),
            signal: Arc::default(),
        })
    }

    /// Returns whether the load has begun and is not complete, but no caller waits for it.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
            && lock(&self.signal.waiters).wakers.is_empty()
            && self.outcome.get().is_none()
    }

    /// Polls the load until it is pending or complete, and returns the outcome if it is complete.
    /// If another thread is polling the load, that thread continues.
    pub(crate) fn push(&self) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.outcome.get() {
                return Some(outcome.clone());
            }
            {
                let mut slot = match self.future.try_lock() {
                    Ok(slot) => slot,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => return None,
                };
                self.signal.woken.store(false, Ordering::SeqCst);
                self.poll(&mut slot);
            }
            // A wake that came while this thread held the lock may have found the lock taken.
            if self.outcome.get().is_none() && !self.signal.woken.load(Ordering::SeqCst) {
                return None;
            }
        }
    }

    fn poll(&self, slot: &mut Option<BoxFuture<'static, Outcome>>) {
        if self.outcome.get().is_some() {
            return;
        }
        self.begun.store(true, Ordering::SeqCst);
        // The future is taken out of its slot, so that it is not polled again after a panic.
        let outcome = match slot.take() {
            None => Err(Error::unexpected("loading credentials", "the load panicked")),
            Some(mut future) => {
                let waker = Waker::from(self.signal.clone());
                match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => {
                        *slot = Some(future);
                        return;
                    }
                }
            }
        };
        // Only the holder of the lock sets the outcome, and it was not set above.
        let _set_once = self.outcome.set(outcome);
        self.signal.wake_all();
    }

    /// Returns a future that advances the load and completes with its outcome.
    pub(crate) fn wait(self: &Arc<Self>) -> Wait {
        let mut waiters = lock(&self.signal.waiters);
        waiters.next += 1;
        Wait { id: waiters.next, flight: self.clone() }
    }
}

/// One caller's wait.
pub(crate) struct Wait {
    id: u64,
    flight: Arc<Flight>,
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let waker = cx.waker().clone();
        lock(&self.flight.signal.waiters).wakers.insert(self.id, waker);
        match self.flight.push() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        lock(&self.flight.signal.waiters).wakers.remove(&self.id);
        // The last wake may have gone to this caller. Another waiter must poll instead.
        if self.flight.outcome.get().is_none() {
            self.flight.signal.wake_one();
        }
    }
}
