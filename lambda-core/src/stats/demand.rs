//! What a function asks for: its concurrency by minute of the hour, learnt as it runs.
//!
//! Invocations go to the most recently used sandbox, so that a function's first sandbox carries its load up to one
//! invocation at a time, the second what goes beyond it, and so on: the sandbox of rank `k` carries, in each
//! minute, the concurrency less `k`, held between 0 and 1. All is integer, so that what was added to a worker's sum
//! is exactly what is taken off it again.

use crate::Time;
use crate::store::slab::NONE;

/// Minutes of the hour.
pub const BINS: usize = 60;
/// One busy processor in a worker's bins.
pub const LOAD_ONE: u32 = 1024;
/// One invocation at a time in a function's bins.
const ONE: u32 = 1 << 16;
const MINUTE: u64 = 60_000_000_000;
/// Minutes after which the bins begin anew.
const SEASON: u32 = 60;

/// Expected load of one sandbox, or of all of a worker's, by minute of the hour; [`LOAD_ONE`] is a processor.
pub type Load = [u32; BINS];

/// What a function's next sandbox is expected to carry, ready for the decision where it goes.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Next {
    /// Of which rank; [`NONE`] before it is known, and when more was learnt.
    rank: u32,
    cpu_milli: u32,
    /// Peak and mean, in processors.
    pub(crate) peak: f32,
    pub(crate) mean: f32,
    /// By minute of the hour, in parts of [`LOAD_ONE`]; more than 63 processors count as that.
    bins: [[u16; BINS / 2]; 2],
}

impl Default for Next {
    fn default() -> Self {
        Self { rank: NONE, cpu_milli: 0, peak: 0.0, mean: 0.0, bins: [[0; BINS / 2]; 2] }
    }
}

impl Next {
    fn new(load: &Load, rank: u32, cpu_milli: u32) -> Self {
        let mut next = Self { rank, cpu_milli, ..Self::default() };
        let (mut peak, mut sum) = (0, 0);
        for (bin, load) in next.bins.as_flattened_mut().iter_mut().zip(load) {
            peak = peak.max(*load);
            // 60 times 2^20 at most.
            sum += load;
            *bin = u16::try_from(*load).unwrap_or(u16::MAX);
        }
        let one = to_f32(LOAD_ONE);
        (next.peak, next.mean) = (to_f32(peak) / one, to_f32(sum) / (one * to_f32(60)));
        next
    }

    /// Returns what is expected, by minute of the hour.
    pub(crate) fn bins(&self) -> &[u16] {
        self.bins.as_flattened()
    }
}

/// A function's concurrency, by minute of the hour.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Demand {
    next: Next,
    /// Concurrency in 65,536ths; empty before the first sandbox.
    bins: Vec<u32>,
    /// One bit for each bin that was observed.
    seen: u64,
    /// Mean squared difference between observed and expected, in invocations squared.
    variance: f32,
}

/// A function's concurrency, and what it was in the minute that is being observed.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Meter {
    /// Nanoseconds times concurrency in the minute.
    area: u64,
    /// Until when that is counted.
    until: Time,
    /// The minute, since the origin of time: 584 years have not as many.
    minute: u32,
    /// Invocations that run.
    busy: u32,
}

/// The concurrency of a minute that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    bin: usize,
    concurrency: u32,
}

impl Meter {
    /// Returns until when it has counted: while nothing runs, when the last invocation ended.
    pub(crate) fn until(&self) -> Time {
        self.until
    }

    /// Returns how many invocations run.
    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    /// Counts one more or one less running invocation.
    pub(crate) fn change(&mut self, by: i32) {
        self.busy = self.busy.saturating_add_signed(by);
    }

    /// Counts the time since the last call, up to `now` or to the end of a minute, which is returned; to be called
    /// until there is none.
    pub(crate) fn advance(&mut self, now: Time) -> Option<Observed> {
        let begun = u64::from(self.minute) * MINUTE;
        if now.as_nanos().wrapping_sub(begun) < MINUTE {
            self.add(now);
            self.until = now.max(self.until);
            return None;
        }
        let minute = u32::try_from(now.as_nanos() / MINUTE).unwrap_or(u32::MAX);
        // Of a gap longer than the season only the last season counts.
        if minute - self.minute > SEASON {
            self.minute = minute - SEASON;
            self.area = u64::from(self.busy).saturating_mul(MINUTE);
        } else {
            self.add(Time::from_nanos(begun + MINUTE));
        }
        let observed = u64::min(self.area / (MINUTE / u64::from(ONE)), u64::from(u32::MAX / 2));
        let observed = u32::try_from(observed).unwrap_or(u32::MAX / 2);
        let bin = (self.minute % SEASON) as usize;
        self.minute += 1;
        self.until = Time::from_nanos(u64::from(self.minute) * MINUTE);
        self.area = 0;
        Some(Observed { bin, concurrency: observed })
    }

    fn add(&mut self, until: Time) {
        let nanos = until.as_nanos().saturating_sub(self.until.as_nanos());
        self.area = self.area.saturating_add(nanos.saturating_mul(u64::from(self.busy)));
    }
}

/// A minute is over: what was expected of it is corrected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub(crate) bin: usize,
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// What was observed.
    pub(crate) observed: u32,
}

impl Demand {
    /// Expects what is given until more is known.
    pub(crate) fn expect(&mut self, prior: impl FnOnce() -> Vec<u32>) {
        if self.bins.is_empty() {
            self.bins = prior();
            self.next.rank = NONE;
        }
    }

