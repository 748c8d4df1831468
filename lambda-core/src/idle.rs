//! Idle policies: how long an idle sandbox is kept, and which is evicted first when room is needed.

use std::fmt;
use std::time::Duration;

use crate::stats::histogram::Histogram;
use crate::stats::rhythm::Rhythm;

/// The statistics of a function that an idle policy may use.
#[derive(Clone, Copy, Debug)]
pub struct IdleView<'a> {
    /// Lengths of the function's idle gaps, in milliseconds. A gap is the time without a running
    /// invocation before an invocation arrives.
    pub gaps: &'a Histogram,
    /// The usual gap of at least a second, and how steady it is.
    pub rhythm: Rhythm,
    /// The number of invocations so far.
    pub uses: u32,
    /// The usual time from the start command to readiness, as a moving average; zero before the
    /// first start.
    pub start: Duration,
    /// The memory of one sandbox of the function, in bytes.
    pub memory_bytes: u64,
}

/// How long the sandboxes of a function are kept, and whether one is pre-warmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Keep {
    /// How long a sandbox is kept idle after an invocation.
    pub idle: Duration,
    /// Pre-warming, as (delay, keep): a sandbox is started this long after the function's last
    /// invocation ended, and kept idle for this long. `None` disables pre-warming.
    pub prewarm: Option<(Duration, Duration)>,
}

/// Decides how long idle sandboxes are kept. The engine asks when an invocation ends a gap of at
/// least a second, and after at most 32 gaps that were shorter.
pub trait IdlePolicy: fmt::Debug + Send {
    /// Returns how long the sandboxes of the function are kept.
    fn keep(&self, function: &IdleView<'_>) -> Keep;

    /// Returns the value of an idle sandbox of the function. When room is needed, the sandbox of
    /// the lowest value is evicted first. `clock` is the highest value that was evicted so far, at
    /// least 0. `None` orders evictions by idle time, longest first.
    fn worth(&self, _function: &IdleView<'_>, _clock: f32) -> Option<f32> {
        None
    }

    /// Returns the policy's name for reports.
    fn name(&self) -> String;
}

/// Keeps every idle sandbox for the same time.
#[derive(Clone, Copy, Debug)]
pub struct FixedIdle(pub Duration);

impl Default for FixedIdle {
    /// Returns a policy that keeps sandboxes for ten minutes.
    fn default() -> Self {
        Self(Duration::from_secs(600))
    }
}

impl IdlePolicy for FixedIdle {
    fn keep(&self, _function: &IdleView<'_>) -> Keep {
        Keep { idle: self.0, prewarm: None }
    }

    fn name(&self) -> String {
        format!("fixed {} s", self.0.as_secs())
    }
}

/// Keeps sandboxes by the histogram of the function's own gaps: up to the 99th percentile. Where
/// the 5th percentile is long, it ends the sandbox at once and pre-warms another before the 5th
/// percentile is reached (Shahrad et al., "Serverless in the Wild", USENIX ATC 2020).
#[derive(Clone, Copy, Debug)]
pub struct HistogramIdle {
    /// How long sandboxes are kept when fewer than `gaps_min` gaps are known, or at least half of
    /// the gaps are longer than the histogram covers.
    pub fallback: Duration,
    /// How many gaps must be known before the histogram is used.
    pub gaps_min: u32,
    /// The 5th percentile from which on a function is pre-warmed.
    pub prewarm_from: Duration,
    /// The shortest time that a sandbox is kept. The paper's bins are a minute wide; without this
    /// bound the spare sandboxes of a busy function would end between two invocations.
    pub keep_min: Duration,
    /// The longest time that a sandbox is kept.
    pub keep_max: Duration,
}

impl Default for HistogramIdle {
    fn default() -> Self {
        Self {
            fallback: Duration::from_secs(600),
            gaps_min: 8,
            prewarm_from: Duration::from_secs(120),
            keep_min: Duration::from_secs(60),
            keep_max: Duration::from_secs(4 * 3600),
        }
    }
}

impl IdlePolicy for HistogramIdle {
    fn keep(&self, function: &IdleView<'_>) -> Keep {
        let gaps = function.gaps;
        let known = gaps.count() >= self.gaps_min && gaps.beyond() * 2 < gaps.count();
        let edges = gaps.quantile_low(50).zip(gaps.quantile(990));
        let Some((head, tail)) = edges.filter(|_| known) else {
            return Keep { idle: self.fallback, prewarm: None };
        };
        let tail = tail.clamp(self.keep_min, self.keep_max.max(self.keep_min));
        if head < self.prewarm_from {
            return Keep { idle: tail, prewarm: None };
        }
        // A margin of a tenth, as in the paper.
        let ahead = head / 10 * 9;
        Keep {
            idle: Duration::ZERO,
            prewarm: Some((ahead, tail.saturating_sub(ahead).max(self.keep_min))),
        }
    }

