//! Completes a future of an in-memory world, and reports if it would wait for ever.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::VirtualClock;
use crate::world::Clock as _;

/// Why a future would never complete.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsForEver {
    /// No event can wake the future any more: no sleeper moves the clock, and no one else holds the
    /// future's waker.
    Stuck {
        /// The time of the clock since its start.
        after: Duration,
        /// The number of sleepers on a clock that only a test moves.
        sleepers: usize,
    },
    /// The future was still waiting when the time limit was reached.
    NoEnd {
        /// The time of the clock since the future was first polled.
        after: Duration,
    },
}

impl fmt::Display for WaitsForEver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck { after, sleepers: 0 } => {
                write!(f, "waits for ever: nothing can wake it, {} s by the clock", after.as_secs())
            }
            Self::Stuck { after, sleepers } => write!(
                f,
                "waits for ever: {sleepers} sleep on a clock that stands, {} s by it",
                after.as_secs()
            ),
            Self::NoEnd { after } => {
                write!(f, "still waits after {} s by the clock", after.as_secs())
            }
        }
    }
}

impl std::error::Error for WaitsForEver {}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl VirtualClock {
    /// Completes `future` on this thread, in the time of this clock. Returns an error if it would
    /// never complete.
    ///
    /// All wakes of the future must come from this thread, as in a [`super::World`]. Wakes from
    /// other threads or from the machine are not waited for.
    ///
    /// # Errors
    ///
    /// [`WaitsForEver::Stuck`] if the future is pending and nothing can wake it.
    /// [`WaitsForEver::NoEnd`] if it is pending for longer than `limit` by this clock.
    pub fn run<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, WaitsForEver> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        let start = self.monotonic();
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Ok(value);
            }
            let after = self.monotonic().saturating_sub(start);
            if after > limit {
                return Err(WaitsForEver::NoEnd { after });
            }
            if !woken.0.swap(false, Ordering::SeqCst) {
                let (after, sleepers) = (self.monotonic(), self.sleepers());
                return Err(WaitsForEver::Stuck { after, sleepers });
            }
        }
    }
}
