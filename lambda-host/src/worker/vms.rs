//! The VMs of a worker: each has a task, which starts it, waits for its end or for a command to
//! stop it, and tells the host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lambda_sandbox::{
    Backend, BoxFuture, Capability, Completed, Created, Error, Isolation, Sandbox, SandboxSpec,
    Swept, Vm, VmProvider, VmSize,
};
use tokio::sync::oneshot;

use super::context::Context;
use super::protocol::{VmId, VmSpec, WorkerEvent};
use crate::error::with_causes;
use crate::function::account::AccountIndex;

/// The VMs of a worker.
#[derive(Debug)]
pub(super) struct Vms {
    provider: Arc<dyn VmProvider>,
    /// Whether the provider makes each VM with its one sandbox.
    made_with_sandbox: bool,
    held: Mutex<BTreeMap<VmId, Held>>,
}

#[derive(Debug)]
struct Held {
    running: VmSpec,
    /// `None` while it starts.
    vm: Option<Arc<dyn Vm>>,
    /// Ends the VM when it is used or dropped.
    stop: Option<oneshot::Sender<()>>,
}

impl Vms {
    pub(super) fn new(provider: Arc<dyn VmProvider>, made_with_sandbox: bool) -> Arc<Self> {
        Arc::new(Self { provider, made_with_sandbox, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<VmId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the VMs that are ready.
    pub(super) fn running(&self) -> Vec<VmSpec> {
        let held = self.held();
        held.values().filter(|held| held.vm.is_some()).map(|held| held.running).collect()
    }

    /// Returns the backend of a VM that is ready, for a sandbox of an account.
    pub(super) fn backend(&self, vm: VmId, account: AccountIndex) -> Option<Arc<dyn Backend>> {
        let mut held = self.held();
        let held = held.get_mut(&vm)?;
        held.running.account = Some(account);
        Some(held.vm.as_ref()?.backend())
    }

    /// Stops a VM. Returns whether it is there.
    pub(super) fn stop(&self, vm: VmId) -> bool {
        let mut held = self.held();
        let Some(held) = held.get_mut(&vm) else { return false };
        if let Some(stop) = held.stop.take() {
            // An error means that it has ended by itself.
            stop.send(()).unwrap_or_default();
        }
        true
    }

    /// Starts a VM. The returned future ends when nothing of the VM is left, with the reason if it
    /// was not stopped.
    pub(super) fn start(
        self: &Arc<Self>,
        running: VmSpec,
        context: Arc<Context>,
    ) -> impl Future<Output = Option<String>> + use<> {
        let (stop, stopped) = oneshot::channel();
        self.held().insert(running.vm, Held { running, vm: None, stop: Some(stop) });
        let provider: Arc<dyn VmProvider> = match self.made_with_sandbox {
            true => Arc::new(WithSandbox(Arc::clone(&self.provider))),
            false => Arc::clone(&self.provider),
        };
        // Not held: the VMs end with the worker.
        let vms = Arc::downgrade(self);
        async move {
            let reason = live(&*provider, running, &vms, &context, stopped).await;
            if let Some(vms) = vms.upgrade() {
                vms.held().remove(&running.vm);
            }
            reason
        }
    }
}

/// Starts VMs that are there when their sandbox is made, and end with it.
#[derive(Debug)]
struct WithSandbox(Arc<dyn VmProvider>);

impl VmProvider for WithSandbox {
    fn start_vm(&self, _size: VmSize) -> BoxFuture<'_, Result<Box<dyn Vm>, Error>> {
        let vm = Self(Arc::clone(&self.0));
        Box::pin(async { Ok(Box::new(vm) as Box<dyn Vm>) })
    }
}

impl Vm for WithSandbox {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0) as Arc<dyn Backend>
    }

    /// Its sandbox tells when it has ended.
    fn ended(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

impl Backend for WithSandbox {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        self.0.create(spec)
    }

    fn run(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Completed, Error>> {
        self.0.run(spec)
    }

    fn isolation(&self) -> Isolation {
        self.0.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.0.sweep()
    }
}

/// Lives the life of a VM.
async fn live(
    provider: &dyn VmProvider,
    running: VmSpec,
    vms: &Weak<Vms>,
    context: &Context,
    mut stopped: oneshot::Receiver<()>,
) -> Option<String> {
    let size = VmSize::of_memory(running.memory_bytes);
    let mut starting = provider.start_vm(size);
    let started = tokio::select! {
        started = &mut starting => started,
        _ = &mut stopped => {
            // Dropping it would release it in the background: something might be left when the
            // worker says that it has ended.
            if let Ok(vm) = starting.await {
                vm.end().await;
            }
            return None;
        }
    };
    let vm: Arc<dyn Vm> = match started {
        Ok(vm) => vm.into(),
        Err(error) => return Some(with_causes(&error)),
    };
    if let Some(vms) = vms.upgrade()
        && let Some(held) = vms.held().get_mut(&running.vm)
    {
        held.vm = Some(Arc::clone(&vm));
    }
    context.tell(WorkerEvent::VmReady { vm: running.vm }).await;
    let reason = tokio::select! {
        () = vm.ended() => Some("the virtual machine has ended".to_owned()),
        _ = &mut stopped => None,
    };
    vm.end().await;
    reason
}