    fn name(&self) -> String {
        "histogram".to_owned()
    }
}

/// Keeps sandboxes for a fixed time, except those of functions that come in a steady rhythm, as
/// timers do: their sandbox ends after a short time, and another is pre-warmed just before the next
/// invocation is due.
#[derive(Clone, Copy, Debug)]
pub struct RhythmIdle {
    /// How long sandboxes of functions without a rhythm are kept.
    pub idle: Duration,
    /// How many gaps must be known.
    pub gaps_min: u32,
    /// The shortest usual gap with which a function is pre-warmed. Each pre-warming is a start.
    pub prewarm_from: Duration,
    /// How long a sandbox of a function with a rhythm is kept after an invocation.
    pub keep: Duration,
    /// How long before the earliest time at which the next invocation is due its sandbox is ready.
    pub ahead: Duration,
}

impl Default for RhythmIdle {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            gaps_min: 4,
            prewarm_from: Duration::from_secs(120),
            keep: Duration::from_secs(10),
            ahead: Duration::from_secs(2),
        }
    }
}

impl IdlePolicy for RhythmIdle {
    fn keep(&self, function: &IdleView<'_>) -> Keep {
        let Rhythm { gap, deviation, count } = function.rhythm;
        let margin = deviation * 4 + self.ahead;
        let before = margin + function.start * 2;
        // What a gap costs with pre-warming, and without.
        let (with, without) = (self.keep + before + margin, gap.min(self.idle));
        let steady = count >= self.gaps_min && gap >= self.prewarm_from && with * 2 < without;
        if !steady {
            return Keep { idle: self.idle, prewarm: None };
        }
        Keep { idle: self.keep, prewarm: Some((gap.saturating_sub(before), before + margin)) }
    }

    fn name(&self) -> String {
        format!("rhythm, else fixed {} s", self.idle.as_secs())
    }
}

/// Keeps sandboxes until room is needed, then evicts the lowest value of uses × start time /
/// memory, aged by a clock (Fuerst and Sharma, "FaasCache", ASPLOS 2021).
#[derive(Clone, Copy, Debug)]
pub struct GreedyDual {
    /// The longest time that a sandbox is kept even if no room is needed.
    pub keep_max: Duration,
}

impl Default for GreedyDual {
    fn default() -> Self {
        Self { keep_max: Duration::from_secs(3600) }
    }
}

impl IdlePolicy for GreedyDual {
    fn keep(&self, _function: &IdleView<'_>) -> Keep {
        Keep { idle: self.keep_max, prewarm: None }
    }

    #[expect(clippy::cast_precision_loss, reason = "a worth; the loss is the same everywhere")]
    fn worth(&self, function: &IdleView<'_>, clock: f32) -> Option<f32> {
        let cost = function.start.as_secs_f32();
        let size = (function.memory_bytes >> 20).max(1) as f32;
        Some(clock + function.uses as f32 * cost / size)
    }

