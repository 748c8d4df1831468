//! Limits the host's processor time for each sandbox to a share of the sandbox's own processor
//! time.
//!
//! Output and requests cost the host more than the sandbox: for a program that writes empty lines
//! the host used 73 times the program's time. Work beyond the budget waits, and so does the
//! program.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The host's processor time for a sandbox that is available at once.
const BURST: Duration = Duration::from_millis(10);
/// The host's processor time for a sandbox, as a fraction of the sandbox's share. It is half of the
/// promised fraction, because not all of the host's work is measured.
const PART: f64 = 0.1;
/// The estimated cost of one wake-up.
pub(crate) const WAKING: Duration = Duration::from_micros(20);
/// The shortest and longest pause while the budget is exceeded. A short pause would mean little
/// work for each wake-up.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// The longest wait of one request.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// One sandbox's budget, a token bucket: time is added at a rate, up to [`BURST`], and subtracted
/// when it is spent.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Processor time in seconds that is added for each second of wall time.
    rate: f64,
    state: Mutex<State>,
    /// Held by the request that waits for the budget. Other requests queue for it.
    waiting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// The time spent beyond the time added, in seconds. Its minimum is minus [`BURST`].
    debt: f64,
    at: Instant,
}

impl Budget {
    /// Creates the budget of a sandbox with a share of `cpus` processors.
    pub(crate) fn new(cpus: f64) -> Self {
        let state = State { debt: -BURST.as_secs_f64(), at: Instant::now() };
        Self { rate: cpus * PART, state: Mutex::new(state), waiting: tokio::sync::Mutex::default() }
    }

    /// Creates a budget that is never exceeded.
    pub(crate) fn unlimited() -> Self {
        Self::new(f64::INFINITY)
    }

    /// Does work for the sandbox, and charges the processor time that this thread spent on it.
    pub(crate) fn pay<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.charge(thread_time().saturating_sub(before));
        result
    }

    pub(crate) fn charge(&self, time: Duration) {
        self.state().debt += time.as_secs_f64();
    }

    /// Takes back a charge for work that the host itself requested.
    pub(crate) fn refund(&self, time: Duration) {
        self.state().debt -= time.as_secs_f64();
    }

    /// Returns how long to wait until the budget allows work again, or `None` if it does now.
    pub(crate) fn exceeded(&self) -> Option<Duration> {
        self.exceeded_at(Instant::now())
    }

    fn exceeded_at(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        let come_in = now.saturating_duration_since(state.at).as_secs_f64() * self.rate;
        state.at = now;
        // With an unlimited rate, no elapsed time times infinity is NaN.
        let debt = state.debt - if come_in.is_nan() { 0.0 } else { come_in };
        state.debt = debt.max(-BURST.as_secs_f64());
        (state.debt > 0.0 && self.rate.is_finite()).then(|| {
            let pause = (state.debt / self.rate).min(PAUSE_MAX.as_secs_f64());
            Duration::from_secs_f64(pause).max(PAUSE_MIN)
        })
    }

    /// Waits until the budget allows work again, for [`WAIT_MAX`] at most. Requests wait one after
    /// another.
    pub(crate) async fn wait(&self) {
        if self.exceeded().is_none() {
            return;
        }
        let _turn = self.waiting.lock().await;
        let until = Instant::now() + WAIT_MAX;
        while let Some(pause) = self.exceeded().filter(|_| Instant::now() < until) {
            tokio::time::sleep(pause).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the processor time of this thread, or zero if the clock cannot be read.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_spent_comes_in_with_time() {
        let budget = Budget::new(0.5);
        let began = budget.state().at;
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        assert_eq!(budget.exceeded_at(began), None);
        budget.charge(Duration::from_millis(15));
        // 5 ms too many; 50 ms are added each second.
        let pause = budget.exceeded_at(began).expect("exceeded");
        assert!(pause.abs_diff(Duration::from_millis(100)) < Duration::from_millis(1), "{pause:?}");
        assert!(budget.exceeded_at(after(50)).is_some());
        assert_eq!(budget.exceeded_at(after(101)), None);
        // A long rest adds no more than a burst.
        assert_eq!(budget.exceeded_at(after(1_000_000)), None);
        budget.charge(Duration::from_millis(11));
        assert!(budget.exceeded_at(after(1_000_000)).is_some());
        budget.refund(Duration::from_millis(2));
        assert_eq!(budget.exceeded_at(after(1_000_000)), None);
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let budget = Budget::unlimited();
        budget.charge(Duration::from_secs(1000));
        assert_eq!(budget.exceeded(), None);
        budget.wait().await;
    }
}
