//! The host's processor time that a sandbox has it spend, held to a share of what the sandbox itself may use.
//!
//! Output and requests are cheap to make and dear to work off: a program that writes empty lines had the host use 73 times its own
//! time. What exceeds the budget waits, and the program with it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What the host may spend on each sandbox before anybody waits.
const BURST: Duration = Duration::from_millis(10);
/// The part of the sandbox's processor share that the host may spend on it: half of what is promised, as not all is measured.
const PART: f64 = 0.1;
/// What it takes to be woken.
pub(crate) const WAKING: Duration = Duration::from_micros(20);
/// Pauses while the budget is exceeded: the shortest, so that much is done at a time, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Longest that one request waits.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// One sandbox's budget: time comes in at a rate, up to a burst, and goes as it is spent.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Processor time for each second.
    rate: f64,
    state: Mutex<State>,
    /// Held by the one request that waits for the budget; others wait for it.
    waiting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Spent beyond what has come in; at the least, a burst less than nothing.
    debt: f64,
    at: Instant,
}

impl Budget {
    /// Makes the budget of a sandbox that may use so many processors.
    pub(crate) fn new(cpus: f64) -> Self {
        let state = State { debt: -BURST.as_secs_f64(), at: Instant::now() };
        Self { rate: cpus * PART, state: Mutex::new(state), waiting: tokio::sync::Mutex::default() }
    }

    /// Makes one that is never exceeded.
    pub(crate) fn unlimited() -> Self {
        Self::new(f64::INFINITY)
    }

    /// Does work for the sandbox and charges it with what this thread spent.
    pub(crate) fn pay<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.charge(thread_time().saturating_sub(before));
        result
    }

    pub(crate) fn charge(&self, time: Duration) {
        self.state().debt += time.as_secs_f64();
    }

    /// Takes back a charge for work that the host itself has asked for.
    pub(crate) fn refund(&self, time: Duration) {
        self.state().debt -= time.as_secs_f64();
    }

    /// Returns how long to wait until something may be spent again; none where it may be now.
    pub(crate) fn exceeded(&self) -> Option<Duration> {
        self.exceeded_at(Instant::now())
    }

    fn exceeded_at(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        let come_in = now.saturating_duration_since(state.at).as_secs_f64() * self.rate;
        state.at = now;
        // Without a limit nothing times infinity may come in.
        let debt = state.debt - if come_in.is_nan() { 0.0 } else { come_in };
        state.debt = debt.max(-BURST.as_secs_f64());
        (state.debt > 0.0 && self.rate.is_finite()).then(|| {
            let pause = (state.debt / self.rate).min(PAUSE_MAX.as_secs_f64());
            Duration::from_secs_f64(pause).max(PAUSE_MIN)
        })
    }

    /// Waits until something may be spent again, a second at the most; one request after another.
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

/// Returns the processor time of this thread; none where the clock cannot be read.
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
        // Five too many, and fifty come in each second.
        let pause = budget.exceeded_at(began).expect("exceeded");
        assert!(pause.abs_diff(Duration::from_millis(100)) < Duration::from_millis(1), "{pause:?}");
        assert!(budget.exceeded_at(after(50)).is_some());
        assert_eq!(budget.exceeded_at(after(101)), None);
        // A long rest brings no more than a burst.
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
