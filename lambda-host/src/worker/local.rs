//! The worker in this process: it gives each sandbox a task and passes on what it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use lambda_sandbox::{Backend, BoxFuture, Capability, VmProvider};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::Worker;
use super::connection::Connection;
use super::context::Context;
use super::files::Files;
use super::life::{Life, Order};
use super::log::SandboxLog;
use super::making::Maker;
use super::protocol::{
    Boundary, Deployment, Epoch, InterfaceId, InvocationId, RunningSandbox, STREAM_WINDOW,
    SandboxId, StartFault, ToWorker, VERSION, VmId, VmSpec, WorkerCapacity, WorkerCommand,
    WorkerEvent,
};
#[cfg(feature = "roles")]
use super::roles::Roles;
use super::runtime::Runtimes;
use super::specification::log_stream;
use super::stream::Credits;
use super::vms::Vms;
use crate::code::CodeStore;
use crate::network::InterfaceProvider;

/// Runs sandboxes of one backend on this machine.
///
/// Its methods are called on a tokio runtime.
#[derive(Debug)]
pub struct LocalWorker {
    context: Arc<Context>,
    capacity: WorkerCapacity,
    live: Arc<Mutex<BTreeMap<SandboxId, Handle>>>,
    vms: Option<Arc<Vms>>,
}

/// The worker's end of a sandbox's task.
#[derive(Debug)]
struct Handle {
    /// Unbounded, but the manager has one command under way for a sandbox, and a stop.
    orders: mpsc::UnboundedSender<Order>,
    kill: Arc<Notify>,
    credits: Credits,
    running: RunningSandbox,
}

