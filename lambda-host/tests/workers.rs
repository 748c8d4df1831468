//! Workers: several serve one host, their messages can cross machines, and the loss of one affects
//! no other.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_host::code::{CodeStore, FetchCode};
use lambda_host::worker::protocol::{
    FromWorker, SandboxId, StartFault, ToWorker, WorkerCommand, WorkerEvent, WorkerId,
};
use lambda_host::worker::{Connection, LocalWorker, Worker};
use lambda_host::{Answer, Error, Host, HostEvent, Runtimes};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use lambda_sandbox::{BoxFuture, Invocation};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::common::{SECOND, config, echo, named, zip};

/// A worker behind a wire: every message crosses the wire as JSON, and the worker has its own code
/// folder.
#[derive(Debug)]
struct Far {
    worker: LocalWorker,
    _folder: tempfile::TempDir,
    /// The task that carries events to the host, taken when the wire is cut.
    wire: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Far {
    fn new(backend: &FakeBackend) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let code = CodeStore::open(folder.path().join("code")).unwrap();
        let runtimes = Arc::new(Runtimes::default());
        let worker = LocalWorker::new(Arc::new(backend.clone()), runtimes, code, 1 << 30);
        Arc::new(Self { worker, _folder: folder, wire: Mutex::default() })
    }

    /// Cuts the wire: the host gets no more events, as if the machine were gone.
    fn cut(&self) {
        self.wire.lock().unwrap().take().unwrap().abort();
    }
}

impl Worker for Far {
    fn connect(&self, connection: Connection) {
        let code = Arc::clone(connection.code());
        let (far, mut events) = Connection::pair(connection.worker(), code, None, 16);
        self.worker.connect(far);
        let wire = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let json = serde_json::to_vec(&event).unwrap();
                let event: FromWorker = serde_json::from_slice(&json).unwrap();
                if connection.forward(event).await.is_err() {
                    return;
                }
            }
        });
        *self.wire.lock().unwrap() = Some(wire);
    }

    fn carry_out(&self, message: ToWorker) {
        let json = serde_json::to_vec(&message).unwrap();
        self.worker.carry_out(serde_json::from_slice(&json).unwrap());
    }

    fn ended(&self) -> BoxFuture<'_, ()> {
        self.worker.ended()
    }
}

async fn burst(host: &Host, name: &'static str, count: usize) -> Vec<Result<Answer, Error>> {
    let mut set = JoinSet::new();
    for _ in 0..count {
        let host = host.clone();
        set.spawn(async move { host.invoke(name, "1").await });
    }
    set.join_all().await
}

