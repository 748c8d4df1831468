//! A virtual machine with many sandboxes of one customer in it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::base::Base;
use super::blocking::blocking;
use super::driver::{Holds, VmDriver};
use super::image::{DISKS_MAX, Images};
use super::machine::{Disks, Machine, Plan, Way};
use super::slots::{Slots, Taken};
use super::{VmBackend, prepare};
use crate::remote::{RemoteBackend, guest};
use crate::{
    Backend, BoxFuture, Capability, Created, Error, Isolation, Sandbox, SandboxSpec, Swept, Vm,
    VmSize,
};

/// A virtual machine with many sandboxes in it, which share its kernel, memory and processors.
/// Clones share the machine, which ends with the last of them and the last sandbox.
#[derive(Debug, Clone)]
pub struct SharedVm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    machine: Mutex<Option<Machine>>,
    /// Becomes true when the machine has ended.
    ended: watch::Receiver<bool>,
    agent: RemoteBackend,
    images: Images,
    isolation: Isolation,
    slots: Arc<Mutex<Slots>>,
    way: Way,
}

/// The slots of one sandbox's images. Dropping it gives them back after some time, because the
/// sandbox in the guest may still be ending.
#[derive(Debug)]
struct Held {
    slots: Arc<Mutex<Slots>>,
    taken: Vec<(PathBuf, Taken)>,
}

/// What a sandbox holds: its slots, and the machine.
#[derive(Debug)]
struct InSlots {
    held: Held,
    _machine: SharedVm,
}

impl Holds for InSlots {
    fn ends_sandbox(&self) -> bool {
        false
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.held.give_back() })
    }
}

impl SharedVm {
    /// Starts a machine without sandboxes.
    pub(super) async fn start(backend: &VmBackend, size: VmSize) -> Result<Self, Error> {
        let super::Shared { base, images, monitors, .. } = &*backend.0;
        let Base { parts, isolation, .. } = &**base;
        let plan = Plan::new(&parts.settings, size, Disks::Slots)?;
        let empty = monitors.take(plan.share()).await?;
        let mut machine = Machine::start(parts, empty, plan, None).await?;
        let agent = RemoteBackend::with_patience(machine.way(), parts.settings.patience).await?;
        let (tell, ended) = watch::channel(false);
        let watching = machine.watch()?;
        drop(tokio::spawn(async move {
            watching.await;
            // Nobody may wait for it.
            tell.send_replace(true);
        }));
        Ok(Self(Arc::new(Shared {
            way: machine.way(),
            machine: Mutex::new(Some(machine)),
            ended,
            agent,
            images: images.clone(),
            isolation: isolation.clone(),
            slots: Arc::new(Mutex::new(Slots::new(DISKS_MAX))),
        })))
    }

    async fn make(&self, mut spec: SandboxSpec) -> Result<Sandbox<Created>, Error> {
        let Shared { agent, images, isolation, slots, way, .. } = &*self.0;
        prepare(&mut spec, isolation)?;
        let root = images.of_root(&spec.root).await?;
        let (wanted, slots, way) = (root.images(), Arc::clone(slots), way.clone());
        // The slots stay locked until their images are in them: an image that another sandbox
        // finds in a slot is there.
        let held = blocking(move || Held::take(slots, &way, &wanted)).await??;
        spec.root = root.inside(|image| held.place(image));
        let inside = agent.create(spec).await?.into_driver();
        let holds = InSlots { held, _machine: self.clone() };
        Ok(Sandbox::new(Box::new(VmDriver::new(inside, holds))))
    }
}

impl Held {
    /// Takes slots and puts images into them. Blocks.
    fn take(slots: Arc<Mutex<Slots>>, way: &Way, wanted: &[PathBuf]) -> Result<Self, Error> {
        let table = Arc::clone(&slots);
        let mut held = Self { slots, taken: Vec::new() };
        let mut table = lock(&table);
        for image in wanted {
            let exhausted =
                || Error::Exhausted { what: "disks of a virtual machine", max: DISKS_MAX };
            let attached = match table.take(image) {
                None => Err(exhausted()),
                Some(taken) if taken.is_new => {
                    let attached = way.attach(taken.slot, image).map(|()| taken);
                    attached.inspect_err(|_| table.forget(taken.slot))
                }
                Some(taken) => Ok(taken),
            };
            match attached {
                Ok(taken) => held.taken.push((image.clone(), taken)),
                Err(error) => {
                    // No sandbox has them yet.
                    held.give_back_in(&mut table);
                    return Err(error);
                }
            }
        }
        drop(table);
        Ok(held)
    }

    /// Returns where the guest has an image.
    fn place(&self, image: &Path) -> PathBuf {
        let taken = self.taken.iter().find(|(path, _)| path == image).map(|(_, taken)| taken);
        taken.map_or_else(PathBuf::new, |taken| {
            guest::place(u8::try_from(taken.slot).unwrap_or(u8::MAX), taken.generation)
        })
    }

    /// Gives the slots back at once: nothing in the guest uses them.
    fn give_back(mut self) {
        let slots = Arc::clone(&self.slots);
        self.give_back_in(&mut lock(&slots));
    }

    fn give_back_in(&mut self, slots: &mut Slots) {
        self.taken.drain(..).for_each(|(_, taken)| slots.give_back(taken.slot));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        // Not a `Held`: where the runtime ends, the task is dropped, and would start another one.
        let (slots, taken) = (Arc::clone(&self.slots), std::mem::take(&mut self.taken));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                tokio::time::sleep(ENDING_TIME).await;
                let mut slots = lock(&slots);
                taken.iter().for_each(|(_, taken)| slots.give_back(taken.slot));
            }));
        }
    }
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for SharedVm {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(self.make(spec))
    }

    fn isolation(&self) -> Isolation {
        self.0.isolation.clone()
    }

    fn capabilities(&self) -> std::collections::BTreeSet<Capability> {
        self.0.agent.capabilities()
    }

    /// Releases what the guest keeps for later sandboxes.
    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.0.agent.sweep()
    }
}

impl Vm for SharedVm {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.0.ended.clone();
        // An error means that the runtime is ending, which ends the machine.
        Box::pin(async move { drop(ended.wait_for(|ended| *ended).await) })
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        let machine = self.0.machine.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            if let Some(machine) = machine {
                machine.end().await;
            }
        })
    }
}

/// How long a dropped sandbox may take to end in the guest. Lambda gives extensions two seconds.
const ENDING_TIME: Duration = Duration::from_secs(3);
