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
//! - Each machine boots: there is no start from a snapshot.
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

use std::collections::BTreeSet;
use std::sync::Arc;

pub use settings::Settings;
pub use shared::SharedVm;

use self::driver::VmDriver;
use self::image::Images;
use self::jail::Jail;
use self::machine::{Disks, Machine, Way};
use crate::remote::{RemoteBackend, guest};
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Isolation, Limits, Network, Sandbox,
    SandboxSpec, Swept, Vm, VmProvider, VmSize,
};

/// Creates sandboxes in virtual machines of their own. Clones share all state.
#[derive(Debug, Clone)]
pub struct VmBackend(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    images: Images,
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
        let machine = Machine::start(&settings, jail.as_ref(), size, disks).await?;
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
        Ok(Self(Arc::new(Shared { settings, images, jail, isolation, capabilities })))
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
        let (size, disks) = (size_for(&spec.limits), Disks::Images(disks));
        let machine = Machine::start(settings, jail.as_ref(), size, disks).await?;
        let sandbox = agent(machine.way(), settings).await?.create(spec).await?;
        Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
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

async fn agent(way: Way, settings: &Settings) -> Result<RemoteBackend, Error> {
    RemoteBackend::with_patience(way, settings.patience).await
}

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
