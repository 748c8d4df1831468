//! The record of a worker's starts.

use std::time::Duration;

use crate::time::Time;

/// The record of a worker's starts.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Health {
    /// Failures in thousandths, decayed by successes and time.
    pub(super) score: u32,
    pub(super) at: Time,
    /// The time of the last failure.
    pub(super) failed_at: Time,
    /// The end of the last ejection.
    pub(super) ejected_until: Time,
    /// The number of ejections since the score was last low.
    pub(super) ejections: u32,
    /// It was ejected, and no start has succeeded since.
    pub(super) probation: bool,
}

/// The score of one failure.
pub(super) const FAILURE: u32 = 1000;
/// The score from which a worker is ejected: three failures in a row, or four that alternate with
/// successes.
pub(super) const EJECTED_FROM: u32 = 2500;
/// The time in which a score halves.
pub(super) const HALF_LIFE: Duration = Duration::from_secs(60);
/// The first ejection. Each following one is twice as long.
pub(super) const EJECTION: Duration = Duration::from_secs(60);
/// The longest ejection.
pub(super) const EJECTION_MAX: Duration = Duration::from_secs(600);
/// A start counts as failed if it takes this many times its function's usual time, and more than
/// [`SLOW_MIN`].
pub(super) const SLOW: u32 = 5;
pub(super) const SLOW_MIN: Duration = Duration::from_secs(1);

impl Health {
    pub(super) fn decay(&mut self, now: Time) {
        let halvings = now.since(self.at).as_nanos() / HALF_LIFE.as_nanos();
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        self.score = self.score.checked_shr(halvings).unwrap_or(0);
        self.at = self.at + HALF_LIFE.saturating_mul(halvings);
        if self.score == 0 {
            self.at = self.at.max(now);
        }
    }

    /// Counts a failure. Returns whether the worker should be ejected.
    pub(super) fn failed(&mut self, now: Time) -> bool {
        self.decay(now);
        self.score = self.score.saturating_add(FAILURE);
        self.failed_at = now;
        self.probation || self.score >= EJECTED_FROM
    }

    pub(super) fn succeeded(&mut self, now: Time) {
        self.decay(now);
        self.score = self.score / 10 * 7;
        if std::mem::take(&mut self.probation) {
            self.score = 0;
        }
        if self.score < FAILURE {
            self.ejections = 0;
        }
    }

    pub(super) fn eject(&mut self, now: Time) -> Time {
        let time = EJECTION.saturating_mul(1 << self.ejections.min(8)).min(EJECTION_MAX);
        self.ejections += 1;
        self.score = 0;
        self.probation = true;
        self.ejected_until = now + time;
        self.ejected_until
    }

    /// Returns whether a start began before the last failure was known.
    pub(crate) fn is_old_news(&self, begun: Time) -> bool {
        begun < self.failed_at
    }

    pub(crate) fn is_ejected(&self, now: Time) -> bool {
        self.ejected_until > now
    }

    /// Returns whether it is tried only if no other worker can, with one start at a time.
    pub(crate) fn is_suspect(&self, now: Time) -> bool {
        let mut decayed = *self;
        decayed.decay(now);
        self.probation || decayed.score >= FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn three_in_a_row_or_every_second_one_make_an_outlier() {
        let mut row = Health::default();
        assert_eq!([1, 2, 3].map(|second| row.failed(at(second))), [false, false, true]);
        let mut flapping = Health::default();
        let ejected = (0..20).position(|second| {
            flapping.succeeded(at(second));
            flapping.failed(at(second))
        });
        assert_eq!(ejected, Some(3));
        let mut rare = Health::default();
        assert!(!(0..200).any(|turn| {
            (0..9).for_each(|_| rare.succeeded(at(turn)));
            rare.failed(at(turn))
        }));
    }

    #[test]
    fn time_forgives_and_ejections_grow() {
        let mut health = Health::default();
        health.failed(at(0));
        assert!(health.is_suspect(at(59)) && !health.is_suspect(at(61)));
        let until: Vec<_> =
            (0..6).map(|_| health.eject(at(1000)).since(at(1000)).as_secs()).collect();
        assert_eq!(until, [60, 120, 240, 480, 600, 600]);
        assert!(
            health.is_suspect(at(9000)) && health.failed(at(9000)),
            "probation ends with a good start"
        );
        health.succeeded(at(9001));
        assert!(!health.is_suspect(at(9001)));
        assert_eq!(health.eject(at(9002)), at(9062));
    }
}
