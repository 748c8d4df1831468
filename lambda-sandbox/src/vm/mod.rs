//! Virtual machines: one for each sandbox, or one for many sandboxes of a customer. The guest has a
//! kernel of its own, and in it the Linux backend, which `lambda-guest` serves by the protocol of
//! [`remote`](crate::remote) backends.
//!
//! As a [`Backend`], [`VmBackend`] starts a machine for each sandbox. It makes images of the root's
//! folders (once, in a cache), starts a process of the monitor `lambda-vmm` with these images as
//! disks, waits for the agent in the guest, and has it create the sandbox. The sandbox's limits
//! hold inside. The machine ends with the sandbox.
//!
//! As a [`VmProvider`], it starts machines without sandboxes. Each is a backend ([`SharedVm`]):
//! for a sandbox it puts the images into slots of the running machine. Sandboxes with the same
//! image share a slot. The limits of each sandbox hold inside, and those of the machine for all of
//! them together. Sandboxes in one machine are isolated from each other by the guest's kernel only.
//!
//! A sandbox with [`SandboxSpec::snapshot`] starts from a snapshot of a machine in which one like
//! it had ended its init. The first of them makes it: its machine is saved when the sandbox is
//! frozen after its init, and goes on. Each machine, that one too, gets 64 random bytes and the
//! time from the host before the sandbox is thawed; then the function's runtime runs its hooks
//! (`restore/next` of the Runtime API), and asks for its first event. If a snapshot cannot be
//! restored, it is removed, and a machine boots. [`VmBackend::events`] tells why.
//!
//! Machines can be made ahead of their use: restored ones that stand still
//! ([`Settings::clones_ready`]), and empty ones in their jails ([`Settings::monitors_ready`]). One
//! that ends before its use is replaced. Nothing of a function runs in a restored machine before
//! its use, and it gets its random bytes and the time then. [`Backend::sweep`] ends all of them.
//!
//! The monitor runs in a sandbox of the Linux backend: a root with its program alone, no network,
//! one descriptor, a control group for the guest's memory and processors, and the system calls of
//! [`SystemCalls::Monitor`](crate::linux::SystemCalls). What an escaped guest meets is that
//! sandbox.
//!
//! It needs `/dev/kvm`, a kernel, the guest's root image, the program `lambda-vmm`, and
//! `mkfs.erofs`. [`VmBackend::start`] names what is missing.
//!
//! # Limits
//!
//! - With [`Settings::without_jail`] the monitor's process runs with the rights of the host's user,
//!   restricted by its own filters of system calls alone.
//! - The monotonic clock of a machine that stood still goes on meanwhile, as that of a frozen
//!   sandbox does: timers that are overdue end when it goes on.
//! - Machines for many sandboxes boot: only a machine for one sandbox starts from a snapshot.
//! - What a program has read from the kernel's random numbers before its snapshot is the same in
//!   all that start from it, and so are the process numbers. Programs that keep a generator of their
//!   own must seed it in their hook.
//! - A snapshot holds the memory of a function, and lies in the folder of images until it is
//!   removed. That folder should be on a disk: in a tmpfs the copy counts for the memory limit of
//!   the machine that is saved.
//! - A guest has no network but the sandbox's loopback.
//! - A root has at most 13 folders, layers and binds together: each is a disk. All sandboxes
//!   of a shared machine together have at most 13 different ones. A sandbox that needs another one
//!   is refused with [`Error::Exhausted`].
//! - The memory that a sandbox of a shared machine has used goes back to the guest's kernel, which
//!   reports free pages to the host after two seconds.
//! - An idle sandbox is frozen inside of the guest. The guest's kernel runs on.

mod base;
mod blocking;
mod clones;
mod driver;
mod events;
mod first;
mod image;
mod jail;
mod machine;
mod monitor;
mod settings;
mod share;
mod shared;
mod slots;
mod snapshots;
mod stock;
mod sums;
mod unfinished;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::broadcast;

pub use events::VmEvent;
pub use settings::Settings;
pub use shared::SharedVm;

