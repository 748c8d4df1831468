//! The few kernel settings that sandboxes see in `/proc/sys`: files that the host writes and that
//! are read-only inside.
//!
//! The kernel's own folder has hundreds of files, and more with each version. Some count what the
//! whole machine has open.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Error;

/// The contents of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The machine's value at the start of the host.
    Machine,
    /// This text, whatever the machine's value is.
    Fixed(&'static str),
    /// The kernel's own file, which answers at each read.
    Live,
}

/// The files, by their path below `/proc/sys`. Files that the machine lacks are missing inside.
pub const SETTINGS: &[(&str, Setting)] = &[
    ("crypto/fips_enabled", Setting::Machine),
    ("fs/file-max", Setting::Machine),
    ("fs/inotify/max_queued_events", Setting::Machine),
    ("fs/inotify/max_user_instances", Setting::Machine),
    ("fs/inotify/max_user_watches", Setting::Machine),
    ("fs/nr_open", Setting::Machine),
    ("fs/pipe-max-size", Setting::Machine),
    ("kernel/cap_last_cap", Setting::Machine),
    ("kernel/domainname", Setting::Fixed("(none)\n")),
    ("kernel/hostname", Setting::Fixed("sandbox\n")),
    ("kernel/ngroups_max", Setting::Machine),
    ("kernel/osrelease", Setting::Machine),
    ("kernel/ostype", Setting::Machine),
    ("kernel/overflowgid", Setting::Machine),
    ("kernel/overflowuid", Setting::Machine),
    ("kernel/perf_event_paranoid", Setting::Machine),
    ("kernel/pid_max", Setting::Machine),
    ("kernel/random/uuid", Setting::Live),
    ("kernel/randomize_va_space", Setting::Machine),
    ("kernel/sem", Setting::Machine),
    ("kernel/shmall", Setting::Machine),
    ("kernel/shmmax", Setting::Machine),
    ("kernel/shmmni", Setting::Machine),
    ("kernel/threads-max", Setting::Machine),
    ("kernel/version", Setting::Machine),
    ("kernel/yama/ptrace_scope", Setting::Machine),
    ("net/core/rmem_default", Setting::Machine),
    ("net/core/rmem_max", Setting::Machine),
    ("net/core/somaxconn", Setting::Machine),
    ("net/core/wmem_default", Setting::Machine),
    ("net/core/wmem_max", Setting::Machine),
    ("net/ipv4/ip_local_port_range", Setting::Machine),
    ("net/ipv4/tcp_congestion_control", Setting::Machine),
    ("net/ipv4/tcp_rmem", Setting::Machine),
    ("net/ipv4/tcp_wmem", Setting::Machine),
    ("net/ipv6/conf/all/disable_ipv6", Setting::Machine),
    ("vm/max_map_count", Setting::Machine),
    ("vm/mmap_min_addr", Setting::Machine),
    ("vm/nr_hugepages", Setting::Fixed("0\n")),
    ("vm/overcommit_memory", Setting::Machine),
    ("vm/overcommit_ratio", Setting::Machine),
];

/// The kernel's folder.
const KERNEL: &str = "/proc/sys";

/// Returns the [`Setting::Live`] files that this kernel has.
pub(in crate::linux) fn live() -> impl Iterator<Item = (&'static str, PathBuf)> {
    (SETTINGS.iter().filter(|it| it.1 == Setting::Live))
        .map(|(name, _)| (*name, Path::new(KERNEL).join(name)))
        .filter(|(_, path)| path.exists())
}

/// Writes the files below `folder`. Each is replaced by rename, because other hosts may show it at
/// the same time.
pub(in crate::linux) fn write(folder: &Path) -> Result<(), Error> {
    let mut folders = fs::DirBuilder::new();
    folders.recursive(true).mode(0o755);
    for (name, setting) in SETTINGS {
        let content = match setting {
            Setting::Fixed(text) => Ok((*text).into()),
            Setting::Live => Ok(Vec::new()),
            Setting::Machine => fs::read(Path::new(KERNEL).join(name)),
        };
        // This kernel lacks the file, or this user may not read it.
        let Ok(content) = content else { continue };
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|old| old == content) {
            continue;
        }
        let failed = |source| Error::failed("writing a kernel's setting", &path, source);
        folders.create(path.parent().unwrap_or(folder)).map_err(failed)?;
        replace(&path, &content).map_err(failed)?;
    }
    Ok(())
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("{}", std::process::id()));
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o444))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_once_and_nothing_else_is_there() {
        let place = tempfile::tempdir().expect("a folder");
        write(place.path()).expect("written");
        write(place.path()).expect("there");
        let text = |name: &str| fs::read_to_string(place.path().join(name)).expect("there");
        assert_eq!(text("kernel/hostname"), "sandbox\n");
        assert_eq!(text("kernel/ostype"), "Linux\n");
        assert_eq!(text("kernel/random/uuid"), "");
        let count = fs::read_dir(place.path().join("kernel/random")).expect("there").count();
        assert_eq!(count, 1);
        assert!(!place.path().join("kernel/core_pattern").exists());
    }
}
