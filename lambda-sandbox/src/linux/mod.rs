//! Sandboxes by Linux namespaces, control groups and system call filters. As root with all of them; without root, where
//! the host allows it by [`Settings::rootless`], with what the kernel lets a user have.
//!
//! Every sandbox has pid, mount, network, ipc, uts, cgroup and user namespaces of its own, a user id of its own that
//! is nobody outside, a read-only root, a scratch folder of limited size, no capabilities, an allow list of system
//! calls, and a small init as pid 1 that dies with the host. What is in force is told by
//! [`Backend::isolation`]; every table is public data ([`plan`], [`landlock`], [`seccomp`]).

mod extras;
mod features;
mod group;
mod guard;
mod inits;
mod instance;
mod janitor;
#[doc(hidden)]
pub mod measured;
mod net;
mod probe;
#[path = "../../init/protocol.rs"]
mod protocol;
mod reports;
mod root;
mod sandbox;
mod settings;
mod shared;
mod slots;
mod start;
mod sys;

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::Instrument as _;

pub use extras::{ATTACHED_MAX, DESCRIPTORS_MAX, Extras};
pub use features::Features;
pub use group::cgroup::{Controller, Hierarchies};
pub use guard::profile::SystemCalls;
pub use guard::{landlock, profile, seccomp};
pub use probe::{Missing, Probe};
pub use root::volume::{Entry, Volume};
pub use settings::{OPTIONAL, Settings};
pub use start::plan;
pub use start::terminal::{Terminal, TerminalEnd};

use self::features::{Defences, Rights};
use self::group::kept_groups::KeptGroups;
use self::instance::Instance;
use self::janitor::Janitor;
use self::sandbox::LinuxSandbox;
use self::shared::{Shared, blocking};
use self::slots::Slots;
use self::start::ahead::Ahead;
use self::start::wires::Wires;
use crate::supervise::supervise;
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Isolation, Network, Sandbox,
    SandboxSpec, Swept,
};

/// The init's program, compiled from `init/init.rs`.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
/// Longest wait for released sandboxes at a host's end.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Starts of sandboxes made ahead of their use.
const AHEAD_MAX: usize = 8;
/// As long after a start it is over, for a program that does little.
const QUIET_TIME: Duration = Duration::from_millis(10);

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