use self::base::Base;
use self::clones::{Clones, Source, restore};
use self::driver::VmDriver;
use self::events::Teller;
use self::first::{FirstDriver, Making};
use self::image::Images;
use self::jail::Jail;
use self::machine::{Disks, Machine, Plan};
use self::monitor::{Monitors, Parts};
use self::snapshots::{Key, Snapshots};
use crate::remote::{RemoteBackend, guest};
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Isolation, Limits, Network, Sandbox,
    SandboxSpec, Swept, Vm, VmProvider, VmSize,
};

/// Creates sandboxes in virtual machines of their own. Clones share all state. Machines that are
/// kept ready end with the last clone.
#[derive(Debug, Clone)]
pub struct VmBackend(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: Arc<Base>,
    images: Images,
    clones: Arc<Clones>,
    monitors: Monitors,
}

impl VmBackend {
    /// Starts one machine to learn what the backend in a guest offers, and ends it again. Removes
    /// what ended hosts have begun to make in the folder of images.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for a device, file or program that is missing, with a remedy;
    /// [`Error::Failed`] with the step in which the machine failed.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let images = Images::open(&settings.images)?;
        images.sweep()?;
        let jail = settings.is_jailed.then(|| Jail::new(&settings)).transpose()?;
        let (parts, teller) = (Parts { settings, jail }, Teller::new());
        let plan =
            Plan::new(&parts.settings, size_for(&Limits::default()), Disks::Images(Vec::new()))?;
        let monitors = Monitors::new(&parts, teller.clone());
        let empty = monitors.take(plan.share()).await?;
        let machine = Machine::start(&parts, empty, plan, None).await?;
        let agent = RemoteBackend::with_patience(machine.way(), parts.settings.patience).await?;
        let mut isolation = agent.isolation();
        isolation.absent.remove(&Defence::Kernel);
        let kernel = match &parts.jail {
            Some(_) => "a virtual machine, and its monitor in a sandbox",
            None => "a virtual machine, and its monitor a process of the host",
        };
        isolation.in_force.insert(Defence::Kernel, kernel.to_owned());
        let mut capabilities = agent.capabilities();
        capabilities.insert(Capability::Snapshots);
        machine.end().await;
        let snapshots = Snapshots::new(images.clone(), parts.settings.snapshots_max);
        let base = Arc::new(Base { parts, snapshots, isolation, capabilities, teller });
        let clones = Arc::new(Clones::new(&base));
        Ok(Self(Arc::new(Shared { base, images, clones, monitors })))
    }

    /// Returns the events of snapshots and of machines that are kept ready, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.0.base.teller.listen()
    }

    /// Returns how many restored machines are ready now, and how many empty ones.
    #[must_use]
    pub fn ready(&self) -> (usize, usize) {
        (self.0.clones.ready(), self.0.monitors.ready())
    }

    async fn make(&self, mut spec: SandboxSpec) -> Result<Sandbox<Created>, Error> {
        let Shared { base, images, .. } = &*self.0;
        prepare(&mut spec, &base.isolation)?;
        let root = images.of_root(&spec.root).await?;
        let disks = root.images();
        spec.root = root.inside(|image| {
            let at = disks.iter().position(|disk| disk == image).unwrap_or(0);
            guest::place(u8::try_from(at).unwrap_or(u8::MAX), 0)
        });
        let size = size_for(&spec.limits);
        match spec.snapshot.take() {
            Some(name) => self.clone_or_save(Source { name, disks, size }, spec).await,
            None => self.boot(disks, size, spec).await,
        }
    }

    /// Creates a sandbox in a new machine.
    async fn boot(
        &self,
        disks: Vec<PathBuf>,
        size: VmSize,
        spec: SandboxSpec,
    ) -> Result<Sandbox<Created>, Error> {
        let Shared { base, monitors, .. } = &*self.0;
        let plan = Plan::new(&base.parts.settings, size, Disks::Images(disks))?;
        let empty = monitors.take(plan.share()).await?;
        let machine = Machine::start(&base.parts, empty, plan, None).await?;
        let sandbox = base.agent(&machine).create(spec).await?;
        Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
    }

    /// Starts a sandbox from a snapshot, or the one from which the snapshot is made.
    async fn clone_or_save(
        &self,
        source: Source,
        spec: SandboxSpec,
    ) -> Result<Sandbox<Created>, Error> {
        let Shared { base, clones, monitors, .. } = &*self.0;
        let key = {
            let (source, spec, base) = (source.clone(), spec.clone(), Arc::clone(base));
            let settings = move |base: &Base| {
                let Source { name, disks, size } = &source;
                base.snapshots.key(name, &spec, disks, *size, &base.parts.settings)
            };
            blocking::blocking(move || settings(&base)).await??
        };
        if let Some(ready) = clones.take(&key) {
            match ready.adopt(&spec).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => {
                    let (name, error) = (source.name.clone(), Arc::new(error));
                    base.teller.tell(VmEvent::ReadyLost { name, error });
                }
            }
        }
        let turn = base.snapshots.turn(&key).lock_owned();
        // The first one's init, and the start and the end of its machine.
        let patience = spec.times.init.saturating_add(base.parts.settings.patience * 2);
        let Ok(turn) = tokio::time::timeout(patience, turn).await else {
            // Whoever makes the snapshot has not begun the init.
            return self.boot(source.disks, source.size, spec).await;
        };
        let restored = async {
            let Some(snapshot) = base.in_snapshots(&key, |all, key| all.open(key)).await? else {
                return Ok(None);
            };
            let plan = source.plan(base)?;
            let empty = monitors.take(plan.share()).await?;
            restore(base, empty, plan, snapshot, &spec).await.map(Some)
        };
        match restored.await {
            Ok(Some(sandbox)) => {
                clones.want(key, source);
                Ok(sandbox)
            }
            Ok(None) => {
                let plan = source.plan(base)?;
                let empty = monitors.take(plan.share()).await?;
                let machine = Machine::start(&base.parts, empty, plan, None).await?;
                let inside = base.agent(&machine).create_to_park(spec.clone()).await?;
                let (base, clones) = (Arc::clone(base), Arc::clone(clones));
                let saver = machine.saver();
                let making = Making { base, clones, key, source, spec, saver, turn };
                let first = FirstDriver::new(inside, making);
                Ok(Sandbox::new(Box::new(VmDriver::new(Box::new(first), machine))))
            }
            Err(error) => {
                clones.forget(&key);
                let forget = |all: &Snapshots, key: &Key| {
                    all.forget(key);
                    Ok(())
                };
                base.in_snapshots(&key, forget).await?;
                drop(turn);
                let (name, error) = (source.name, Arc::new(error));
                base.teller.tell(VmEvent::RestoreFailed { name, error });
                self.boot(source.disks, source.size, spec).await
            }
        }
    }
}

