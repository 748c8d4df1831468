//! The rhythm of a function: its usual gap and how far gaps are from it.

use std::time::Duration;

/// Moving averages of a function's idle gaps of at least a second, and of their distances from the
/// average, as TCP keeps them of round trips (Jacobson, "Congestion Avoidance and Control", 1988).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rhythm {
    /// The usual gap.
    pub gap: Duration,
    /// The usual distance of a gap from the usual one.
    pub deviation: Duration,
    /// The number of gaps so far.
    pub count: u32,
}

impl Rhythm {
    pub(crate) fn add(&mut self, gap: Duration) {
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            (self.gap, self.deviation) = (gap, gap / 2);
            return;
        }
        let distance = gap.abs_diff(self.gap);
        self.deviation = (self.deviation * 3 + distance) / 4;
        self.gap = (self.gap * 7 + gap) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_gaps_have_a_deviation_that_vanishes_and_a_missed_beat_shows() {
        let mut rhythm = Rhythm::default();
        (0..20).for_each(|_| rhythm.add(Duration::from_secs(300)));
        assert_eq!((rhythm.gap, rhythm.count), (Duration::from_secs(300), 20));
        assert!(rhythm.deviation < Duration::from_secs(1));
        rhythm.add(Duration::from_secs(600));
        assert!(rhythm.deviation > Duration::from_secs(70));
    }
}
