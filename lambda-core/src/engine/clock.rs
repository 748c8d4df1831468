//! The engine's time: the driver's clock without its steps.
//!
//! A clock that is set an hour ahead would expire every lease, idle time and worker life at once. A
//! step beyond [`Config::clock_jump_max`](crate::Config::clock_jump_max), in either direction,
//! therefore changes only the offset between the driver's time and the engine's. Times in commands
//! are converted back to the driver's time.

use std::time::Duration;

use crate::time::Time;

/// The offset between the driver's time and the engine's. At most one of the fields is not zero.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Clock {
    ahead_nanos: u64,
    behind_nanos: u64,
}

impl Clock {
    /// Returns the engine's time for the driver's time `outside`. `last` is the engine's previous
    /// time. `due` is its next timer, at which the driver is expected to call, or [`Time::LAST`];
    /// only a call later than `due` by more than `jump_max` is a step ahead.
    pub(crate) fn read(
        &mut self,
        outside: Time,
        last: Time,
        due: Time,
        jump_max: Duration,
    ) -> Time {
        let inside = self.inside(outside);
        if last <= inside && inside <= due && self.ahead_nanos <= outside.as_nanos() {
            return inside;
        }
        // `inside` stops at the engine's origin; add the part of a backward step beyond it.
        let before_origin = Time::from_nanos(self.ahead_nanos).since(outside);
        if last.since(inside) + before_origin > jump_max {
            self.shift(outside, last);
            return last;
        }
        let expected = due.max(last);
        if inside.since(expected) > jump_max {
            self.shift(outside, expected);
            return expected;
        }
        inside.max(last)
    }

    /// Converts the engine's time to the driver's time.
    pub(crate) fn outside(&self, inside: Time) -> Time {
        let nanos = inside.as_nanos().saturating_add(self.ahead_nanos);
        Time::from_nanos(nanos.saturating_sub(self.behind_nanos))
    }

    /// Converts the driver's time to the engine's time.
    pub(crate) fn inside(&self, outside: Time) -> Time {
        let nanos = outside.as_nanos().saturating_sub(self.ahead_nanos);
        Time::from_nanos(nanos.saturating_add(self.behind_nanos))
    }

    fn shift(&mut self, outside: Time, inside: Time) {
        let (outside, inside) = (outside.as_nanos(), inside.as_nanos());
        self.ahead_nanos = outside.saturating_sub(inside);
        self.behind_nanos = inside.saturating_sub(outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_step_beyond_the_limit_is_not_time_that_passed() {
        let mut clock = Clock::default();
        assert_eq!(clock.read(at(10), at(0), at(10), MAX), at(10));
        // A late driver, by less than the limit, is not a step of the clock.
        assert_eq!(clock.read(at(400), at(10), at(20), MAX), at(400));
        assert_eq!(clock.read(at(4400), at(400), at(500), MAX), at(500));
        assert_eq!(
            (clock.read(at(4401), at(500), Time::LAST, MAX), clock.outside(at(501))),
            (at(501), at(4401))
        );
        // A step back.
        assert_eq!(clock.read(at(600), at(501), at(900), MAX), at(501));
        assert_eq!(clock.read(at(601), at(501), at(900), MAX), at(502));
        assert_eq!(clock.outside(at(502)), at(601));
    }

    #[test]
    fn who_waits_for_nothing_may_sleep_for_long() {
        assert_eq!(Clock::default().read(at(9_999_999), at(1), Time::LAST, MAX), at(9_999_999));
    }

    #[test]
    fn a_little_back_counts_as_no_time() {
        assert_eq!(Clock::default().read(at(500), at(600), at(700), MAX), at(600));
    }
}
