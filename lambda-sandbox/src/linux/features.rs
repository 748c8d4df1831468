//! Optional features of this kernel and the rights of this user, and the isolation that follows
//! from them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use crate::linux::group::cgroup::{Controller, Hierarchies};
use crate::linux::guard::landlock::Restriction;
use crate::{Defence, Isolation};

/// The kernel features that the backend uses if they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Features {
    /// The version of landlock's ABI; 0 without landlock.
    pub landlock_abi: u32,
    /// Whether the kernel has time namespaces.
    pub time_namespace: bool,
    /// Whether the kernel counts pressure stall information (PSI).
    pub pressure: bool,
}

impl Features {
    /// Detects the features of the running kernel.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            landlock_abi: crate::linux::sys::landlock_abi(),
            pressure: Path::new("/proc/pressure/cpu").exists(),
            time_namespace: Path::new("/proc/self/ns/time_for_children").exists(),
        }
    }
}

/// The rights with which the backend works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Rights {
    /// Those of the machine's root.
    #[default]
    Root,
    /// Those of a user, who works in user namespaces. The ids are the effective ones of this
    /// process.
    User { user: u32, group: u32 },
}

impl Rights {
    /// Returns the rights of this process. Root of a user namespace, or root without one of
    /// [`OF_ROOT`], counts as a user.
    pub(super) fn own() -> Self {
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if user.is_root() && LACK_OF_ROOT.is_none() {
            Self::Root
        } else {
            Self::User { user: user.as_raw(), group: group.as_raw() }
        }
    }
}

/// Why this process, if it is root, lacks rights of the machine's root; `None` if it has them.
pub(super) static LACK_OF_ROOT: LazyLock<Option<String>> = LazyLock::new(|| {
    if !*INITIAL {
        return Some("it is root of a user namespace only (/proc/self/uid_map)".to_owned());
    }
    let lacks: Vec<&str> = OF_ROOT.iter().filter(|it| !has(it.1)).map(|it| it.0).collect();
    let names = lacks.join(", ");
    (!lacks.is_empty()).then(|| format!("it lacks {names}, as root of a container does"))
});

/// Whether this process has the capability with this number in effect.
fn has(capability: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> capability & 1 == 1)
}

/// Whether this process is in the initial user namespace.
pub(super) static INITIAL: LazyLock<bool> = LazyLock::new(|| {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
});

/// The capabilities without which no sandbox starts as root: to make namespaces and mounts, to
/// bring up their loopback, to become the sandbox's user, and to change the root. With their
/// numbers.
const OF_ROOT: [(&str, u32); 5] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SETUID", 7),
    ("CAP_SETGID", 6),
    ("CAP_SYS_CHROOT", 18),
];

/// The number of CAP_SYS_TIME, which permits to set the clocks of a time namespace.
const SYS_TIME: u32 = 25;

/// The optional defences that the backend applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Defences {
    pub(super) features: Features,
    pub(super) rights: Rights,
    pub(super) landlock: Option<Restriction>,
    pub(super) own_time: bool,
    /// Whether this process may set the clocks of a time namespace.
    sets_clocks: bool,
}

impl Defences {
    pub(super) fn of(features: Features, without: &BTreeSet<Defence>) -> Self {
        let rights = Rights::own();
        // A user has the capability in the user namespace of the sandbox.
        let sets_clocks = rights != Rights::Root || has(SYS_TIME);
        let wanted = !without.contains(&Defence::Time);
        Self {
            features,
            rights,
            landlock: Restriction::of(features.landlock_abi, without),
            own_time: features.time_namespace && sets_clocks && wanted,
            sets_clocks,
        }
    }

