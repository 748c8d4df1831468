//! The entries of `/proc` that sandboxes see. All other entries that users other than root may open
//! are masked.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;

/// The entries of `/proc` that sandboxes see, beside processes. Every other entry is empty inside,
/// or cannot be opened because it is root's.
///
/// `stat`, `meminfo`, `vmstat`, `cpuinfo` and `loadavg` describe the whole machine: programs read
/// them to size themselves, and sysinfo(2) returns most of it as well. `net` is a link to the
/// sandbox's own network namespace.
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

/// The entries of this kernel's `/proc` to mask, read once for all starts. Of files only those that
/// others than root may open: nobody inside is root, and each mask costs a mount.
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