    fn name(&self) -> String {
        "greedy-dual".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(gaps: &[u64]) -> Keep {
        let mut histogram = Histogram::default();
        gaps.iter().for_each(|gap| histogram.add(Duration::from_secs(*gap)));
        let memory_bytes = 1 << 27;
        let view = IdleView {
            gaps: &histogram,
            rhythm: Rhythm::default(),
            uses: 1,
            start: Duration::from_secs(1),
            memory_bytes,
        };
        HistogramIdle::default().keep(&view)
    }

    #[test]
    fn what_comes_soon_is_kept_and_what_comes_late_is_made_in_advance() {
        assert_eq!(keep(&[5; 20]).idle, Duration::from_secs(60));
        let soon = keep(&[90; 20]);
        assert!(soon.idle > Duration::from_secs(90) && soon.idle < Duration::from_secs(180));
        let late = keep(&[3600; 20]);
        let (ahead, kept) = late.prewarm.unwrap();
        assert_eq!(late.idle, Duration::ZERO);
        assert!(ahead < Duration::from_secs(3600) && ahead + kept > Duration::from_secs(3600));
        // Kept from the pre-warming to the 99th percentile, not for a whole gap after it.
        assert!(kept < Duration::from_secs(1800));
    }

    fn keep_by_rhythm(gap: u64, deviation: u64, count: u32) -> Keep {
        let [gap, deviation] = [gap, deviation].map(Duration::from_secs);
        let rhythm = Rhythm { gap, deviation, count };
        let (start, memory_bytes) = (Duration::from_secs(1), 1 << 27);
        let gaps = &Histogram::default();
        RhythmIdle::default().keep(&IdleView { gaps, rhythm, uses: 9, start, memory_bytes })
    }

    #[test]
    fn what_comes_in_a_steady_rhythm_is_made_just_before_it_is_due() {
        let fixed = Keep { idle: Duration::from_secs(600), prewarm: None };
        let steady = keep_by_rhythm(900, 5, 4);
        assert_eq!(steady.idle, Duration::from_secs(10));
        // Ready 22 s before the usual time, kept until 22 s after it.
        let (ahead, kept) = (Duration::from_secs(876), Duration::from_secs(46));
        assert_eq!(steady.prewarm, Some((ahead, kept)));
        // Too few gaps, too short ones, and a rhythm that is not steady.
        for keep in [(900, 5, 3), (100, 0, 9), (900, 100, 9)] {
            assert_eq!(keep_by_rhythm(keep.0, keep.1, keep.2), fixed, "{keep:?}");
        }
    }

    #[test]
    fn a_sandbox_is_worth_its_uses_and_its_start_by_its_size() {
        let worth = |uses, seconds, mib: u64| {
            let (gaps, rhythm) = (&Histogram::default(), Rhythm::default());
            let (start, memory_bytes) = (Duration::from_secs(seconds), mib << 20);
            let view = IdleView { gaps, rhythm, uses, start, memory_bytes };
            GreedyDual::default().worth(&view, 1.0).unwrap()
        };
        let [one, used, slow, large] =
            [worth(4, 2, 128), worth(8, 2, 128), worth(4, 4, 128), worth(4, 2, 256)];
        let wanted = [1.0625_f32, 1.125, 1.125, 1.03125];
        assert_eq!([one, used, slow, large].map(f32::to_bits), wanted.map(f32::to_bits));
    }

    #[test]
    fn what_is_not_known_falls_back() {
        let fallback = Keep { idle: Duration::from_secs(600), prewarm: None };
        assert_eq!((keep(&[5; 3]), keep(&[100_000; 20])), (fallback, fallback));
        // A third of the gaps is within the histogram, two thirds are beyond it.
        assert_eq!(keep(&[[5; 8], [100_000; 8], [100_000; 8]].concat()), fallback);
    }
}
