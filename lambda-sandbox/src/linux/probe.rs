//! What this machine has of what the backend needs, and what to do about the rest.

use std::fmt;

use crate::linux::features::{Features, LACK_OF_ROOT};
use crate::linux::group::cgroup::{Controller, Hierarchies};

/// What this machine has of what the backend needs.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The control groups found.
    pub hierarchies: Hierarchies,
    /// What the kernel has of what the backend can do without.
    pub features: Features,
    /// What is missing: what, how that was found, and what to do about it. Empty when the backend can work.
    pub missing: Vec<Missing>,
}

/// Something that the backend needs and this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: &'static str,
    /// How that was found.
    pub why: String,
    /// What a person can do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// Looks whether control groups can hold limits.
pub(super) fn groups(hierarchies: &Hierarchies) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (controller, what) in [
        (Controller::Memory, "the memory control group"),
        (Controller::Cpu, "the cpu control group"),
        (Controller::Pids, "the pids control group"),
    ] {
        if !hierarchies.has(controller) {
            missing.push(Missing {
                what,
                why: format!("not mounted (control groups here: {})", hierarchies.kind()),
                remedy: "mount cgroup2 at /sys/fs/cgroup, or take the process backend",
            });
        }
    }
    for root in hierarchies.roots() {
        let writable = nix::unistd::access(&root, nix::unistd::AccessFlags::W_OK);
        if let Err(errno) = writable {
            missing.push(Missing {
                what: "writable control groups",
                why: format!("{}: {errno}", root.display()),
                remedy: "run as root with /sys/fs/cgroup mounted read-write",
            });
        }
    }
    missing
}

/// Says what a process lacks that is not the machine's root.
pub(super) fn root(user: u32) -> Missing {
    match &*LACK_OF_ROOT {
        Some(lack) if user == 0 => Missing {
            what: "root of the machine",
            why: format!("this process runs as root, but {lack}"),
            remedy: "give the container the right (docker run --privileged, or --cap-add SYS_ADMIN with a seccomp profile that has \
                     mount and unshare, and --cgroupns=host with /sys/fs/cgroup writable), or allow to work without it by \
                     `Settings::rootless`",
        },
        _ => Missing {
            what: "root",
            why: format!("this process runs as user {user}"),
            remedy: "run the host as root, or allow to work without it by `Settings::rootless`",
        },
    }
}

/// Looks whether `/proc` can be seen in whole: only then the kernel lets a user mount one.
pub(super) fn whole_proc() -> Option<Missing> {
    /// Mounts on these hide nothing: they are empty below.
    const EMPTY: [&str; 3] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/xen"];
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let covered = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|place| place.starts_with("/proc/") && !EMPTY.contains(place))?;
    Some(Missing {
        what: "a whole /proc",
        why: format!("{covered} is covered by another mount, and so no user may mount a /proc"),
        remedy: "start the container with /proc as it is (docker run --security-opt systempaths=unconfined, podman run \
                 --security-opt unmask=ALL), or run the host as root",
    })
}

/// Looks whether a user may make user namespaces.
pub(super) fn user_namespaces() -> Option<Missing> {
    let forbidding = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    let (path, value) = forbidding.into_iter().find(|(path, value)| {
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
    })?;
    Some(Missing {
        what: "user namespaces",
        why: format!("{path} is {value}"),
        remedy: "run the host as root, or set it otherwise",
    })
}