/// Sandboxes spread over two workers. When one worker is lost, its invocations are answered as
/// lost, and all others go on.
#[tokio::test(start_paused = true)]
async fn one_of_two_workers_is_lost_and_nothing_else_notices() {
    let (near, far) = (echo(), echo());
    let host = Host::builder(Arc::new(near.clone())).with_memory_mb(1024).start().await.unwrap();
    let worker = Far::new(&far);
    let id = host.add_worker(Arc::clone(&worker) as Arc<dyn Worker>).await.unwrap();
    assert_ne!(id, WorkerId(0));
    let mut events = host.events();
    host.deploy(config(), zip("1")).await.unwrap();

    let answers = burst(&host, "f", 10).await;
    assert!(answers.iter().all(|it| it.as_ref().is_ok_and(|answer| !answer.function_error)));
    assert_eq!(near.live() + far.live(), 10);
    assert!(near.live() >= 3 && far.live() >= 3, "spread: {} and {}", near.live(), far.live());
    let mut workers = BTreeSet::new();
    while let Ok(event) = events.try_recv() {
        if let HostEvent::SandboxStarting { worker, .. } = event {
            workers.insert(worker);
        }
    }
    assert_eq!(workers, BTreeSet::from([WorkerId(0), id]));

    let lost = far.live();
    let running = tokio::spawn({
        let host = host.clone();
        async move { burst(&host, "f", 10).await }
    });
    tokio::time::sleep(SECOND / 2).await;
    worker.cut();
    let answers = running.await.unwrap();
    let failed = answers.iter().filter(|it| it.as_ref().unwrap().function_error).count();
    assert_eq!(failed, lost, "those that ran there, and no other");

    // The remaining worker serves all calls: first with warm sandboxes, then with new ones, until
    // its memory is full.
    let answers = burst(&host, "f", 8).await;
    assert!(answers.iter().all(|it| it.as_ref().is_ok_and(|answer| !answer.function_error)));
    assert_eq!(near.live(), 8);
    host.shutdown().await;
    assert_eq!(near.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_memory_cannot_be_used_is_refused() {
    let started = Host::builder(Arc::new(echo())).with_memory_mb(0).start().await;
    assert!(matches!(&started, Err(Error::Worker { worker: 0, .. })), "{started:?}");
    let started = Host::builder(Arc::new(echo())).with_memory_mb(u64::MAX >> 20).start().await;
    assert!(matches!(&started, Err(Error::Worker { .. })), "{started:?}");
}

/// A worker that is connected to the test instead of a host.
struct Bench {
    worker: LocalWorker,
    events: mpsc::Receiver<FromWorker>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(backend: FakeBackend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let code = CodeStore::open(folder.path()).unwrap();
        let fetch: Arc<dyn FetchCode> = Arc::new(code.clone());
        let worker =
            LocalWorker::new(Arc::new(backend), Arc::new(Runtimes::default()), code, 1 << 30);
        let (connection, mut events) = Connection::pair(WorkerId(7), fetch, None, 16);
        worker.connect(connection);
        let joined = events.recv().await.unwrap();
        assert!(matches!(joined.event, WorkerEvent::Joined { .. }));
        Self { worker, events, _folder: folder }
    }

    fn carry_out(&self, command: WorkerCommand) {
        self.worker.carry_out(ToWorker::new(WorkerId(7), command));
    }

    async fn event(&mut self) -> WorkerEvent {
        tokio::time::timeout(SECOND, self.events.recv()).await.unwrap().unwrap().event
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_a_worker_does_not_have_is_told_as_gone() {
    let mut bench = Bench::new(echo()).await;
    let sandbox = SandboxId(42);
    for command in [WorkerCommand::Stop { sandbox }, WorkerCommand::Kill { sandbox }] {
        bench.carry_out(command);
        let event = bench.event().await;
        assert!(matches!(event, WorkerEvent::Gone { sandbox: SandboxId(42) }), "{event:?}");
    }
}

/// Code that cannot be fetched fails the start, as a fault of the worker.
#[tokio::test(start_paused = true)]
async fn code_that_cannot_be_fetched_is_the_workers_fault() {
    let seen = Arc::new(Mutex::new(None));
    let host = Host::builder(Arc::new(echo())).with_memory_mb(128).start().await.unwrap();
    #[derive(Debug)]
    struct Spy(Arc<Mutex<Option<ToWorker>>>, Mutex<Option<Connection>>);
    impl Worker for Spy {
        fn connect(&self, connection: Connection) {
            let joined = WorkerEvent::Joined {
                capacity: lambda_host::worker::protocol::WorkerCapacity::of_memory(1 << 30),
                sandboxes: Vec::new(),
                vms: Vec::new(),
            };
            *self.1.lock().unwrap() = Some(connection.clone());
            drop(tokio::spawn(async move {
                connection.send(lambda_host::worker::protocol::Epoch(1), joined).await
            }));
        }
        fn carry_out(&self, message: ToWorker) {
            *self.0.lock().unwrap() = Some(message);
        }
        fn ended(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }
    host.add_worker(Arc::new(Spy(Arc::clone(&seen), Mutex::default()))).await.unwrap();
    // The function is too large for the first worker, so its sandbox starts on the spy.
    host.deploy(named("large").with_memory_mb(512), zip("1")).await.unwrap();
    drop(tokio::time::timeout(SECOND, host.invoke("large", "1")).await);
    let message = seen.lock().unwrap().take().unwrap();
    let WorkerCommand::Start { deployment, .. } = message.command else { panic!("{message:?}") };
    assert_eq!(deployment.config.memory_mb, 512);

    // The same command, sent to a worker whose host does not have the code.
    let mut bench = Bench::new(echo()).await;
    bench.carry_out(WorkerCommand::Start {
        sandbox: SandboxId(1),
        deployment,
        interface: None,
        vm: None,
    });
    let mut event = bench.event().await;
    if matches!(event, WorkerEvent::Logged { .. }) {
        event = bench.event().await;
    }
    let WorkerEvent::Failed { fault: StartFault::Worker { reason }, .. } = &event else {
        panic!("{event:?}");
    };
    assert!(reason.contains("code"), "{reason}");
}

/// A panic in a sandbox's task loses its invocation alone: its memory is free again, and the host
/// can stop.
#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_task_panics_is_gone() {
    let backend = echo().with_handler("panics", |_: &Invocation| -> FakeAnswer {
        panic!("a fault of the backend")
    });
    let host = Host::builder(Arc::new(backend.clone())).with_memory_mb(128).start().await.unwrap();
    host.deploy(named("panics"), zip("1")).await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let answer = host.invoke("panics", "1").await.unwrap();
    let payload = String::from_utf8(answer.payload.to_vec()).unwrap();
    assert!(answer.function_error && payload.contains("Sandbox.Lost"), "{payload}");
    assert!(
        !host.invoke("f", "1").await.unwrap().function_error,
        "there is room for one at a time"
    );
    tokio::time::timeout(Duration::from_secs(60), host.shutdown()).await.unwrap();
    assert_eq!(backend.live(), 0);
}

/// The driver reads the workers' answers before new calls.
#[tokio::test(start_paused = true)]
async fn under_overload_an_answer_does_not_wait_behind_callers() {
    let host = Host::builder(Arc::new(echo())).with_account_concurrency(1).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let first = tokio::spawn({
        let host = host.clone();
        async move { (host.invoke("f", "1").await, tokio::time::Instant::now()) }
    });
    tokio::time::sleep(SECOND / 2).await;
    let start = tokio::time::Instant::now();
    // More callers than the driver's queue holds. Each calls again as soon as it is refused.
    let mut set = JoinSet::new();
    for _ in 0..2000 {
        let host = host.clone();
        set.spawn(async move {
            for _ in 0..20 {
                drop(host.invoke("f", "1").await);
            }
        });
    }
    let (answer, at) = first.await.unwrap();
    assert!(!answer.unwrap().function_error);
    assert!(at - start <= SECOND, "{:?}", at - start);
    set.abort_all();
}
