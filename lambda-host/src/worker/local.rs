//! The worker in this process: it gives each sandbox a task and passes on what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lambda_sandbox::Backend;
use tokio::sync::{Notify, mpsc, watch};

use crate::catalog::code::CodeStore;
use crate::catalog::registry::Function;
use crate::function::arn::Arns;
use crate::manager::driver::Message;
use crate::worker::life::{Life, SandboxLog};
use crate::worker::protocol::{Invocation, SandboxNumber, Worker, WorkerCommand, WorkerEvent};
use crate::worker::runtime::Runtimes;

/// Runs sandboxes of one backend on this machine.
#[derive(Debug)]
pub(crate) struct LocalWorker {
    shared: Arc<Shared>,
    live: Mutex<BTreeMap<SandboxNumber, Handle>>,
}

/// What every sandbox's task needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) arns: Arns,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) code: Arc<CodeStore>,
    #[cfg(feature = "roles")]
    pub(crate) roles: Option<crate::Roles>,
    events: mpsc::WeakSender<Message>,
    /// How many tasks run.
    pub(crate) running: watch::Sender<usize>,
}

/// The worker's end of a sandbox's task.
#[derive(Debug)]
struct Handle {
    /// Unbounded, but the driver has one command under way for a sandbox, and a stop.
    orders: mpsc::UnboundedSender<Order>,
    kill: Arc<Notify>,
    code: String,
}

/// What a sandbox's task is told.
#[derive(Debug)]
pub(crate) enum Order {
    Run(Invocation),
    Stop,
}

impl LocalWorker {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        arns: Arns,
        runtimes: Arc<Runtimes>,
        code: Arc<CodeStore>,
        events: mpsc::WeakSender<Message>,
        #[cfg(feature = "roles")] roles: Option<crate::Roles>,
    ) -> Self {
        let (running, _) = watch::channel(0);
        let shared = Shared {
            backend,
            arns,
            runtimes,
            code,
            #[cfg(feature = "roles")]
            roles,
            events,
            running,
        };
        Self { shared: Arc::new(shared), live: Mutex::default() }
    }

    /// Returns the digests of the code that live sandboxes run.
    pub(crate) fn code_in_use(&self) -> BTreeSet<String> {
        self.live().values().map(|handle| handle.code.clone()).collect()
    }

    /// Waits until no sandbox is left.
    pub(crate) async fn ended(&self) {
        let mut running = self.shared.running.subscribe();
        // The sender lives in `self`.
        drop(running.wait_for(|count| *count == 0).await);
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<SandboxNumber, Handle>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, sandbox: SandboxNumber, function: Arc<Function>) {
        let (orders, received) = mpsc::unbounded_channel();
        let kill = Arc::new(Notify::new());
        let handle = Handle { orders, kill: Arc::clone(&kill), code: function.code.hex() };
        self.live().insert(sandbox, handle);
        self.shared.running.send_modify(|count| *count += 1);
        let log = Arc::new(SandboxLog::default());
        let life = Life { shared: Arc::clone(&self.shared), sandbox, function, kill, log };
        drop(tokio::spawn(life.run(received)));
    }
}

impl Worker for LocalWorker {
    fn carry_out(&self, command: WorkerCommand) {
        match command {
            WorkerCommand::Start { sandbox, function } => self.start(sandbox, function),
            WorkerCommand::Dispatch { sandbox, invocation } => {
                let sent = match self.live().get(&sandbox) {
                    Some(handle) => handle.orders.send(Order::Run(invocation.clone())).is_ok(),
                    None => false,
                };
                if !sent {
                    let refused = WorkerEvent::Refused { sandbox, invocation: invocation.number };
                    self.shared.tell_soon(refused);
                }
            }
            WorkerCommand::Stop { sandbox } => {
                if let Some(handle) = self.live().remove(&sandbox) {
                    // A task that has ended has told so already.
                    drop(handle.orders.send(Order::Stop));
                }
            }
            WorkerCommand::Kill { sandbox } => {
                if let Some(handle) = self.live().remove(&sandbox) {
                    handle.kill.notify_one();
                }
            }
            WorkerCommand::Forget { sandbox } => drop(self.live().remove(&sandbox)),
        }
    }
}

impl Shared {
    pub(crate) async fn tell(&self, event: WorkerEvent) {
        if let Some(events) = self.events.upgrade() {
            // An error means that the driver has ended: nobody listens.
            drop(events.send(Message::Worker(event)).await);
        }
    }

    fn tell_soon(self: &Arc<Self>, event: WorkerEvent) {
        let shared = Arc::clone(self);
        drop(tokio::spawn(async move { shared.tell(event).await }));
    }
}
