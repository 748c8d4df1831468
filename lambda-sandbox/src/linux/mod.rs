//! Sandboxes by Linux namespaces, control groups and system call filters. Needs root.
//!
//! Every sandbox has pid, mount, network, ipc, uts, cgroup and user namespaces of its own, a user id of its own that
//! is nobody outside, a read-only root, a scratch folder of limited size, no capabilities, an allow list of system
//! calls, and a small init as pid 1 that dies with the host. What is in force is told by
//! [`Backend::isolation`]; every table is public data ([`plan`], [`landlock`], [`seccomp`]).

mod cgroup;
mod features;
mod filter;
mod instance;
pub mod landlock;
mod netns;
pub mod plan;
mod sandbox;
pub mod seccomp;
mod settings;
mod spawn;
mod sys;

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use cgroup::{Controller, Hierarchies};
pub use features::Features;
pub use settings::{OPTIONAL, Settings};

use self::features::Defences;
use self::instance::Instance;
use self::sandbox::{Janitor, LinuxSandbox};
use crate::supervised::Supervised;
use crate::{
    Backend, BoxFuture, Capability, Created, Error, Isolation, Sandbox, SandboxSpec, Swept,
};

/// The init's program, compiled from `init/init.rs`.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
/// Longest wait for released sandboxes at a host's end.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Network namespaces made ahead of their use.
const NETWORKS_READY_MAX: usize = 8;

/// Makes sandboxes on this machine. Clones share everything.
///
/// Dropping the last clone waits, for a few milliseconds as a rule and two seconds at most, until the
/// sandboxes dropped before are released, so that a host that ends right after leaves nothing.
#[derive(Debug, Clone)]
pub struct LinuxBackend {
    // Dropped first, while the rest is there.
    _closing: Arc<Closing>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.janitor.wait(CLOSE_TIME);
    }
}

/// What the sandboxes of a host share; lives as long as the last of them.
struct Shared {
    hierarchies: Hierarchies,
    defences: Defences,
    instance: Instance,
    networks: netns::Pool,
    spawner: spawn::Spawner,
    janitor: Janitor,
    init: OwnedFd,
    filters: OwnedFd,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("hierarchies", &self.hierarchies)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.instance.leave(&self.hierarchies);
    }
}

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

impl LinuxBackend {
    /// Looks what this machine has, and changes nothing.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn probe() -> Result<Probe, Error> {
        let hierarchies = Hierarchies::detect()?;
        let mut missing = Vec::new();
        if !nix::unistd::geteuid().is_root() {
            missing.push(Missing {
                what: "root",
                why: format!("this process runs as user {}", nix::unistd::geteuid()),
                remedy: "run the host as root, or take the process backend",
            });
        }
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
        Ok(Probe { hierarchies, features: Features::detect(), missing })
    }

    /// Makes the backend, starts its pools, and sweeps what a crashed earlier host left.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] naming the first thing that [`LinuxBackend::probe`] found missing.
    pub fn new() -> Result<Self, Error> {
        Self::with_settings(&Settings::default())
    }

    /// As [`LinuxBackend::new`], with settings of the host's.
    ///
    /// # Errors
    ///
    /// As [`LinuxBackend::new`], and [`Error::Invalid`] for settings that cannot be.
    pub fn with_settings(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let probe = Self::probe()?;
        if let Some(missing) = probe.missing.first() {
            return Err(Error::Unavailable {
                what: missing.what,
                why: missing.why.clone(),
                remedy: missing.remedy,
            });
        }
        let sealed = |name, content: &[u8]| {
            sys::sealed_file(name, content)
                .and_then(|file| sys::above_given(std::os::fd::AsFd::as_fd(&file)))
                .map_err(|source| Error::step("making a file in memory", source))
        };
        let instance = Instance::claim(settings.id_base)?;
        instance.sweep(&probe.hierarchies)?;
        let shared = Arc::new(Shared {
            hierarchies: probe.hierarchies,
            defences: Defences::of(probe.features, &settings.without),
            instance,
            networks: netns::Pool::start(NETWORKS_READY_MAX)?,
            spawner: spawn::Spawner::start()?,
            janitor: Janitor::start()?,
            init: sealed(c"sandbox-init", INIT)?,
            filters: sealed(c"sandbox-filters", &filter::compile()?)?,
        });
        Ok(Self { _closing: Arc::new(Closing(Arc::clone(&shared))), shared })
    }

    /// Returns what a new process does to become the sandbox of `spec`, but for joining groups and the network.
    ///
    /// # Errors
    ///
    /// When the root names something that is not there.
    pub fn steps(spec: &SandboxSpec) -> Result<Vec<plan::Step>, Error> {
        spec.check()?;
        let defences = Defences::of(Features::detect(), &BTreeSet::new());
        plan::plan(spec, &Instance::stage(), &defences)
    }

    async fn network(&self) -> Result<netns::Network, Error> {
        if let Some(ready) = self.shared.networks.try_take() {
            return ready;
        }
        let shared = Arc::clone(&self.shared);
        (tokio::task::spawn_blocking(move || shared.networks.take()).await)
            .map_err(|_runtime_ends| Error::Ended)?
    }

    /// Returns the control groups of this host's sandboxes: what is there when no sandbox is, is a leak.
    #[must_use]
    pub fn groups(&self) -> Vec<std::path::PathBuf> {
        self.shared.instance.groups(&self.shared.hierarchies)
    }
}

impl Backend for LinuxBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            spec.check()?;
            spec.limits.check_isolation(&self.isolation())?;
            let network = self.network().await?;
            // A task of its own: dropped in the middle, it is finished, and what it made is released as a whole.
            let shared = Arc::clone(&self.shared);
            let making = tokio::spawn(async move {
                let sandbox = LinuxSandbox::make(&shared, &spec, &network).await?;
                Ok::<_, Error>((spec, network.listener, sandbox))
            });
            let (spec, listener, sandbox) =
                making.await.map_err(|_runtime_ends| Error::Ended)??;
            let listener = TcpListener::from_std(listener)
                .map_err(|source| Error::step("listening inside the sandbox", source))?;
            let driver = Supervised::new(spec, Arc::new(sandbox), listener);
            Ok(Sandbox::new(Box::new(driver)))
        })
    }

    fn isolation(&self) -> Isolation {
        self.shared.defences.isolation(&self.shared.hierarchies)
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        BTreeSet::from([
            Capability::Programs,
            Capability::RuntimeApi,
            Capability::Freeze,
            Capability::MemoryLimit,
            Capability::CpuLimit,
            Capability::ProcessLimit,
            Capability::ScratchLimit,
            Capability::MemoryPeak,
            Capability::CpuTime,
            Capability::PrivateNetwork,
            Capability::ReadOnlyRoot,
            Capability::Run,
        ])
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async move {
            let removed = self.shared.instance.sweep(&self.shared.hierarchies)?;
            Ok(Swept { removed })
        })
    }
}
