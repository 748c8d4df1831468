//! The sandbox's limits as the control group files that language runtimes read. The files are
//! read-only text in the layout of both versions, with no control group behind them.

use std::collections::BTreeSet;

use crate::Limits;
use crate::linux::group::cgroup::{PERIOD_US, quota_us};
use crate::linux::group::cpuset::list;

/// The folder in which runtimes look for control group files.
pub(in crate::linux) const VIEW: &str = "/sys/fs/cgroup";
/// The file that replaces `/proc/cgroups`. It lists every controller in the hierarchy of version 2,
/// so that runtimes read the files of that version. The numbers are the same on every machine.
pub(in crate::linux) const CONTROLLERS_FILE: &str = "/dev/cgroups";
pub(in crate::linux) const CONTROLLERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
    cpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\nblkio\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n";

/// The limits that the files show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::linux) struct View {
    memory_bytes: u64,
    quota_us: u64,
    processes: u32,
    weight: u32,
    processors: Option<BTreeSet<u16>>,
}

impl View {
    pub(in crate::linux) fn of(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            quota_us: quota_us(limits.cpus),
            processes: limits.processes_max,
            weight: limits.cpu_weight.unwrap_or(WEIGHT),
            processors: limits.processors.clone(),
        }
    }

    /// Folders below [`VIEW`], in the layout of version 1.
    pub(in crate::linux) const FOLDERS: [&'static str; 4] = ["memory", "cpu", "pids", "cpuset"];
    /// Links for other names of the folder `cpu`: version 1 mounts `cpu` and `cpuacct` together.
    pub(in crate::linux) const LINKS: [(&'static str, &'static str); 2] =
        [("cpu,cpuacct", "cpu"), ("cpuacct", "cpu")];

    /// Returns the files with their contents, in version 2's layout and, below folders, in version
    /// 1's. On a machine with both hierarchies `/proc/self/cgroup` names both. There are no files
    /// of usage, because the text does not change.
    pub(in crate::linux) fn files(&self) -> Vec<(&'static str, String)> {
        let Self { memory_bytes, quota_us, processes, weight, processors } = self;
        let mut files = vec![
            ("cgroup.controllers", "cpuset cpu io memory pids".to_owned()),
            ("cgroup.subtree_control", String::new()),
            ("cgroup.type", "domain".into()),
            ("memory.max", memory_bytes.to_string()),
            ("memory.high", "max".into()),
            ("memory.low", "0".into()),
            ("memory.min", "0".into()),
            ("memory.swap.max", "0".into()),
            ("cpu.max", format!("{quota_us} {PERIOD_US}")),
            ("cpu.weight", weight.to_string()),
            ("pids.max", processes.to_string()),
            ("memory/memory.limit_in_bytes", memory_bytes.to_string()),
            ("memory/memory.soft_limit_in_bytes", UNLIMITED.to_string()),
            ("memory/memory.memsw.limit_in_bytes", memory_bytes.to_string()),
            ("memory/memory.use_hierarchy", "1".into()),
            ("cpu/cpu.cfs_quota_us", quota_us.to_string()),
            ("cpu/cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu/cpu.shares", (u64::from(*weight) * 1024 / u64::from(WEIGHT)).to_string()),
            ("pids/pids.max", processes.to_string()),
        ];
        if let Some(processors) = processors {
            let list = list(processors);
            files.extend([
                ("cpuset.cpus", list.clone()),
                ("cpuset.cpus.effective", list.clone()),
                ("cpuset/cpuset.cpus", list.clone()),
                ("cpuset/cpuset.effective_cpus", list),
            ]);
        }
        for (_, content) in &mut files {
            content.push('\n');
        }
        files
    }
}

/// The default of `cpu.weight`.
const WEIGHT: u32 = 100;
/// "No limit" as version 1 writes it: the largest signed 64-bit number that is a multiple of a
/// page.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_tell_the_same() {
        let limits = Limits { cpus: 1.5, ..Limits::for_memory_mb(512) };
        let files = View::of(&limits).files();
        let of = |name: &str| files.iter().find(|it| it.0 == name).expect(name).1.trim().to_owned();
        assert_eq!(of("memory.max"), "536870912");
        assert_eq!(of("memory/memory.limit_in_bytes"), "536870912");
        assert_eq!(of("cpu.max"), "150000 100000");
        assert_eq!(of("cpu/cpu.cfs_quota_us"), "150000");
        assert_eq!(of("cpu/cpu.shares"), "1024");
        assert!(!files.iter().any(|(name, _)| name.contains("cpuset.cpus")));
    }
}