    /// Returns the defences in force with their means, and the absent ones with the reason.
    pub(super) fn isolation(&self, hierarchies: &Hierarchies, on_disk: bool) -> Isolation {
        let mut isolation = Isolation::default();
        let mut put = |defence, means: &str| {
            isolation.in_force.insert(defence, means.to_owned());
        };
        put(Defence::Processes, "pid namespace, init as pid 1");
        put(Defence::FileSystem, "mount namespace, read-only root, pivot_root");
        put(
            Defence::Network,
            "network namespace with a loopback only, unless the specification gives more",
        );
        put(
            Defence::FilteredNetwork,
            "as Network, or interfaces of which the host says that it filters them",
        );
        put(Defence::Ipc, "ipc and uts namespaces");
        put(Defence::Capabilities, "none in any set, no_new_privs");
        put(Defence::SystemCalls, "seccomp allow list");
        put(Defence::Keyring, "session keyring of its own; keyctl refused");
        put(Defence::Descriptors, "all but the given closed at exec");
        put(Defence::KernelInterfaces, "/proc masked and read-only; no /sys");
        let scratch = if on_disk { "a file system on disk" } else { "tmpfs" };
        put(Defence::Scratch, &format!("{scratch} with a limit of bytes and files"));
        isolation.absent.insert(Defence::Kernel, "the kernel is the host's".to_owned());
        self.of_user(&mut isolation);
        self.of_groups(hierarchies, &mut isolation);
        self.optional(&mut isolation);
        isolation
    }

    fn of_user(&self, isolation: &mut Isolation) {
        match self.rights {
            Rights::Root => {
                let means = "user namespace, a user and group id of its own outside";
                isolation.in_force.insert(Defence::User, means.to_owned());
            }
            Rights::User { user, .. } => {
                let why = format!(
                    "a user namespace, but outside it is user {user} with its groups, as the host and every \
                     other sandbox of it: no root, no other id"
                );
                isolation.absent.insert(Defence::User, why);
            }
        }
    }

    fn of_groups(&self, hierarchies: &Hierarchies, isolation: &mut Isolation) {
        let groups = hierarchies.kind();
        for (defence, controller, name, moot) in [
            (
                Defence::Memory,
                Controller::Memory,
                "memory",
                "memory by heap, page cache, shared memory, pipes or sockets is not counted and not stopped",
            ),
            (Defence::Cpu, Controller::Cpu, "cpu", "a busy loop takes all that the machine has"),
            (Defence::ProcessCount, Controller::Pids, "pids", ""),
            (Defence::BlockIo, Controller::Io, "block I/O", "a reader can keep a disk busy"),
        ] {
            if hierarchies.has(controller) {
                let means = format!("{name} control group ({groups})");
                isolation.in_force.insert(defence, means);
            } else if defence == Defence::ProcessCount {
                let means = "limit of processes, counted in a user namespace of its own";
                isolation.in_force.insert(defence, means.to_owned());
            } else {
                let lack = match self.rights {
                    Rights::Root => "mounted here",
                    Rights::User { .. } => "delegated to this user",
                };
                let why = format!("no {name} control group is {lack}: {moot}");
                isolation.absent.insert(defence, why);
            }
        }
    }

    fn optional(&self, isolation: &mut Isolation) {
        let mut tell = |defence, means: Option<String>, there: bool, lack: &str| {
            let why = if there { "left out by the host's settings" } else { lack };
            match means {
                Some(means) => isolation.in_force.insert(defence, means),
                None => isolation.absent.insert(defence, why.to_owned()),
            };
        };
        let time = self.own_time.then(|| "time namespace: clocks since boot begin at 0".to_owned());
        let Features { landlock_abi, time_namespace, .. } = self.features;
        let lack = if time_namespace {
            "the host lacks CAP_SYS_TIME, which sets the clocks of a time namespace"
        } else {
            "the kernel has no time namespaces"
        };
        tell(Defence::Time, time, time_namespace && self.sets_clocks, lack);
        let files = self.landlock.map(Restriction::describe);
        tell(Defence::FileAccess, files, landlock_abi > 0, "the kernel has no landlock");
        let scope = (self.landlock.filter(|it| it.scoped != 0))
            .map(|_| "landlock: no signal and no abstract socket beyond the sandbox".to_owned());
        let old = format!("landlock here is of version {landlock_abi}, scopes came with 6");
        let lack = if landlock_abi == 0 { "the kernel has no landlock" } else { &old };
        tell(Defence::Scope, scope, landlock_abi >= 6, lack);
    }
}
