//! A pool of machines that were restored from snapshots before they are needed. Each is paused and
//! has a connection to its agent. No instruction of the function has run since the restore: the
//! sandbox stays frozen until a connection adopts it, and the agent gets the seed and the time
//! first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::base::{Base, seed};
use super::blocking::blocking;
use super::driver::VmDriver;
use super::events::VmEvent;
use super::machine::{Disks, Machine, Plan};
use super::monitor::Empty;
use super::snapshots::{Key, Snapshot};
use super::stock::{Kept, Room, Stock};
use crate::remote::Ahead;
use crate::{BoxFuture, Created, Error, Sandbox, SandboxSpec, VmSize};

/// A restored machine that stands still.
#[derive(Debug)]
pub(super) struct Restored {
    machine: Machine,
    ahead: Ahead,
}

/// What clones of one snapshot are made from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) disks: Vec<PathBuf>,
    pub(super) size: VmSize,
}

impl Source {
    pub(super) fn plan(&self, base: &Base) -> Result<Plan, Error> {
        Plan::new(&base.parts.settings, self.size, Disks::Images(self.disks.clone()))
    }
}

impl Restored {
    /// Restores a machine, connects to its agent, and stops it. Returns `None` if the snapshot is
    /// gone.
    pub(super) async fn make(
        base: &Base,
        key: &Key,
        source: &Source,
    ) -> Result<Option<Self>, Error> {
        let Some(snapshot) = base.in_snapshots(key, |all, key| all.open(key)).await? else {
            return Ok(None);
        };
        let plan = source.plan(base)?;
        let empty = Empty::make(&base.parts, plan.share()).await?;
        let machine = Machine::start(&base.parts, empty, plan, Some(snapshot)).await?;
        let ahead = base.connect(&machine).await?;
        let way = machine.way();
        blocking(move || way.pause()).await??;
        Ok(Some(Self { machine, ahead }))
    }

    /// Lets the machine go on, and gives out its sandbox.
    pub(super) async fn adopt(self, spec: &SandboxSpec) -> Result<Sandbox<Created>, Error> {
        let Self { machine, ahead } = self;
        let way = machine.way();
        blocking(move || way.resume()).await??;
        let sandbox = ahead.adopt(spec, seed()?, SystemTime::now()).await?;
        Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
    }

    /// Ends the machine, and waits until nothing of it is left.
    pub(super) async fn end(self) {
        self.machine.end().await;
    }
}

impl Kept for Restored {
    fn is_alive(&mut self) -> bool {
        self.machine.is_alive()
    }
}

/// The restored machines that are kept ready of each snapshot.
#[derive(Debug)]
pub(super) struct Clones {
    base: Arc<Base>,
    stock: Stock<Key, Source, Restored>,
}

impl Clones {
    /// Must be called in a tokio runtime.
    pub(super) fn new(base: &Arc<Base>) -> Self {
        let settings = &base.parts.settings;
        let room = Room { each: settings.clones_ready, bytes_max: settings.ready_bytes_max };
        let (makes, tells) = (Arc::clone(base), Arc::clone(base));
        let make = Box::new(move |key: Key, source: Source| {
            let base = Arc::clone(&makes);
            Box::pin(async move { Restored::make(&base, &key, &source).await }) as BoxFuture<'_, _>
        });
        let failed = move |_: &Key, error| {
            tells.teller.tell(VmEvent::NotReady { error: Arc::new(error) });
        };
        Self { base: Arc::clone(base), stock: Stock::new(room, make, failed) }
    }

    pub(super) fn take(&self, key: &Key) -> Option<Restored> {
        self.stock.take(key)
    }

    /// Has machines of a snapshot kept ready from now on.
    pub(super) fn want(&self, key: Key, source: Source) {
        // A plan that cannot be made is an error of the sandbox that needs it.
        if let Ok(plan) = source.plan(&self.base) {
            self.stock.want(key, source, plan.bytes());
        }
    }

    /// Ends the machines of a snapshot.
    pub(super) fn forget(&self, key: &Key) {
        self.stock.forget(key);
    }

    pub(super) fn ready(&self) -> usize {
        self.stock.ready()
    }

    /// Ends all machines, and waits until nothing of them is left.
    pub(super) async fn clear(&self) {
        for restored in self.stock.clear() {
            restored.end().await;
        }
    }
}

/// Restores a machine at once, and gives out its sandbox.
pub(super) async fn restore(
    base: &Base,
    empty: Empty,
    plan: Plan,
    snapshot: Snapshot,
    spec: &SandboxSpec,
) -> Result<Sandbox<Created>, Error> {
    let machine = Machine::start(&base.parts, empty, plan, Some(snapshot)).await?;
    let ahead = base.connect(&machine).await?;
    let sandbox = ahead.adopt(spec, seed()?, SystemTime::now()).await?;
    Ok(Sandbox::new(Box::new(VmDriver::new(sandbox.into_driver(), machine))))
}