impl LocalWorker {
    /// Returns a worker whose sandboxes `backend` makes, and which keeps code in `code`; what is
    /// not there it fetches from its host. It runs the runtimes in `runtimes` and has
    /// `memory_bytes` for sandboxes.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        runtimes: Arc<Runtimes>,
        code: CodeStore,
        memory_bytes: u64,
    ) -> Self {
        let (running, _) = watch::channel(0);
        let context = Context {
            backend,
            runtimes,
            code,
            stream_bytes_per_second: None,
            #[cfg(feature = "roles")]
            roles: None,
            snapshots: false,
            interfaces: None,
            epoch: Epoch(uuid::Uuid::new_v4().as_u64_pair().0),
            running,
            connection: OnceLock::new(),
            own_layers: Mutex::default(),
        };
        let capacity = WorkerCapacity::of_memory(memory_bytes);
        Self { context: Arc::new(context), capacity, live: Arc::default(), vms: None }
    }

    /// Limits the bandwidth of each streamed answer after its first 6 MiB. Has no effect once the
    /// worker is connected.
    #[must_use]
    pub fn with_stream_bandwidth(mut self, bytes_per_second: Option<u64>) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            context.stream_bytes_per_second = bytes_per_second;
        }
        self
    }

    /// Gives sandboxes the credentials of their function's role. Has no effect once the worker is
    /// connected.
    #[cfg(feature = "roles")]
    #[must_use]
    pub fn with_roles(mut self, roles: Option<Arc<Roles>>) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            context.roles = roles;
        }
        self
    }

    /// Attaches sandboxes to the network interfaces of a provider. Has no effect once the worker is
    /// connected.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: Option<Arc<dyn InterfaceProvider>>) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            let attaches = interfaces.is_some() && self.vms.is_none();
            self.capacity.interface_slots = if attaches { u32::MAX } else { 0 };
            context.interfaces = interfaces;
        }
        self
    }

    /// Makes sandboxes in the VMs of a provider instead of by the backend. They are attached to no
    /// network interfaces. With [`Boundary::Sandbox`] nothing changes. With
    /// [`Boundary::VmPerSandbox`], a provider with
    /// [`Capability::Snapshots`](lambda_sandbox::Capability::Snapshots) makes each VM with its
    /// sandbox. Has no effect once the worker is connected.
    #[must_use]
    pub fn with_vms(mut self, provider: Arc<dyn VmProvider>, boundary: Boundary) -> Self {
        self.capacity.boundary = boundary;
        if boundary != Boundary::Sandbox {
            self.capacity.interface_slots = 0;
            let snapshots = has_snapshots(&*provider, boundary);
            if let Some(context) = Arc::get_mut(&mut self.context) {
                context.snapshots = snapshots;
            }
            self.vms = Some(Vms::new(provider, snapshots));
        }
        self
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Handle>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        sandbox: SandboxId,
        deployment: Box<Deployment>,
        interface: Option<InterfaceId>,
        vm: Option<VmId>,
    ) {
        let backend = match (vm, &self.vms) {
            (None, _) => Some(Arc::clone(&self.context.backend)),
            (Some(vm), vms) => vms.as_ref().and_then(|vms| vms.backend(vm, deployment.account)),
        };
        let Some(backend) = backend else {
            let fault = StartFault::Worker { reason: "its virtual machine is gone".to_owned() };
            return self.tell_soon(WorkerEvent::Failed { sandbox, fault });
        };
        let (orders, received) = mpsc::unbounded_channel();
        let kill = Arc::new(Notify::new());
        let running = RunningSandbox {
            sandbox,
            function: deployment.config.name.clone(),
            account: deployment.account,
            version: deployment.version,
            deployment: deployment.number,
            interface,
            vm,
            invocation: None,
        };
        let credits = Credits::new(Semaphore::new(0));
        let (kill_it, its_credits) = (Arc::clone(&kill), Arc::clone(&credits));
        let handle = Handle { orders, kill: kill_it, credits: its_credits, running };
        self.live().insert(sandbox, handle);
        let ready = Arc::new(AtomicBool::new(false));
        let stream = log_stream(&deployment, sandbox, SystemTime::now());
        let log = Arc::new(SandboxLog::new(stream, &deployment.config.logging));
        let deployment: Arc<Deployment> = deployment.into();
        let maker = Maker {
            backend,
            context: Arc::clone(&self.context),
            deployment: Arc::clone(&deployment),
            interface,
            files: Files::of(&deployment, &self.context.code),
            log: Arc::clone(&log),
        };
        let life = Life {
            context: Arc::clone(&self.context),
            sandbox,
            deployment,
            maker,
            kill,
            credits,
            log,
            ready: Arc::clone(&ready),
            frozen: Mutex::default(),
        };
        let counted = Counted::new(Arc::clone(&self.context));
        // Not held: the orders of every task end with the worker, and the task with them.
        let live = Arc::downgrade(&self.live);
        let task = tokio::spawn(life.run(received));
        drop(tokio::spawn(async move {
            let last = task.await.unwrap_or_else(|error| {
                tracing::error!(%error, sandbox = sandbox.0, "a sandbox's task ended early");
                after_panic(sandbox, ready.load(Ordering::Relaxed))
            });
            // Taken out first: a command that comes now hears that the sandbox is gone.
            if let Some(live) = live.upgrade() {
                drop(live.lock().unwrap_or_else(PoisonError::into_inner).remove(&sandbox));
            }
            counted.0.tell(last).await;
        }));
    }

    fn start_vm(&self, running: VmSpec) {
        let vm = running.vm;
        let Some(vms) = &self.vms else {
            let reason = Some("this worker has no virtual machines".to_owned());
            return self.tell_soon(WorkerEvent::VmGone { vm, reason });
        };
        let life = vms.start(running, Arc::clone(&self.context));
        let counted = Counted::new(Arc::clone(&self.context));
        let live = Arc::downgrade(&self.live);
        drop(tokio::spawn(async move {
            let reason = life.await;
            if let Some(live) = live.upgrade() {
                let live = live.lock().unwrap_or_else(PoisonError::into_inner);
                let inside = live.values().filter(|handle| handle.running.vm == Some(vm));
                inside.for_each(|handle| handle.kill.notify_one());
            }
            counted.0.tell(WorkerEvent::VmGone { vm, reason }).await;
        }));
    }

    /// Sends an order to a sandbox's task; tells whether there is one.
    fn order(&self, sandbox: SandboxId, order: Order) -> bool {
        let mut live = self.live();
        let Some(handle) = live.get_mut(&sandbox) else {
            return false;
        };
        if let Order::Run(invocation) = &order {
            handle.running.invocation = Some(invocation.id);
        }
        handle.orders.send(order).is_ok()
    }

    fn kill(&self, sandbox: SandboxId) -> bool {
        self.live().get(&sandbox).map(|handle| handle.kill.notify_one()).is_some()
    }

    fn tell_soon(&self, event: WorkerEvent) {
        let context = Arc::clone(&self.context);
        drop(tokio::spawn(async move { context.tell(event).await }));
    }

    fn refuse(&self, sandbox: SandboxId, invocation: InvocationId) {
        self.tell_soon(WorkerEvent::Refused { sandbox, invocation });
    }
}