    /// Makes ready what the sandbox of rank `rank` is expected to carry, where it is not; `prior` as for
    /// [`Self::expect`].
    pub(crate) fn prepare(&mut self, rank: u32, cpu_milli: u32, prior: impl FnOnce() -> Vec<u32>) {
        if (self.next.rank, self.next.cpu_milli) != (rank, cpu_milli) {
            self.expect(prior);
            self.next = Next::new(&self.load(rank, cpu_milli), rank, cpu_milli);
        }
    }

    /// Reads what [`Self::prepare`] begins with, and what is expected in a minute of the hour and in the tenth from it.
    pub(crate) fn touch(&self, minute: usize) -> u32 {
        let bin =
            |minute: usize| self.next.bins().get(minute % BINS).map_or(0, |it| u32::from(*it));
        self.next.rank ^ bin(minute) ^ bin(minute + 9)
    }

    /// Returns what was made ready.
    pub(crate) fn next(&self) -> &Next {
        &self.next
    }

    /// A minute is over: learns what was observed in it.
    pub(crate) fn close(&mut self, observed: Observed) -> Closed {
        let Observed { bin, concurrency: observed } = observed;
        if self.bins.is_empty() {
            self.bins = vec![0; BINS];
        }
        self.next.rank = NONE;
        let old = self.bins[bin];
        let known = self.seen >> bin & 1 == 1;
        self.seen |= 1 << bin;
        let new = if known { ewma(old, observed) } else { observed };
        self.bins[bin] = new;
        if known {
            let error = (to_f32(observed) - to_f32(old)) / to_f32(ONE);
            self.variance += (error * error - self.variance) / 16.0;
        }
        Closed { bin, old, new, observed }
    }

    /// Returns the expected load of the sandbox of rank `rank`, which takes `cpu_milli` while it is busy.
    pub(crate) fn load(&self, rank: u32, cpu_milli: u32) -> Load {
        let (scale, below) = (scale(cpu_milli), rank.saturating_mul(ONE));
        let mut load = [0; BINS];
        for (load, bin) in load.iter_mut().zip(&self.bins) {
            let part = bin.saturating_sub(below).min(ONE);
            *load = (part / (ONE / LOAD_ONE) * scale) >> 10;
        }
        load
    }

    /// Returns the expected concurrency now and the deviation from it, in invocations.
    pub(crate) fn expected(&self, now: Time) -> (f32, f32) {
        let expected = self.bins.get(minute_of_hour(now)).copied().unwrap_or_default();
        (to_f32(expected) / to_f32(ONE), self.variance.sqrt())
    }
}

/// Returns the minute of the hour, as bins count it.
pub(crate) fn minute_of_hour(now: Time) -> usize {
    usize::try_from(now.as_nanos() / MINUTE % BINS as u64).unwrap_or_default()
}

/// Returns the ranks of sandboxes whose share of a bin is another one after a change.
pub(crate) fn ranks(closed: &Closed) -> std::ops::Range<u32> {
    let (low, high) = (closed.old.min(closed.new), closed.old.max(closed.new));
    low / ONE..high.div_ceil(ONE)
}

/// Returns what the sandbox of rank `rank` carries of a bin.
pub(crate) fn share(bin: u32, rank: u32, cpu_milli: u32) -> u32 {
    let part = bin.saturating_sub(rank.saturating_mul(ONE)).min(ONE);
    // At most 2^10 times 2^20: no overflow, and no division.
    (part / (ONE / LOAD_ONE) * scale(cpu_milli)) >> 10
}

/// Thousandths of a processor in 1,024ths; more than a thousand processors count as that.
fn scale(cpu_milli: u32) -> u32 {
    let scaled = u64::from(cpu_milli) * 1024 / 1000;
    u32::try_from(scaled).unwrap_or(u32::MAX).min(1 << 20)
}

/// Three parts of what was expected and two of what was seen.
fn ewma(old: u32, seen: u32) -> u32 {
    let mixed = (u64::from(old) * 3 + u64::from(seen) * 2) / 5;
    u32::try_from(mixed).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "statistics; the loss is the same everywhere")]
fn to_f32(number: u32) -> f32 {
    number as f32
}

/// One invocation at a time, for priors.
pub(crate) const fn one() -> u32 {
    ONE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_timers_minute_is_learnt() {
        let (mut demand, mut meter) = (Demand::default(), Meter::default());
        let mut advance = |demand: &mut Demand, now, concurrency| {
            while let Some(observed) = meter.advance(now) {
                demand.close(observed);
            }
            meter.change(concurrency);
        };
        for hour in 0..4_u64 {
            // Three at once for half of the first minute of each hour.
            let start = hour * 3600;
            advance(&mut demand, at(start), 3);
            advance(&mut demand, at(start + 30), -3);
        }
        advance(&mut demand, at(4 * 3600), 0);
        let (first, second) = (demand.load(0, 1000), demand.load(1, 1000));
        assert_eq!((first[0], second[0], first[1]), (LOAD_ONE, LOAD_ONE / 2, 0));
        assert_eq!(demand.load(2, 1000)[0], 0);
        assert_eq!(demand.expected(at(4 * 3600 + 5)), (1.5, 0.0));
    }

    #[test]
    fn shares_of_all_ranks_make_the_whole() {
        for bin in [0, 1000, ONE, ONE * 5 / 2, ONE * 7] {
            let whole: u32 = (0..10).map(|rank| share(bin, rank, 1000)).sum();
            assert_eq!(whole, bin / (ONE / LOAD_ONE));
        }
    }
}
