//! What of `/proc` is shown inside, as data; everything else that others than root may open is hidden.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;

/// What of `/proc` is shown, beside processes. Whatever else this kernel has is empty inside.
///
/// `stat`, `meminfo`, `vmstat`, `cpuinfo` and `loadavg` tell of the whole machine: programs read them to fit themselves to it, and
/// sysinfo(2) tells most of it as well. `net` is a link to what the sandbox's own network namespace has.
pub const SHOWN: [&str; 13] = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "mounts",
    "net",
    "self",
    "stat",
    "sys",
    "thread-self",
    "uptime",
    "version",
    "vmstat",
];

/// What this kernel has beyond that. Of files only those that others than root may open: nobody inside is root, and each mask
/// costs a mount. Looked up once, not at each start.
pub(in crate::linux) struct Masks {
    pub(in crate::linux) files: BTreeSet<String>,
    pub(in crate::linux) folders: BTreeSet<String>,
}

pub(in crate::linux) static MASKS: LazyLock<Masks> = LazyLock::new(|| {
    let mut masks = Masks { files: BTreeSet::new(), folders: BTreeSet::new() };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.bytes().all(|byte| byte.is_ascii_digit());
        let Ok(found) = entry.metadata() else { continue };
        if process || SHOWN.contains(&name.as_str()) {
            continue;
        }
        if found.is_dir() {
            masks.folders.insert(name);
        } else if found.mode() & 0o007 != 0 {
            masks.files.insert(name);
        }
    }
    masks
});
