//! The kernel's counts of a group, read from files that stay open: opening them takes longer than
//! reading them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use crate::linux::group::files::field;
use crate::supervise::Sample;

/// The open files of one group.
#[derive(Debug, Default)]
pub(in crate::linux) struct Counters {
    processor: Option<Processor>,
    peak: Option<File>,
    kills: Option<File>,
    /// The counts at the end of the sandboxes that used the group before.
    before: Sample,
}

#[derive(Debug)]
enum Processor {
    /// `cpu.stat` of v2, in us.
    Stat(File),
    /// `cpuacct.usage` of v1, in ns.
    Usage(File),
}

impl Counters {
    /// Opens the files that exist in the v1 memory group, the v1 `cpuacct` group and the v2 group.
    pub(in crate::linux) fn open(
        memory: Option<&Path>,
        processor: Option<&Path>,
        v2: Option<&Path>,
        before: Sample,
    ) -> Self {
        let open = |folder: Option<&Path>, file: &str| File::open(folder?.join(file)).ok();
        Self {
            processor: (open(v2, "cpu.stat").map(Processor::Stat))
                .or_else(|| open(processor, "cpuacct.usage").map(Processor::Usage)),
            peak: open(memory, "memory.max_usage_in_bytes").or_else(|| open(v2, "memory.peak")),
            kills: open(memory, "memory.oom_control").or_else(|| open(v2, "memory.events")),
            before,
        }
    }

    /// Returns the usage of this sandbox.
    pub(in crate::linux) fn sample(&self) -> Sample {
        let mut sample = self.counted();
        let before = self.before.cpu_time.unwrap_or_default();
        sample.cpu_time = sample.cpu_time.map(|now| now.saturating_sub(before));
        sample.out_of_memory_kills =
            sample.out_of_memory_kills.saturating_sub(self.before.out_of_memory_kills);
        sample
    }

    /// Returns the counts since the group was made; the memory peak, since it was reset.
    pub(in crate::linux) fn counted(&self) -> Sample {
        let cpu_time = match &self.processor {
            Some(Processor::Stat(file)) => {
                read(file, |text| field(text, "usage_usec")).map(Duration::from_micros)
            }
            Some(Processor::Usage(file)) => {
                read(file, |text| text.trim().parse().ok()).map(Duration::from_nanos)
            }
            None => None,
        };
        let kills = self.kills.as_ref().and_then(|file| read(file, |text| field(text, "oom_kill")));
        Sample {
            cpu_time,
            memory_peak_bytes: (self.peak.as_ref())
                .and_then(|file| read(file, |text| text.trim().parse().ok())),
            out_of_memory_kills: kills.unwrap_or(0),
            ..Sample::default()
        }
    }
}

/// Reads and parses one of the counters' files from its start. Each is a few hundred bytes long.
fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut bytes = [0; 4096];
    let length = file.read_at(&mut bytes, 0).ok()?;
    parse(std::str::from_utf8(bytes.get(..length)?).ok()?)
}
