//! Counts of the last minutes, by interval.

use std::collections::VecDeque;
use std::time::Duration;

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Interval {
    /// The interval's number since the start of the host.
    #[serde(skip)]
    number: u64,
    pub(crate) invocations: u32,
    pub(crate) errors: u32,
    pub(crate) throttles: u32,
    pub(crate) cold_starts: u32,
}

/// The intervals of the last five minutes in which something happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    intervals: VecDeque<Interval>,
}

impl Rates {
    /// Returns the interval of `now`, to be counted in.
    pub(crate) fn at(&mut self, now: Duration) -> &mut Interval {
        let number = now.as_secs() / SECONDS;
        // Time does not go back: a later interval is the last one.
        if self.intervals.back().is_none_or(|it| it.number < number) {
            if self.intervals.len() == INTERVALS {
                self.intervals.pop_front();
            }
            self.intervals.push_back(Interval { number, ..Interval::default() });
        }
        let last = self.intervals.len() - 1;
        &mut self.intervals[last]
    }

    /// Returns the last intervals up to `now`, oldest first, also those in which nothing happened.
    pub(crate) fn all(&self, now: Duration) -> Vec<Interval> {
        let last = now.as_secs() / SECONDS;
        let first = (last + 1).saturating_sub(INTERVALS as u64);
        let found = |number| self.intervals.iter().find(|it| it.number == number).copied();
        (first..=last).map(|it| found(it).unwrap_or_default()).collect()
    }
}

/// The length of an interval, in seconds.
pub(crate) const SECONDS: u64 = 5;
const INTERVALS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_without_events_are_empty_and_old_ones_go() {
        let mut rates = Rates::default();
        let at = Duration::from_secs;
        rates.at(at(1)).invocations += 1;
        rates.at(at(4)).invocations += 1;
        rates.at(at(12)).errors += 1;
        let counts: Vec<_> =
            rates.all(at(16)).iter().map(|it| (it.invocations, it.errors)).collect();
        assert_eq!(counts, [(2, 0), (0, 0), (0, 1), (0, 0)]);
        for second in 0..1000 {
            rates.at(at(100 + second)).throttles += 1;
        }
        let all = rates.all(at(1099));
        assert_eq!((all.len(), rates.intervals.len()), (INTERVALS, INTERVALS));
        assert!(all.iter().all(|it| it.throttles == 5), "{all:?}");
    }
}
