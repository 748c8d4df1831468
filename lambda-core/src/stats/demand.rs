//! The memory in use over the last hour, minute by minute, and what it says of the minutes to come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// The highest memory in use in each of the last [`MINUTES`] minutes, in KiB.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Demand {
    /// The newest minute is the last.
    peaks: VecDeque<u64>,
    /// The number of the newest minute.
    minute: u64,
}

/// An hour, and the minute that is not over yet.
const MINUTES: usize = 61;
const MINUTE: Duration = Duration::from_secs(60);

impl Demand {
    /// Notes the memory that is in use at `now`.
    pub(crate) fn note(&mut self, now: Time, used_kib: u64) {
        let minute = minute_of(now);
        let passed = minute.saturating_sub(self.minute);
        // A minute without a sample counts with the present use.
        let passed = usize::try_from(passed).map_or(MINUTES, |it| it.min(MINUTES));
        let passed = if self.peaks.is_empty() { 1 } else { passed };
        for _ in 0..passed {
            self.peaks.push_back(used_kib);
        }
        while self.peaks.len() > MINUTES {
            self.peaks.pop_front();
        }
        self.minute = self.minute.max(minute);
        if let Some(newest) = self.peaks.back_mut() {
            *newest = used_kib.max(*newest);
        }
    }

    /// Returns the highest memory in KiB that is expected in use until `ahead` after `now`, if
    /// `used_kib` is in use: it changes by the factor by which it changed an hour ago. Before an
    /// hour has passed, `used_kib`. At most an hour ahead.
    pub(crate) fn expected_kib(&self, now: Time, used_kib: u64, ahead: Duration) -> u64 {
        let an_hour_ago = |minute: u64| {
            let back = (self.minute + 60).checked_sub(minute)?;
            let at = self.peaks.len().checked_sub(1 + usize::try_from(back).ok()?)?;
            self.peaks.get(at)
        };
        let (from, until) = (minute_of(now), minute_of(now + ahead.min(60 * MINUTE)));
        let Some(&then) = an_hour_ago(from).filter(|then| **then > 0) else { return used_kib };
        let peak = (from..=until).filter_map(an_hour_ago).max().copied().unwrap_or(then);
        let expected = u128::from(used_kib) * u128::from(peak) / u128::from(then);
        u64::try_from(expected).unwrap_or(u64::MAX)
    }
}

fn minute_of(time: Time) -> u64 {
    time.since(Time::ZERO).as_secs() / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_rose_an_hour_ago_rises_by_the_same_factor() {
        let mut demand = Demand::default();
        for second in (0..3600).step_by(10) {
            // Three times as much in the sixth minute.
            demand.note(at(second), if second / 60 == 5 { 300 } else { 100 });
        }
        let early = demand.expected_kib(at(3599), 200, MINUTE * 5);
        assert_eq!(early, 200, "an hour has not passed");
        demand.note(at(3600), 200);
        let expected = |minutes| demand.expected_kib(at(3600), 200, minutes * MINUTE);
        assert_eq!((expected(0), expected(4), expected(5), expected(59)), (200, 200, 600, 600));
        // After the rise it is expected to fall.
        (3610..3980).step_by(10).for_each(|second| demand.note(at(second), 200));
        assert_eq!(demand.expected_kib(at(3900), 600, MINUTE * 10), 600);
        assert_eq!(demand.expected_kib(at(3970), 200, MINUTE * 10), 200);
    }

    #[test]
    fn a_long_silence_and_a_clock_that_stands_are_harmless() {
        let mut demand = Demand::default();
        demand.note(at(30), 5);
        demand.note(at(30), 3);
        assert_eq!(demand.peaks, [5]);
        demand.note(at(1 << 40), 7);
        assert_eq!(demand.peaks.len(), MINUTES);
        demand.note(at(60), 9);
        assert_eq!((demand.peaks.len(), demand.peaks.back()), (MINUTES, Some(&9)));
        assert_eq!(demand.expected_kib(Time::LAST, u64::MAX, Duration::MAX), u64::MAX);
        assert_eq!(Demand::default().expected_kib(Time::ZERO, 1, MINUTE), 1);
    }
}
