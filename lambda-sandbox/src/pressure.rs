//! How long a sandbox's processes have stalled for lack of a resource (pressure stall information,
//! PSI).

use std::time::Duration;

/// The time that a sandbox has stalled since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// For lack of a processor: others used it, or the sandbox's share was used up.
    pub cpu: Stall,
    /// For lack of memory.
    pub memory: Stall,
    /// For I/O of a disk.
    pub io: Stall,
}

/// The time that processes stalled for one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// While at least one task stalled.
    pub some: Duration,
    /// While all tasks that were not idle stalled.
    pub full: Duration,
}

impl Stall {
    /// Parses the text of a `*.pressure` file.
    #[cfg_attr(not(any(feature = "linux", test)), expect(dead_code, reason = "only Linux tells"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let total = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
            Some(Duration::from_micros(total.parse().ok()?))
        };
        // Kernels before 5.13 have no `full` line for processors.
        Some(Self { some: total("some")?, full: total("full").unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files_are_read() {
        let text = "some avg10=96.97 avg60=86.39 avg300=72.76 total=448197812\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let stall = Stall::parse(text).unwrap();
        assert_eq!(stall.some, Duration::from_micros(448_197_812));
        assert_eq!(stall.full, Duration::from_micros(7));
        let old = Stall::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap();
        assert_eq!((old.some.as_micros(), old.full.as_micros()), (1, 0));
        for broken in ["", "some", "some avg10=0 total=x", "something total=1"] {
            assert_eq!(Stall::parse(broken), None, "{broken}");
        }
    }
}
