//! Checks whether this machine has what the backend needs, with remedies for what is missing.

use std::fmt;

use crate::linux::features::{Features, LACK_OF_ROOT};
use crate::linux::group::cgroup::{Controller, Hierarchies};

/// The result of a check of this machine.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The control group hierarchies that were found.
    pub hierarchies: Hierarchies,
    /// The kernel's optional features.
    pub features: Features,
    /// The requirements that are not met. If it is empty, the backend can work.
    pub missing: Vec<Missing>,
}

/// A requirement of the backend that this machine does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The missing thing.
    pub what: &'static str,
    /// How the lack was detected.
    pub why: String,
    /// How a person can provide it.
    pub remedy: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// Checks that the controllers are mounted and writable.
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

/// Describes the rights that this process lacks to be the machine's root.
pub(super) fn root(user: u32) -> Missing {
    match &*LACK_OF_ROOT {
        Some(lack) if user == 0 => Missing {
            what: "root of the machine",
            why: format!("this process runs as root, but {lack}"),
            remedy: "give the container the right (docker run --privileged, or --cap-add SYS_ADMIN --cap-add NET_ADMIN with a seccomp profile \
                     that has mount and unshare, and --cgroupns=host with /sys/fs/cgroup writable), or allow to work without it by \
                     `Settings::rootless`",
        },
        _ => Missing {
            what: "root",
            why: format!("this process runs as user {user}"),
            remedy: "run the host as root, or allow to work without it by `Settings::rootless`",
        },
    }
}

/// Checks that no mount covers a part of `/proc`: only then the kernel lets a user mount a new one.
pub(super) fn whole_proc() -> Option<Missing> {
    /// Mounts here hide nothing, because the folders are empty.
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

/// Checks that users may make user namespaces.
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
