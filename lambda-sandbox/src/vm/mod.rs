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
//! A sandbox with [`SandboxSpec::snapshot`] starts from a snapshot of a machine in which one like it
//! had ended its init. The first of them makes it: its machine is saved when the sandbox is frozen
//! after its init, and ends. Each restored machine gets 64 random bytes and the time from the host
//! before the sandbox is thawed; then the function's runtime runs its hooks (`restore/next` of the
//! Runtime API), and asks for its first event. If a snapshot cannot be made or restored, it is
//! removed, and the machine boots.
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
//! - Machines for many sandboxes boot: only a machine for one sandbox starts from a snapshot.
//! - What a program has read from the kernel's random numbers before its snapshot is the same in all
//!   that start from it, and so are the process numbers. Programs that keep a generator of their own
//!   must seed it in their hook.
//! - A snapshot holds the memory of a function, and lies in the folder of images until it is removed.
//!   That folder should be on a disk: in a tmpfs the copy counts for the memory limit of the machine
//!   that is saved.
//! - A guest has no network but the sandbox's loopback.
//! - A root has at most 13 folders, layers and binds together: each is a disk. All sandboxes
//!   of a shared machine together have at most 13 different ones. A sandbox that needs another one
//!   is refused with [`Error::Exhausted`].
//! - The memory that a sandbox of a shared machine has used goes back to the guest's kernel, which
//!   reports free pages to the host after two seconds.
//! - An idle sandbox is frozen inside of the guest. The guest's kernel runs on.

mod driver;
mod image;
mod jail;
mod machine;
mod settings;
mod shared;
mod slots;
mod snapshots;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

pub use settings::Settings;
pub use shared::SharedVm;

use self::driver::VmDriver;
use self::image::Images;
use self::jail::Jail;
use self::machine::{Disks, Machine, blocking};
use self::snapshots::{Key, Snapshot, Snapshots};
use crate::remote::{RemoteBackend, guest};
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, InitFailure, Isolation, Limits,
    Network, Sandbox, SandboxSpec, Swept, Vm, VmProvider, VmSize,
};

/// Creates sandboxes in virtual machines of their own. Clones share all state.
#[derive(Debug, Clone)]
pub struct VmBackend(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    images: Images,
    snapshots: Snapshots,
    jail: Option<Jail>,
    isolation: Isolation,
    capabilities: BTreeSet<Capability>,
}