impl LinuxBackend {
    /// Looks what this machine has, and changes nothing.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn probe() -> Result<Probe, Error> {
        Self::probe_with(&Settings::default())
    }

    /// As [`LinuxBackend::probe`], for a backend with these settings.
    ///
    /// # Errors
    ///
    /// As [`LinuxBackend::probe`].
    pub fn probe_with(settings: &Settings) -> Result<Probe, Error> {
        let mut hierarchies = Hierarchies::detect()?;
        let mut missing = Vec::new();
        match Rights::own() {
            Rights::User { .. } if settings.rootless => {
                hierarchies = hierarchies.delegated()?;
                missing.extend(probe::user_namespaces());
                missing.extend(probe::whole_proc());
            }
            Rights::User { user, .. } => {
                missing.push(probe::root(user));
                missing.extend(probe::groups(&hierarchies));
            }
            Rights::Root => missing.extend(probe::groups(&hierarchies)),
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
        let probe = Self::probe_with(settings)?;
        if let Some(missing) = probe.missing.first() {
            return Err(Error::Unavailable {
                what: missing.what,
                why: missing.why.clone(),
                remedy: missing.remedy,
            });
        }
        let sealed = |name, content: &[u8]| {
            sys::sealed_file(name, content)
                .map_err(|source| Error::step("making a file in memory", source))
        };
        let init = sealed(c"sandbox-init", INIT)?;
        let filters = sealed(c"sandbox-filters", &guard::filter::compile(SystemCalls::Default))?;
        let instance = Instance::claim(settings.id_base)?;
        instance.sweep(&probe.hierarchies)?;
        let hierarchies = probe.hierarchies;
        #[cfg(feature = "systemd")]
        let (hierarchies, scope) = if settings.systemd_scope {
            let scope = group::scope::Scope::start(instance.number())?;
            (scope.hierarchies(&hierarchies)?, Some(scope))
        } else {
            (hierarchies, None)
        };
        let defences = Defences::of(probe.features, &settings.without);
        let sources = guard::uncharged::Sources::open();
        let mut isolation = defences.isolation(&hierarchies);
        match &sources {
            Ok(_) => {
                let means = "sandboxes with too many connections or locks of files are killed";
                isolation.in_force.insert(Defence::KernelMemory, means.to_owned());
            }
            Err(why) => drop(isolation.absent.insert(Defence::KernelMemory, why.clone())),
        }
        let shared = Arc::new(Shared {
            isolation,
            slots: Arc::new(Slots {
                hierarchies,
                instance,
                groups: KeptGroups::default(),
                #[cfg(feature = "systemd")]
                _scope: scope,
            }),
            defences,
            inits: inits::Inits::default(),
            images: root::image::Images::default(),
            templates: root::template::Templates::default(),
            filters: guard::filters::Filters::default(),
            // A user's process makes its own: nobody could enter one made beforehand.
            ahead: (Rights::own() == Rights::Root)
                .then(|| start::ahead::Pool::start(AHEAD_MAX))
                .transpose()?,
            refilling: AtomicBool::default(),
            spawner: start::spawn::Spawner::start(&init, &filters)?,
            processes: match Rights::own() {
                Rights::Root => plan::process_steps()?.into(),
                Rights::User { .. } => Arc::default(),
            },
            janitor: Janitor::start()?,
        });
        if let Ok(sources) = sources {
            guard::uncharged::watch(&shared, sources)?;
        }
        crate::supervise::pipe::prepare();
        Ok(Self { _closing: Arc::new(Closing(Arc::clone(&shared))), shared })
    }

    /// Returns what becomes the sandbox of `spec`, but for joining groups, the network and the clocks: as root, up to the
    /// change of root it is done once for all sandboxes with this root, and then in each of them.
    ///
    /// # Errors
    ///
    /// When the root names something that is not there.
    pub fn steps(spec: &SandboxSpec) -> Result<Vec<plan::Step>, Error> {
        spec.check()?;
        let defences = Defences::of(Features::detect(), &BTreeSet::new());
        let stage = Instance::stage();
        if defences.rights != Rights::Root {
            return plan::user_steps(spec, &stage, &defences);
        }
        let (points, view) = (spec.linux.points()?, root::view::View::of(&spec.limits));
        let base =
            plan::Base { root: &spec.root, points: &points, view: &view, late: None, groups: None };
        let mut steps = plan::root_steps(base, &stage, None)?;
        steps.extend(plan::process_steps()?);
        steps.extend(plan::own_steps(spec, &defences)?);
        Ok(steps)
    }

    async fn ahead(&self, spec: &SandboxSpec) -> Result<Ahead, Error> {
        let (wanted, handed_in) = (&spec.network, &spec.linux.network_namespace);
        let Some(pool) = &self.shared.ahead else {
            return if wanted.is_loopback() && handed_in.is_none() {
                Ok(Ahead { network: net::netns::Network::Own, wires: Wires::make()? })
            } else {
                Err(Error::Unavailable {
                    what: "a network beyond the loopback",
                    why:
                        "without root nobody can enter or change a network namespace of the host's"
                            .into(),
                    remedy: "run the host as root",
                })
            };
        };
        if let Some(namespace) = handed_in.clone() {
            let network = blocking(move || net::netns::listen_in(&namespace)).await?;
            return Ok(Ahead { network, wires: Wires::make()? });
        }
        let ready = pool.try_take();
        let shared = Arc::clone(&self.shared);
        let take =
            move || shared.ahead.as_ref().map_or(Err(Error::Ended), start::ahead::Pool::take);
        let ahead = match ready {
            Some(ready) => ready?,
            None => blocking(take).await?,
        };
        let Network::Interface(interface) = wanted else {
            return Ok(ahead);
        };
        let interface = interface.clone();
        blocking(move || {
            if let net::netns::Network::Made { namespace, .. } = &ahead.network {
                net::netns::give(&interface, namespace.as_fd())?;
            }
            Ok(ahead)
        })
        .await
    }

    /// Returns the control groups of this host's sandboxes: what is there when no sandbox is, is a leak. Those that are kept
    /// for sandboxes to come are not among them.
    #[must_use]
    pub fn groups(&self) -> Vec<std::path::PathBuf> {
        let kept = self.shared.slots.groups.numbers();
        let kept = |group: &std::path::PathBuf| {
            let name = group.file_name().map(|name| name.to_string_lossy().parse());
            matches!(name, Some(Ok(number)) if kept.contains(&number))
        };
        let mut groups = self.shared.slots.instance.groups(&self.shared.slots.hierarchies);
        groups.retain(|group| !kept(group));
        groups
    }
}

