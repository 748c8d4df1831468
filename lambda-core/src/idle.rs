//! How long idle sandboxes are kept, and which go first when room is needed.

use std::fmt;
use std::time::Duration;

use crate::stats::histogram::Histogram;

/// What a policy sees of a function.
#[derive(Clone, Copy, Debug)]
pub struct IdleView<'a> {
    /// For how long nothing ran, each time before an invocation came.
    pub gaps: &'a Histogram,
    /// How many invocations it had.
    pub uses: u32,
    /// How long its sandboxes take to be made, lately.
    pub start: Duration,
    /// Memory of one of its sandboxes, in bytes.
    pub memory_bytes: u64,
}

/// How long a function's sandboxes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Keep {
    /// How long an idle sandbox is kept after an invocation.
    pub idle: Duration,
    /// After how long without any invocation a sandbox is made in advance, and how long that one is kept.
    pub prewarm: Option<(Duration, Duration)>,
}

/// Decides how long idle sandboxes are kept. Asked when a function's first invocation after a gap comes; of gaps below a
/// second, after 32 at the latest.
pub trait IdlePolicy: fmt::Debug + Send {
    /// Returns how long the function's sandboxes are kept.
    fn keep(&self, function: &IdleView<'_>) -> Keep;

    /// Returns what an idle sandbox is worth, when room is needed: the least goes first. `clock` is the worth of
    /// what went last. `None`: the one that is longest idle goes first.
    fn worth(&self, _function: &IdleView<'_>, _clock: f32) -> Option<f32> {
        None
    }

    /// Returns its name, as reports show it.
    fn name(&self) -> String;
}

/// Every sandbox is kept for the same time.
#[derive(Clone, Copy, Debug)]
pub struct FixedIdle(pub Duration);

impl Default for FixedIdle {
    /// Ten minutes.
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

/// By the histogram of a function's own gaps: kept from the 5th to the 99th percentile of them, and made in advance
/// where the 5th is far (Shahrad et al., "Serverless in the Wild", USENIX ATC 2020).
#[derive(Clone, Copy, Debug)]
pub struct HistogramIdle {
    /// What is done for functions with few gaps, or with gaps that are mostly beyond the histogram.
    pub fallback: Duration,
    /// How many gaps have to be known.
    pub gaps_min: u32,
    /// From which 5th percentile on a sandbox is given up at once and made in advance.
    pub prewarm_from: Duration,
    /// Shortest that a sandbox is kept: the paper's bins are a minute wide. Without it the surplus of a busy function
    /// would end in the breath between two invocations.
    pub keep_min: Duration,
    /// Longest that a sandbox is kept.
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
        // A tenth earlier, as the paper has it.
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

/// Kept until room is needed; then the least of frequency times cost by size goes first, aged by a clock (Fuerst
/// and Sharma, "FaasCache", ASPLOS 2021).
#[derive(Clone, Copy, Debug)]
pub struct GreedyDual {
    /// Longest that a sandbox is kept all the same.
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
        let view =
            IdleView { gaps: &histogram, uses: 1, start: Duration::from_secs(1), memory_bytes };
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
        // Not for the whole gap once more.
        assert!(kept < Duration::from_secs(1800));
    }

    #[test]
    fn a_sandbox_is_worth_its_uses_and_its_start_by_its_size() {
        let worth = |uses, seconds, mib: u64| {
            let (gaps, start) = (&Histogram::default(), Duration::from_secs(seconds));
            let view = IdleView { gaps, uses, start, memory_bytes: mib << 20 };
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
        // Most of them beyond.
        assert_eq!(keep(&[[5; 8], [100_000; 8], [100_000; 8]].concat()), fallback);
    }
}
