//! The demand for a function: its concurrency by minute of the hour, learnt from its invocations.
//!
//! Invocations go to the most recently used sandbox. A function's first sandbox therefore carries
//! the first concurrent invocation, the second sandbox the second one, and so on. In each minute,
//! the sandbox of rank `k` carries the concurrency minus `k`, clamped to 0..=1. All arithmetic is
//! on integers: the load that is subtracted from a worker's sum is exactly the load that was added.

use crate::store::slab::NONE;
use crate::time::Time;

/// The number of bins: one for each minute of the hour.
pub const BINS: usize = 60;
/// The load of one busy processor.
pub const LOAD_ONE: u32 = 1024;
/// A concurrency of one invocation, in a function's bins.
const ONE: u32 = 1 << 16;
const MINUTE: u64 = 60_000_000_000;
/// The number of minutes after which the bins repeat.
const SEASON: u32 = 60;

/// Expected load of a sandbox or a worker by minute of the hour. [`LOAD_ONE`] is one processor.
pub type Load = [u32; BINS];

/// The expected load of a function's next sandbox, computed before its placement.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Next {
    /// The sandbox's rank; [`NONE`] when the load must be computed again.
    rank: u32,
    cpu_milli: u32,
    /// The highest and the mean load, in processors.
    pub(crate) peak: f32,
    pub(crate) mean: f32,
    /// The load by minute of the hour, in units of 1 / [`LOAD_ONE`] processor, at most 65,535.
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
            // At most 60 × 2^20: no overflow.
            sum += load;
            *bin = u16::try_from(*load).unwrap_or(u16::MAX);
        }
        let one = to_f32(LOAD_ONE);
        (next.peak, next.mean) = (to_f32(peak) / one, to_f32(sum) / (one * to_f32(60)));
        next
    }

    /// Returns the load by minute of the hour.
    pub(crate) fn bins(&self) -> &[u16] {
        self.bins.as_flattened()
    }
}

/// The expected concurrency of a function by minute of the hour.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Demand {
    next: Next,
    /// Concurrency in units of 1/65,536; empty before the first sandbox.
    bins: Vec<u32>,
    /// One bit for each bin that has an observation.
    seen: u64,
    /// The mean squared difference between observed and expected concurrency, in invocations
    /// squared.
    variance: f32,
}

/// The running invocations of a function, and their integral over the current minute.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Meter {
    /// The integral of the concurrency over the current minute, in nanoseconds.
    area: u64,
    /// The end of the integrated time.
    until: Time,
    /// The current minute, counted from the origin of time. 2^64 nanoseconds are fewer than 2^32
    /// minutes.
    minute: u32,
    /// The number of running invocations.
    busy: u32,
}

/// The mean concurrency of a completed minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    bin: usize,
    concurrency: u32,
}

impl Meter {
    /// Returns the end of the integrated time. While nothing runs, it is the end of the last
    /// invocation.
    pub(crate) fn until(&self) -> Time {
        self.until
    }

    /// Returns the number of running invocations.
    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    /// Adds `by` to the number of running invocations.
    pub(crate) fn change(&mut self, by: i32) {
        self.busy = self.busy.saturating_add_signed(by);
    }

    /// Integrates the concurrency up to `now` or up to the end of a minute. Returns the minute when
    /// one is complete; the caller must repeat the call until it returns `None`.
    pub(crate) fn advance(&mut self, now: Time) -> Option<Observed> {
        let begun = u64::from(self.minute) * MINUTE;
        if now.as_nanos().wrapping_sub(begun) < MINUTE {
            self.add(now);
            self.until = now.max(self.until);
            return None;
        }
        let minute = u32::try_from(now.as_nanos() / MINUTE).unwrap_or(u32::MAX);
        // Of a gap longer than a season, only the last season is observed.
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

/// The correction of a bin after a completed minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub(crate) bin: usize,
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// The observed concurrency of the minute.
    pub(crate) observed: u32,
}

impl Demand {
    /// Sets the expected concurrency to a prior if nothing is known yet.
    pub(crate) fn expect(&mut self, prior: impl FnOnce() -> Vec<u32>) {
        if self.bins.is_empty() {
            self.bins = prior();
            self.next.rank = NONE;
        }
    }

