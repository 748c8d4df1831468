//! What of `/proc` is hidden or cannot be written inside, as data.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::LazyLock;

/// Files of `/proc` that read as empty, where others than root may open them at all: they tell of the host's kernel, memory, processes,
/// keys, of its disks' traffic or of how many groups, and so sandboxes, it has.
///
/// Not among them though they tell of the whole machine: `stat`, `meminfo`, `vmstat`, `cpuinfo`, `loadavg`, which programs read to fit
/// themselves to it, and which sysinfo(2) tells as well; `sys/kernel/random/boot_id`, as statfs(2) tells machines apart too;
/// `self/mountinfo`, in which the kernel has the host's path of each bind.
pub const MASKED_FILES: [&str; 25] = [
    "config.gz",
    "kcore",
    "kmsg",
    "kallsyms",
    "keys",
    "key-users",
    "timer_list",
    "sched_debug",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "iomem",
    "ioports",
    "interrupts",
    "softirqs",
    "slabinfo",
    "vmallocinfo",
    "pagetypeinfo",
    "zoneinfo",
    "cmdline",
    "latency_stats",
    "modules",
    "buddyinfo",
    "cgroups",
    "diskstats",
];
/// Folders of `/proc` that are empty.
pub const MASKED_FOLDERS: [&str; 13] = [
    "acpi",
    "scsi",
    "asound",
    "driver",
    "tty",
    "dma",
    "pressure",
    "sysvipc",
    "mtrr",
    "dynamic_debug",
    "irq",
    "bus",
    "fs",
];
/// What is left of `/proc` that could be written: read-only.
pub const READ_ONLY: [&str; 2] = ["sys", "sysrq-trigger"];

/// What of the tables above this kernel has. Of files only those that others than root may open: nobody inside is root, and
/// each mask costs a mount. Looked up once, not at each start.
pub(super) struct Masks {
    pub(super) files: Vec<&'static str>,
    pub(super) folders: Vec<&'static str>,
    pub(super) read_only: Vec<&'static str>,
}

pub(super) static MASKS: LazyLock<Masks> = LazyLock::new(|| {
    let mode = |name: &str| {
        let found = std::fs::metadata(Path::new("/proc").join(name)).ok()?;
        Some((found.is_dir(), found.mode() & 0o007 != 0))
    };
    Masks {
        files: MASKED_FILES.into_iter().filter(|it| mode(it) == Some((false, true))).collect(),
        folders: MASKED_FOLDERS.into_iter().filter(|it| mode(it).is_some_and(|it| it.0)).collect(),
        read_only: READ_ONLY
            .into_iter()
            .filter(|it| mode(it).is_some_and(|(folder, others)| folder || others))
            .collect(),
    }
});