/// Has what this start has used up replaced, when the start and others that come with it are over.
fn refill(shared: &Arc<Shared>) {
    if shared.ahead.is_none() || shared.refilling.swap(true, Ordering::AcqRel) {
        return;
    }
    let refill = Refill(Arc::downgrade(shared));
    tokio::spawn(async move {
        tokio::time::sleep(QUIET_TIME).await;
        drop(refill);
    });
}

/// Has the pool filled when it is dropped, be it that the runtime ends first. Must not hold up the end of the host.
struct Refill(Weak<Shared>);

impl Drop for Refill {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.refilling.store(false, Ordering::Release);
            shared.ahead.iter().for_each(start::ahead::Pool::fill);
        }
    }
}

/// Hides all that lies in this folder in the layers below (overlayfs, `trusted.overlay.opaque`).
#[cfg(feature = "oci")]
pub(crate) fn set_opaque(folder: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    sys::set_attribute(folder, c"trusted.overlay.opaque", b"y")
}

/// Checks that the specification does not itself ask for what takes away a defence that it demands.
fn check_asked(spec: &SandboxSpec) -> Result<(), Error> {
    let network = (!spec.network.is_loopback()).then_some(Defence::Network);
    let mut asked = network.into_iter().chain(spec.linux.weakened());
    match asked.find(|defence| spec.limits.isolation_min.contains(defence)) {
        None => Ok(()),
        Some(defence) => Err(Error::Unavailable {
            what: "the isolation demanded",
            why: format!("[{defence:?}] not in force: the specification asks for what weakens it"),
            remedy: "demand less, or leave out the network, extras or profile that weaken it",
        }),
    }
}

impl Backend for LinuxBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        let span = tracing::debug_span!("create", function = spec.function);
        let creating = async move {
            spec.check()?;
            spec.limits.check_isolation(&self.shared.isolation)?;
            check_asked(&spec)?;
            let ahead = self.ahead(&spec).await?;
            // A task of its own: dropped in the middle, it is finished, and what it made is released as a whole.
            let shared = Arc::clone(&self.shared);
            let making = tokio::spawn(async move {
                let made = LinuxSandbox::make(&shared, &spec, ahead).await;
                refill(&shared);
                let (sandbox, listener) = made?;
                Ok::<_, Error>((spec, listener, sandbox))
            });
            let (spec, listener, sandbox) =
                making.await.map_err(|_runtime_ends| Error::Ended)??;
            let listener = TcpListener::from_std(listener)
                .map_err(|source| Error::step("listening inside the sandbox", source))?;
            Ok(supervise(spec, Arc::new(sandbox), listener))
        };
        Box::pin(creating.instrument(span))
    }

    fn isolation(&self) -> Isolation {
        self.shared.isolation.clone()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let groups = &self.shared.slots.hierarchies;
        let some = |there: bool, capability| there.then_some(capability);
        let memory = groups.has(Controller::Memory);
        let v2 = groups.v2.is_some();
        BTreeSet::from([
            Capability::Programs,
            Capability::RuntimeApi,
            Capability::ProcessLimit,
            Capability::ScratchLimit,
            Capability::PrivateNetwork,
            Capability::ReadOnlyRoot,
            Capability::Run,
            Capability::Stdin,
            Capability::Exec,
            Capability::ResourceLimits,
            Capability::ExternalExtensions,
        ])
        .into_iter()
        .chain(some(v2 || groups.has(Controller::Freezer), Capability::Freeze))
        .chain(some(memory, Capability::MemoryLimit))
        .chain(some(memory, Capability::MemoryPeak))
        .chain(some(groups.has(Controller::Cpu), Capability::CpuLimit))
        .chain(some(groups.has(Controller::Cpu), Capability::CpuWeight))
        .chain(some(groups.has(Controller::CpuSet), Capability::Processors))
        .chain(some(groups.has(Controller::Io), Capability::BlockIoLimit))
        .chain(some(v2 && self.shared.defences.features.pressure, Capability::Pressure))
        .chain(some(v2 || groups.has(Controller::CpuAcct), Capability::CpuTime))
        .collect()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async move {
            self.shared.templates.forget();
            self.shared.slots.forget_groups();
            let removed = self.shared.slots.instance.sweep(&self.shared.slots.hierarchies)?;
            Ok(Swept { removed })
        })
    }
}