impl Worker for LocalWorker {
    fn connect(&self, connection: Connection) {
        let beat_interval = connection.beat_interval();
        if self.context.connection.set(connection).is_err() {
            tracing::error!("a worker is connected twice; the second host is not served");
            return;
        }
        let (context, capacity) = (Arc::downgrade(&self.context), self.capacity);
        let sandboxes = self.live().values().map(|handle| handle.running.clone()).collect();
        let vms = self.vms.as_ref().map(|vms| vms.running()).unwrap_or_default();
        drop(tokio::spawn(async move {
            if let Some(context) = context.upgrade() {
                context.tell(WorkerEvent::Joined { capacity, sandboxes, vms }).await;
            }
            let Some(interval) = beat_interval else { return };
            loop {
                tokio::time::sleep(interval).await;
                let Some(context) = context.upgrade() else { return };
                context.tell(WorkerEvent::Beat).await;
            }
        }));
    }

    fn carry_out(&self, message: ToWorker) {
        if message.version != VERSION {
            tracing::error!(version = message.version, "a command of another protocol version");
            return;
        }
        match message.command {
            WorkerCommand::Start { sandbox, deployment, interface, vm } => {
                self.start(sandbox, deployment, interface, vm);
            }
            WorkerCommand::StartVm { vm } => self.start_vm(vm),
            WorkerCommand::StopVm { vm } => {
                if !self.vms.as_ref().is_some_and(|vms| vms.stop(vm)) {
                    self.tell_soon(WorkerEvent::VmGone { vm, reason: None });
                }
            }
            WorkerCommand::Dispatch { sandbox, invocation } => {
                let id = invocation.id;
                if !self.order(sandbox, Order::Run(invocation)) {
                    self.refuse(sandbox, id);
                }
            }
            WorkerCommand::Read { sandbox, invocation, parts } => {
                if let Some(handle) = self.live().get(&sandbox)
                    && handle.running.invocation == Some(invocation)
                {
                    handle.credits.add_permits(parts.min(STREAM_WINDOW) as usize);
                }
            }
            WorkerCommand::Stop { sandbox } => {
                if !self.order(sandbox, Order::Stop) && !self.kill(sandbox) {
                    self.tell_soon(WorkerEvent::Gone { sandbox });
                }
            }
            WorkerCommand::Kill { sandbox } => {
                if !self.kill(sandbox) {
                    self.tell_soon(WorkerEvent::Gone { sandbox });
                }
            }
        }
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut running = self.context.running.subscribe();
            // The sender lives in `self`.
            drop(running.wait_for(|count| *count == 0).await);
        })
    }
}

/// Returns whether sandboxes can start from snapshots.
pub(crate) fn has_snapshots(provider: &dyn VmProvider, boundary: Boundary) -> bool {
    let is_alone = boundary == Boundary::VmPerSandbox;
    is_alone && provider.capabilities().contains(&Capability::Snapshots)
}

/// Counts one running task for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<Context>);

impl Counted {
    fn new(context: Arc<Context>) -> Self {
        context.running.send_modify(|count| *count += 1);
        Self(context)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

/// The last event of a sandbox whose task ended in the middle; the sandbox went with the task.
fn after_panic(sandbox: SandboxId, ready: bool) -> WorkerEvent {
    if ready {
        return WorkerEvent::Gone { sandbox };
    }
    let reason = "the worker's task for the sandbox ended early".to_owned();
    WorkerEvent::Failed { sandbox, fault: StartFault::Worker { reason } }
}

/// The machine's memory less an eighth, which is left to the host and the system. Blocks for a read
/// of `/proc`.
pub(crate) fn machine_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib =
        total.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse::<u64>().ok());
    kib.map_or(DEFAULT_MEMORY_BYTES, |kib| kib * 1024 / 8 * 7)
}

/// Memory for sandboxes where the machine does not tell its own.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
