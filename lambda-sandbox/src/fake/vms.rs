//! Virtual machines that are none: each is a fake backend with an end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::FakeBackend;
use crate::{
    Backend, BoxFuture, Capability, Created, Error, Isolation, Killer, Sandbox, SandboxSpec, Swept,
    Vm, VmProvider, VmSize,
};

/// Starts fake virtual machines, whose sandboxes run the closures of a [`FakeBackend`]. Clones
/// share the machines.
#[derive(Debug, Clone)]
pub struct FakeVms {
    backend: FakeBackend,
    start_time: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    refuses: AtomicBool,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Arc<Inside>>>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Inside>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeVms {
    /// Creates a provider of machines that start at once.
    #[must_use]
    pub fn new(backend: FakeBackend) -> Self {
        Self { backend, start_time: Duration::ZERO, shared: Arc::default() }
    }

    /// Sets how long the start of a machine takes.
    #[must_use]
    pub fn with_start_time(mut self, start_time: Duration) -> Self {
        self.start_time = start_time;
        self
    }

    /// Sets whether machines fail to start from now on.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Returns how many sandboxes each running machine has had, by the order of their starts.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        self.shared.running().values().map(|inside| inside.killers().len()).collect()
    }

    /// Ends all machines, as if their monitors had crashed.
    pub fn crash(&self) {
        let running: Vec<_> = self.shared.running().values().cloned().collect();
        running.iter().for_each(|inside| inside.end());
    }
}

/// The inside of one machine.
struct Inside {
    backend: FakeBackend,
    killers: Mutex<Vec<Killer>>,
    ended: watch::Sender<bool>,
}

impl Inside {
    fn killers(&self) -> MutexGuard<'_, Vec<Killer>> {
        self.killers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.ended.send_replace(true);
        self.killers().iter().for_each(Killer::kill);
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

/// A fake machine.
#[derive(Debug)]
struct FakeVm {
    number: u64,
    inside: Arc<Inside>,
    shared: Arc<Shared>,
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        self.inside.end();
        drop(self.shared.running().remove(&self.number));
    }
}

impl Vm for FakeVm {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(FakeInside(Arc::clone(&self.inside)))
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.inside.ended.subscribe();
        // The sender lives as long as the machine.
        Box::pin(async move { drop(ended.wait_for(|ended| *ended).await) })
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.inside.end();
            drop(self.shared.running().remove(&self.number));
        })
    }
}

/// The backend of one machine.
#[derive(Debug)]
struct FakeInside(Arc<Inside>);

impl Backend for FakeInside {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            let sandbox = self.0.backend.create(spec).await?;
            self.0.killers().push(sandbox.killer());
            if *self.0.ended.borrow() { Err(Error::Ended) } else { Ok(sandbox) }
        })
    }

    fn isolation(&self) -> Isolation {
        self.0.backend.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.backend.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.0.backend.sweep()
    }
}

impl Backend for FakeVms {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        self.backend.create(spec)
    }

    fn isolation(&self) -> Isolation {
        self.backend.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.backend.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.backend.sweep()
    }
}

impl VmProvider for FakeVms {
    fn start_vm(&self, _size: VmSize) -> BoxFuture<'_, Result<Box<dyn Vm>, Error>> {
        Box::pin(async move {
            tokio::time::sleep(self.start_time).await;
            if self.shared.refuses.load(Ordering::SeqCst) {
                return Err(Error::Unavailable {
                    what: "a virtual machine",
                    why: "the fake refuses".into(),
                    remedy: "ask it to start some",
                });
            }
            let number = self.shared.next.fetch_add(1, Ordering::SeqCst);
            let inside = Arc::new(Inside {
                backend: self.backend.clone(),
                killers: Mutex::default(),
                ended: watch::channel(false).0,
            });
            self.shared.running().insert(number, Arc::clone(&inside));
            let vm = FakeVm { number, inside, shared: Arc::clone(&self.shared) };
            Ok(Box::new(vm) as Box<dyn Vm>)
        })
    }
}