    /// Computes the expected load of the sandbox of rank `rank`, unless [`Self::next`] already has
    /// it. `prior` as in [`Self::expect`].
    pub(crate) fn prepare(&mut self, rank: u32, cpu_milli: u32, prior: impl FnOnce() -> Vec<u32>) {
        if (self.next.rank, self.next.cpu_milli) != (rank, cpu_milli) {
            self.expect(prior);
            self.next = Next::new(&self.load(rank, cpu_milli), rank, cpu_milli);
        }
    }

    /// Reads the fields that [`Self::prepare`] reads first, and the bins of a minute of the hour
    /// and of the ninth after it.
    pub(crate) fn touch(&self, minute: usize) -> u32 {
        let bin =
            |minute: usize| self.next.bins().get(minute % BINS).map_or(0, |it| u32::from(*it));
        self.next.rank ^ bin(minute) ^ bin(minute + 9)
    }

    /// Returns the load that [`Self::prepare`] computed.
    pub(crate) fn next(&self) -> &Next {
        &self.next
    }

    /// Updates the expected concurrency by the observation of a completed minute.
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

    /// Returns the expected load of the sandbox of rank `rank`, which takes `cpu_milli` while it is
    /// busy.
    pub(crate) fn load(&self, rank: u32, cpu_milli: u32) -> Load {
        let (scale, below) = (scale(cpu_milli), rank.saturating_mul(ONE));
        let mut load = [0; BINS];
        for (load, bin) in load.iter_mut().zip(&self.bins) {
            let part = bin.saturating_sub(below).min(ONE);
            *load = (part / (ONE / LOAD_ONE) * scale) >> 10;
        }
        load
    }

    /// Returns the expected concurrency of the current minute and its standard deviation, in
    /// invocations.
    pub(crate) fn expected(&self, now: Time) -> (f32, f32) {
        let expected = self.bins.get(minute_of_hour(now)).copied().unwrap_or_default();
        (to_f32(expected) / to_f32(ONE), self.variance.sqrt())
    }
}

/// Returns the minute of the hour, 0 to 59, as the index of a bin.
pub(crate) fn minute_of_hour(now: Time) -> usize {
    usize::try_from(now.as_nanos() / MINUTE % BINS as u64).unwrap_or_default()
}

/// Returns the ranks of the sandboxes whose share of a bin changes with a correction.
pub(crate) fn ranks(closed: &Closed) -> std::ops::Range<u32> {
    let (low, high) = (closed.old.min(closed.new), closed.old.max(closed.new));
    low / ONE..high.div_ceil(ONE)
}

/// Returns the load of the sandbox of rank `rank` in a bin.
pub(crate) fn share(bin: u32, rank: u32, cpu_milli: u32) -> u32 {
    let part = bin.saturating_sub(rank.saturating_mul(ONE)).min(ONE);
    // At most 2^10 × 2^20: no overflow, and no division.
    (part / (ONE / LOAD_ONE) * scale(cpu_milli)) >> 10
}

/// Converts thousandths of a processor to 1,024ths, at most 1,024 processors.
fn scale(cpu_milli: u32) -> u32 {
    let scaled = u64::from(cpu_milli) * 1024 / 1000;
    u32::try_from(scaled).unwrap_or(u32::MAX).min(1 << 20)
}

/// Returns 3/5 of the old expectation plus 2/5 of the observation.
fn ewma(old: u32, seen: u32) -> u32 {
    let mixed = (u64::from(old) * 3 + u64::from(seen) * 2) / 5;
    u32::try_from(mixed).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "statistics; the loss is the same everywhere")]
fn to_f32(number: u32) -> f32 {
    number as f32
}

/// Returns a concurrency of one invocation, for priors.
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
            // Three invocations at once for half of the first minute of each hour.
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
