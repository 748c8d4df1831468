//! The host's processor time that a sandbox has it spend, held to a share of the sandbox's own.
//!
//! Output and requests are cheap to make and dear to work off: a program that writes empty lines had the host use 73 times its own
//! time. What exceeds the budget waits, and the program with it; output that the host cannot work off even so is dropped.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What the host may spend on each sandbox before anybody waits.
const BURST: Duration = Duration::from_millis(5);
/// Of the sandbox's processor time, from where on the host works in larger pieces, and from where on it drops output: one part of so
/// many. What is not measured, such as waking, comes on top; a fifth is promised.
const SOFT_PART: u32 = 20;
const HARD_PART: u32 = 10;
/// What it takes to be woken, and to look at the sandbox's processor time, which is not done more often than this.
pub(crate) const WAKING: Duration = Duration::from_micros(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pauses while the budget is exceeded: the first, and the longest.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Longest that one request waits.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Within,
    /// The host works less often, in larger pieces.
    Tight,
    /// The host does only what it must.
    Over,
}

type Meter = dyn Fn() -> Option<Duration> + Send + Sync;

/// One sandbox's budget.
pub(crate) struct Budget {
    /// The sandbox's processor time; where it is not counted, the time since the start stands for it.
    meter: Box<Meter>,
    began: Instant,
    state: Mutex<State>,
    /// Held by the one request that waits for the budget; others wait for it.
    waiting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    spent: Duration,
    used: Duration,
    looked: Option<Instant>,
}

impl State {
    fn standing(&self) -> Standing {
        let within = |part| self.spent <= BURST + self.used / part;
        if within(SOFT_PART) {
            Standing::Within
        } else if within(HARD_PART) {
            Standing::Tight
        } else {
            Standing::Over
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("state", &*self.state()).finish_non_exhaustive()
    }
}

impl Budget {
    pub(crate) fn new(meter: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self {
            meter: Box::new(meter),
            began: Instant::now(),
            state: Mutex::default(),
            waiting: tokio::sync::Mutex::default(),
        }
    }

    /// Makes one that is never exceeded.
    pub(crate) fn unlimited() -> Self {
        Self::new(|| Some(Duration::MAX / 2))
    }

    /// Does work for the sandbox and charges it with what this thread spent.
    pub(crate) fn pay<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.charge(thread_time().saturating_sub(before));
        result
    }

    pub(crate) fn charge(&self, time: Duration) {
        let mut state = self.state();
        state.spent = state.spent.saturating_add(time);
    }

    /// Takes back a charge for work that the host itself has asked for.
    pub(crate) fn refund(&self, time: Duration) {
        let mut state = self.state();
        state.spent = state.spent.saturating_sub(time);
    }

    pub(crate) fn standing(&self) -> Standing {
        let mut state = self.state();
        let now = Instant::now();
        let fresh = state.looked.is_some_and(|looked| now - looked < LOOK_EVERY);
        let standing = state.standing();
        if standing == Standing::Within || fresh {
            return standing;
        }
        state.looked = Some(now);
        state.spent += WAKING;
        drop(state);
        let used = (self.meter)().unwrap_or_else(|| self.began.elapsed());
        let mut state = self.state();
        state.used = state.used.max(used);
        state.standing()
    }

    /// Waits until the sandbox has used enough itself, a second at the most; one request after another.
    pub(crate) async fn wait(&self) {
        if self.standing() == Standing::Within {
            return;
        }
        let _turn = self.waiting.lock().await;
        let until = Instant::now() + WAIT_MAX;
        let mut pause = PAUSE_FIRST;
        while self.standing() != Standing::Within && Instant::now() < until {
            tokio::time::sleep(pause).await;
            pause = longer(pause);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the pause that follows another.
pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX)
}

/// Returns the processor time of this thread; none where the clock cannot be read.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_a_sandbox_may_have_grows_with_what_it_uses() {
        let used = Arc::new(AtomicU64::new(0));
        let meter = Arc::clone(&used);
        let budget =
            Budget::new(move || Some(Duration::from_millis(meter.load(Ordering::Relaxed))));
        assert_eq!(budget.standing(), Standing::Within);
        budget.charge(Duration::from_millis(14));
        let look = || {
            std::thread::sleep(LOOK_EVERY);
            budget.standing()
        };
        assert_eq!(look(), Standing::Over);
        used.store(100, Ordering::Relaxed);
        assert_eq!(look(), Standing::Tight);
        used.store(1000, Ordering::Relaxed);
        assert_eq!(look(), Standing::Within);
        budget.charge(Duration::from_secs(1));
        assert_eq!(budget.standing(), Standing::Over);
        budget.refund(Duration::from_secs(1));
        assert_eq!(budget.standing(), Standing::Within);
        let unlimited = Budget::unlimited();
        unlimited.charge(Duration::from_secs(1000));
        assert_eq!(unlimited.standing(), Standing::Within);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_a_second() {
        let budget = Budget::new(|| Some(Duration::ZERO));
        budget.charge(Duration::from_secs(1));
        let began = tokio::time::Instant::now();
        budget.wait().await;
        // The wall's clock stands still in this test, the runtime's does not.
        assert!(began.elapsed() >= Duration::from_millis(10));
    }
}