impl VmBackend {
    /// Starts one machine to learn what the backend in a guest offers, and ends it again.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for a device, file or program that is missing, with a remedy;
    /// [`Error::Failed`] with the step in which the machine failed.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let images = Images::open(&settings.images)?;
        let jail = settings.is_jailed.then(|| Jail::new(&settings)).transpose()?;
        let (size, disks) = (size_for(&Limits::default()), Disks::Images(Vec::new()));
        let machine = Machine::start(&settings, jail.as_ref(), size, disks, None).await?;
        let agent = RemoteBackend::with_patience(machine.way(), settings.patience).await?;
        let mut isolation = agent.isolation();
        isolation.absent.remove(&Defence::Kernel);
        let kernel = match &jail {
            Some(_) => "a virtual machine, and its monitor in a sandbox",
            None => "a virtual machine, and its monitor a process of the host",
        };
        isolation.in_force.insert(Defence::Kernel, kernel.to_owned());
        let capabilities = agent.capabilities();
        machine.end().await;
        let snapshots = Snapshots::new(images.clone(), settings.snapshots_max);
        let shared = Shared { settings, images, snapshots, jail, isolation, capabilities };
        Ok(Self(Arc::new(shared)))
    }

    async fn make(&self, mut spec: SandboxSpec) -> Result<Sandbox<Created>, Error> {
        let Shared { settings, images, jail, isolation, .. } = &*self.0;
        prepare(&mut spec, isolation)?;
        let root = images.of_root(&spec.root).await?;
        let disks = root.images();
        spec.root = root.inside(|image| {
            let at = disks.iter().position(|disk| disk == image).unwrap_or(0);
            guest::place(u8::try_from(at).unwrap_or(u8::MAX), 0)
        });
        let size = size_for(&spec.limits);
        if let Some(name) = spec.snapshot.take() {
            match self.restore(&name, &spec, &disks, size).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, name, "a machine boots: no snapshot serves");
                }
            }
        }
        let disks = Disks::Images(disks);
        let machine = Machine::start(settings, jail.as_ref(), size, disks, None).await?;
        let sandbox = self.agent(&machine).create(spec).await?;
        Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
    }

    /// Starts a sandbox from the snapshot of this name, which is made if there is none.
    async fn restore(
        &self,
        name: &str,
        spec: &SandboxSpec,
        disks: &[PathBuf],
        size: VmSize,
    ) -> Result<Sandbox<Created>, Error> {
        let Shared { settings, snapshots, jail, .. } = &*self.0;
        let key = {
            let (name, spec, disks) = (name.to_owned(), spec.clone(), disks.to_vec());
            let settings = settings.clone();
            blocking(move || Key::of(&name, &spec, &disks, size, &settings)).await??
        };
        let snapshot = {
            let turn = snapshots.turn(&key);
            let _alone = turn.lock().await;
            match self.in_snapshots(&key, Snapshots::open).await? {
                Some(snapshot) => snapshot,
                None => self.save(&key, spec, disks, size).await?,
            }
        };
        let restored = async {
            let disks = Disks::Images(disks.to_vec());
            let machine =
                Machine::start(settings, jail.as_ref(), size, disks, Some(snapshot)).await?;
            let sandbox = self.agent(&machine).adopt(spec, seed()?, SystemTime::now()).await?;
            Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
        };
        let restored = restored.await;
        if restored.is_err() {
            let forget = |all: &Snapshots, key: &Key| {
                all.forget(key);
                Ok(())
            };
            self.in_snapshots(&key, forget).await?;
        }
        restored
    }

    /// Boots a machine, waits until a sandbox in it has ended its init, and saves the machine, which
    /// ends.
    async fn save(
        &self,
        key: &Key,
        spec: &SandboxSpec,
        disks: &[PathBuf],
        size: VmSize,
    ) -> Result<Snapshot, Error> {
        let Shared { settings, jail, .. } = &*self.0;
        let disks = Disks::Images(disks.to_vec());
        let machine = Machine::start(settings, jail.as_ref(), size, disks, None).await?;
        let parked = self.agent(&machine).park(spec.clone()).await;
        parked.map_err(|failure| match failure {
            InitFailure::Failed(error) => error,
            other => Error::step("the init of a sandbox to be saved", std::io::Error::other(other)),
        })?;
        let (saved, machine) = self
            .in_snapshots(key, move |all, _| {
                let writing = all.begin()?;
                Ok((machine.save(&writing.files).map(|()| writing), machine))
            })
            .await?;
        machine.end().await;
        let writing = saved?;
        self.in_snapshots(key, |all, key| all.keep(writing, key)).await
    }

    /// Does something with the files of snapshots, on a thread that may block.
    async fn in_snapshots<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Snapshots, &Key) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (snapshots, key) = (self.0.snapshots.clone(), key.clone());
        blocking(move || work(&snapshots, &key)).await?
    }

    /// Returns the agent of a machine, which is like that of any other machine of this backend.
    fn agent(&self, machine: &Machine) -> RemoteBackend {
        let Shared { settings, isolation, capabilities, .. } = &*self.0;
        let (isolation, capabilities) = (isolation.clone(), capabilities.clone());
        RemoteBackend::known(machine.way(), settings.patience, isolation, capabilities)
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

/// Returns random bytes for a restored machine.
fn seed() -> Result<Bytes, Error> {
    let mut seed = [0; SEED_BYTES];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    read.map_err(|source| Error::failed("reading random bytes", "/dev/urandom", source))?;
    Ok(Bytes::copy_from_slice(&seed))
}

const SEED_BYTES: usize = 64;

impl Backend for VmBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(self.make(spec))
    }

    fn isolation(&self) -> Isolation {
        self.0.isolation.clone()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.capabilities.clone()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async move {
            let mut swept = match &self.0.jail {
                Some(jail) => jail.sweep().await?,
                None => Swept::default(),
            };
            swept.removed.extend(self.0.images.sweep()?);
            Ok(swept)
        })
    }
}
