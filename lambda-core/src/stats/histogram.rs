//! A histogram with two bins to a power of two, for durations from one millisecond to four hours,
//! or for sizes.

use std::time::Duration;

/// Counts durations, in milliseconds, or other numbers. Old counts fade as new ones are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram {
    counts: [[u16; 10]; 5],
    total: u32,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        self.add_number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// Adds a number. When a bin is full, all counts are halved, so that old numbers weigh less.
    pub fn add_number(&mut self, number: u64) {
        self.add_bin(bin_of(number), 1);
    }

    fn add_bin(&mut self, bin: usize, mut times: u16) {
        while times > 0 {
            let count = &mut self.counts[bin / 10][bin % 10];
            let added = times.min(COUNT_MAX.saturating_sub(*count)).max(1);
            *count = count.saturating_add(added);
            self.total += u32::from(added);
            if *count >= COUNT_MAX {
                self.total = 0;
                for count in self.counts.as_flattened_mut() {
                    *count /= 2;
                    self.total += u32::from(*count);
                }
            }
            times -= added;
        }
    }

    /// Returns the sum of all counts.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.total
    }

    /// Returns the quantile at `thousandths` / 1,000, as the upper edge of its bin; `None` if
    /// nothing was added.
    #[must_use]
    pub fn quantile(&self, thousandths: u32) -> Option<Duration> {
        self.quantile_number(thousandths).map(Duration::from_millis)
    }

    /// Returns the quantile of numbers other than durations; see [`Self::quantile`].
    #[must_use]
    pub fn quantile_number(&self, thousandths: u32) -> Option<u64> {
        Some(edge(self.bin_at(thousandths)? + 1))
    }

    /// Returns the quantile as the lower edge of its bin; `None` if nothing was added.
    #[must_use]
    pub fn quantile_low(&self, thousandths: u32) -> Option<Duration> {
        Some(Duration::from_millis(edge(self.bin_at(thousandths)?)))
    }

    /// Returns the count of the last bin, which has all larger numbers as well.
    #[must_use]
    pub fn beyond(&self) -> u32 {
        u32::from(self.counts[4][9])
    }

    fn bin_at(&self, thousandths: u32) -> Option<usize> {
        let wanted = (u64::from(self.total) * u64::from(thousandths)).div_ceil(1000).max(1);
        let mut seen = 0_u64;
        for (bin, count) in self.counts.as_flattened().iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Some(bin);
            }
        }
        None
    }
}

/// Numbers not yet added to a histogram, so that not every number reads and writes it. Holds up to
/// three different bins.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Pending {
    /// Used entries come first.
    bins: [u8; 3],
    counts: [u8; 3],
}

impl Pending {
    /// Stores a number. If there is no place for it, first moves the stored ones to the histogram
    /// and returns `true`.
    pub(crate) fn add_number(&mut self, number: u64, to: &mut Histogram) -> bool {
        let bin = u8::try_from(bin_of(number)).unwrap_or_default();
        for (its, count) in self.bins.iter_mut().zip(&mut self.counts) {
            if *count == 0 || *its == bin && *count < u8::MAX {
                *its = bin;
                *count += 1;
                return false;
            }
        }
        self.flush(to);
        (self.bins[0], self.counts[0]) = (bin, 1);
        true
    }

    /// Returns how many numbers are stored.
    pub(crate) fn count(&self) -> u32 {
        self.counts.iter().map(|count| u32::from(*count)).sum()
    }

    /// Moves the stored numbers to the histogram.
    pub(crate) fn flush(&mut self, to: &mut Histogram) {
        for (bin, count) in self.bins.iter().zip(&mut self.counts) {
            to.add_bin(usize::from(*bin), u16::from(std::mem::take(count)));
        }
    }
}

const BINS: usize = 50;
/// The count at which a bin is full.
const COUNT_MAX: u16 = 1 << 12;

fn bin_of(number: u64) -> usize {
    if number == 0 {
        return 0;
    }
    let octave = number.ilog2() as usize;
    let half = if octave == 0 { 0 } else { usize::from(number >> (octave - 1) & 1 == 1) };
    (1 + 2 * octave + half).min(BINS - 1)
}

/// Returns the lower edge of a bin.
fn edge(bin: usize) -> u64 {
    let Some(bin) = bin.checked_sub(1) else { return 0 };
    let octave = 1_u64 << (bin / 2);
    if bin.is_multiple_of(2) { octave } else { (octave * 3).div_ceil(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lies_within_its_bin() {
        for number in (0..5000).chain([1 << 20, (1 << 24) - 1]) {
            let bin = bin_of(number);
            assert!(edge(bin) <= number && number < edge(bin + 1), "{number} in {bin}");
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn what_is_pending_is_counted_once() {
        let (mut pending, mut late, mut at_once) =
            (Pending::default(), Histogram::default(), Histogram::default());
        for number in 0..1000 {
            at_once.add_number(number * 7);
            pending.add_number(number * 7, &mut late);
        }
        assert_ne!(late, at_once);
        pending.flush(&mut late);
        assert_eq!(late, at_once);
        pending.flush(&mut late);
        assert_eq!(late, at_once);
    }

    #[test]
    fn quantiles_are_edges_and_old_ones_fade() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        (0..90).for_each(|_| histogram.add(Duration::from_millis(10)));
        (0..10).for_each(|_| histogram.add(Duration::from_millis(1000)));
        assert_eq!(histogram.quantile(500), Some(Duration::from_millis(12)));
        assert_eq!(histogram.quantile_low(990), Some(Duration::from_millis(768)));
        (0..100_000).for_each(|_| histogram.add(Duration::from_millis(100)));
        assert!(histogram.count() < 1 << 13);
        assert_eq!(histogram.quantile(1), Some(Duration::from_millis(128)));
    }
}