/// Returns the size of a machine for one sandbox with these limits.
fn size_for(limits: &Limits) -> VmSize {
    let cpus = limits.cpus.max(limits.init_cpus.unwrap_or(0.0));
    VmSize { memory_bytes: limits.memory_bytes, cpus }
}

/// Checks a specification, and changes it to what the guest gets.
fn prepare(spec: &mut SandboxSpec, isolation: &Isolation) -> Result<(), Error> {
    spec.check()?;
    spec.limits.check_isolation(isolation)?;
    // The guest's own backend shares the kernel of the guest.
    spec.limits.isolation_min.retain(|defence| *defence != Defence::Kernel);
    if !spec.network.is_loopback() || !spec.linux.is_empty() {
        return Err(Error::Unavailable {
            what: "a network or an option of the Linux backend in a virtual machine",
            why: "descriptors and interfaces of the host do not reach a guest".into(),
            remedy: "leave them out, or use the Linux backend",
        });
    }
    spec.network = Network::Loopback;
    Ok(())
}

impl VmProvider for VmBackend {
    fn start_vm(&self, size: VmSize) -> BoxFuture<'_, Result<Box<dyn Vm>, Error>> {
        Box::pin(async move {
            let machine = SharedVm::start(self, size).await?;
            Ok(Box::new(machine) as Box<dyn Vm>)
        })
    }
}

impl Backend for VmBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(self.make(spec))
    }

    fn isolation(&self) -> Isolation {
        self.0.base.isolation.clone()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.base.capabilities.clone()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async move {
            let Shared { base, images, clones, monitors } = &*self.0;
            clones.clear().await;
            monitors.clear().await;
            let mut swept = match &base.parts.jail {
                Some(jail) => jail.sweep().await?,
                None => Swept::default(),
            };
            swept.removed.extend(images.sweep()?);
            Ok(swept)
        })
    }
}
