//! Sandboxes made of Linux namespaces, control groups and system call filters. Root has all of
//! them. Without root, if the host allows it by [`Settings::rootless`], there is what the kernel
//! permits to a user.
//!
//! Every sandbox has its own pid, mount, network, ipc, uts, cgroup and user namespaces. As root it
//! has a user id that nobody else has outside. It has a read-only root, a scratch folder of limited
//! size, no capabilities, a list of allowed system calls, and a small init as pid 1 that dies with
//! the host. [`Backend::isolation`] returns the defences in force. The tables are public data
//! ([`plan`], [`landlock`], [`seccomp`]).

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
pub use net::prepared::PreparedNetwork;
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
    Backend, BoxFuture, Capability, Created, Defence, Error, Isolation, Sandbox, SandboxSpec, Swept,
};

/// The init's program, compiled from `init/init.rs`.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
/// The longest wait at a host's end for the release of its sandboxes.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// The number of sandboxes for which namespaces and wires are made ahead.
const AHEAD_MAX: usize = 8;
/// Delay before the pool refills, so that refilling does not compete with the start. A program that
/// does little is over by then.
const QUIET_TIME: Duration = Duration::from_millis(10);

/// Creates sandboxes on this machine. Clones share all state.
///
/// Dropping the last clone waits until the sandboxes that were dropped before are released: a few
/// milliseconds as a rule, two seconds at most. So a host that ends right after that leaves nothing
/// behind.
#[derive(Debug, Clone)]
pub struct LinuxBackend {
    // Declared first, so that it is dropped while `shared` still exists.
    _closing: Arc<Closing>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.janitor.wait(CLOSE_TIME);
        if let Some(disks) = &self.0.disks {
            disks.wait(CLOSE_TIME);
        }
    }
}

impl LinuxBackend {
    /// Checks what this machine has, and changes nothing.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
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

    /// Creates the backend, starts its threads, and removes what crashed hosts left on this
    /// machine.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with the first item of [`Probe::missing`].
    pub fn new() -> Result<Self, Error> {
        Self::with_settings(&Settings::default())
    }

    /// As [`LinuxBackend::new`], with settings.
    ///
    /// # Errors
    ///
    /// As [`LinuxBackend::new`], and [`Error::Invalid`] for settings out of range.
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
        let owners = root::owners::Owners::new(instance.owner());
        let disks = settings.scratch_folder.as_deref();
        let disks = disks.map(|it| Self::disks(it, owners.id)).transpose()?;
        let mut isolation = defences.isolation(&hierarchies, disks.is_some());
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
            templates: root::template::Templates::new(owners),
            filters: guard::filters::Filters::default(),
            disks,
            // Without root the new process makes its namespaces: it could not enter one made ahead.
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

    /// Checks whether this machine can put scratch space on disk, as [`Settings::scratch_folder`]
    /// demands. Makes one and removes it, which blocks for some milliseconds. Does nothing without
    /// that setting.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with what is missing.
    pub fn scratch_works(settings: &Settings) -> Result<(), Error> {
        let disks = settings.scratch_folder.as_deref().map(|it| Self::disks(it, 0));
        disks.transpose().map(drop)
    }

    fn disks(folder: &std::path::Path, owner: u32) -> Result<root::scratch::Disks, Error> {
        if Rights::own() != Rights::Root {
            return Err(Error::Unavailable {
                what: "scratch space on disk",
                why: "loop devices are root's".into(),
                remedy: "set no scratch folder, or run the host as root",
            });
        }
        root::scratch::Disks::start(folder, owner)
    }

    /// Returns the steps by which a process becomes the sandbox of `spec`, without those that join
    /// groups and enter the network and time namespaces. As root, the steps up to the change of
    /// root are carried out once for all sandboxes with this root, and the others in each sandbox.
    ///
    /// # Errors
    ///
    /// If the root names a file or folder that does not exist.
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
        let mut steps = plan::root_steps(base, &stage, None, None)?;
        steps.extend(plan::process_steps()?);
        steps.extend(plan::own_steps(spec, &defences, false, Settings::default().id_base)?);
        Ok(steps)
    }

    async fn ahead(&self, spec: &SandboxSpec) -> Result<Ahead, Error> {
        let (wanted, handed_in) = (&spec.network, &spec.linux.network_namespace);
        let prepared = spec.linux.prepared_network.as_ref();
        let Some(pool) = &self.shared.ahead else {
            return if wanted.is_loopback() && handed_in.is_none() && prepared.is_none() {
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
        if let Some(prepared) = prepared {
            return prepared.take();
        }
        let ready = pool.try_take();
        let shared = Arc::clone(&self.shared);
        let take =
            move || shared.ahead.as_ref().map_or(Err(Error::Ended), start::ahead::Pool::take);
        let ahead = match ready {
            Some(ready) => ready?,
            None => blocking(take).await?,
        };
        if wanted.is_loopback() {
            return Ok(ahead);
        }
        let wanted = wanted.clone();
        blocking(move || {
            if let net::netns::Network::Made { namespace, .. } = &ahead.network {
                net::netns::connect(&wanted, namespace.as_fd())?;
            }
            Ok(ahead)
        })
        .await
    }

    /// Returns the control groups of this host's sandboxes, without those kept for later sandboxes.
    /// A group that exists while no sandbox does is a leak.
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

/// Schedules a refill of the pool after this start and those that come with it.
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

/// Refills the pool on drop, so that it happens even if the runtime ends first. Holds a weak
/// reference, so as not to delay the end of the host.
struct Refill(Weak<Shared>);

impl Drop for Refill {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.refilling.store(false, Ordering::Release);
            shared.ahead.iter().for_each(start::ahead::Pool::fill);
        }
    }
}

/// Hides the contents of this folder in lower layers (overlayfs, `trusted.overlay.opaque`).
#[cfg(feature = "oci")]
pub(crate) fn set_opaque(folder: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    sys::set_attribute(folder, c"trusted.overlay.opaque", b"y")
}

/// Tells whether this folder hides its contents in lower layers ([`set_opaque`]).
#[cfg(feature = "oci")]
pub(crate) fn is_opaque(folder: std::os::fd::BorrowedFd<'_>) -> std::io::Result<bool> {
    sys::has_attribute(folder, c"trusted.overlay.opaque")
}

/// Checks that the specification does not demand a defence and ask for something that weakens it.
fn check_asked(spec: &SandboxSpec) -> Result<(), Error> {
    let beyond = [Defence::Network, Defence::FilteredNetwork];
    let network = beyond.into_iter().filter(|_| !spec.network.is_loopback());
    let mut asked = network.chain(spec.linux.weakened());
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
            // The sandbox is made in a task of its own. If the caller's future is dropped, the task
            // finishes, and the whole sandbox is released.
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
