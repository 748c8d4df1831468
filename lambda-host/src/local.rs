//! The worker in this process: one task a sandbox, which makes it, runs invocations in it and ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::{
    Answer as SandboxAnswer, Backend, Busy, Created, Idle, InitFailure, InitReport,
    Invocation as Call, Limits, LogLine, LogSink, Outcome, Root, Sandbox, SandboxSpec,
    ShutdownReason,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::arn::Arns;
use crate::code::CodeStore;
use crate::driver::Message;
use crate::error::with_causes;
use crate::failure::Failure;
use crate::host::LATEST;
use crate::invocation::{Answer, LogTail, Report};
use crate::registry::Function;
use crate::runtime::{Entry, Runtimes};
use crate::worker::{Invocation, SandboxNumber, StartFault, Worker, WorkerCommand, WorkerEvent};

/// Runs sandboxes of one backend on this machine.
#[derive(Debug)]
pub(crate) struct LocalWorker {
    shared: Arc<Shared>,
    live: Mutex<BTreeMap<SandboxNumber, Handle>>,
}

/// What every sandbox's task needs.
#[derive(Debug)]
struct Shared {
    backend: Arc<dyn Backend>,
    arns: Arns,
    runtimes: Arc<Runtimes>,
    code: Arc<CodeStore>,
    #[cfg(feature = "roles")]
    roles: Option<crate::Roles>,
    events: mpsc::WeakSender<Message>,
    /// How many tasks run.
    running: watch::Sender<usize>,
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
enum Order {
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
    async fn tell(&self, event: WorkerEvent) {
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

/// One sandbox from its making to its end.
#[derive(Debug)]
struct Life {
    shared: Arc<Shared>,
    sandbox: SandboxNumber,
    function: Arc<Function>,
    kill: Arc<Notify>,
    log: Arc<SandboxLog>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.running.send_modify(|count| *count -= 1);
    }
}

impl Life {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let sandbox = self.sandbox;
        let made = tokio::select! {
            made = self.make() => made,
            // Dropping what is being made releases it.
            () = self.kill.notified() => Err(StartFault::Worker { reason: "killed".to_owned() }),
        };
        match made {
            Err(fault) => self.shared.tell(WorkerEvent::Failed { sandbox, fault }).await,
            Ok((idle, init, usable_for)) => {
                let init_duration = init.duration;
                self.shared.tell(WorkerEvent::Ready { sandbox, init_duration }).await;
                self.serve(idle, init, usable_for, &mut orders).await;
                self.refuse_waiting(&mut orders).await;
                self.shared.tell(WorkerEvent::Gone { sandbox }).await;
            }
        }
    }

    /// Makes the sandbox and waits for its init.
    async fn make(&self) -> Result<(Sandbox<Idle>, InitReport, Option<Duration>), StartFault> {
        let mut spec = self.spec().map_err(|failure| self.init_failed(&failure, Duration::ZERO))?;
        let worker =
            |error: &dyn std::error::Error| StartFault::Worker { reason: with_causes(error) };
        let usable_for = self.add_credentials(&mut spec).await?;
        let start = Instant::now();
        let created: Sandbox<Created> =
            self.shared.backend.create(spec).await.map_err(|error| worker(&error))?;
        let initialised = created.init().await;
        let (idle, init) =
            initialised.map_err(|failure: InitFailure| match Failure::of_init(&failure) {
                Some(function) => self.init_failed(&function, start.elapsed()),
                None => worker(&failure),
            })?;
        Ok((idle, init, usable_for))
    }

    /// Adds the credentials of the function's role; tells how long the sandbox may use them.
    #[cfg(feature = "roles")]
    async fn add_credentials(
        &self,
        spec: &mut SandboxSpec,
    ) -> Result<Option<Duration>, StartFault> {
        let config = &self.function.config;
        let Some(roles) = self.shared.roles.as_ref().filter(|_| !config.role.is_empty()) else {
            return Ok(None);
        };
        let session = roles.session(&config.role, config.name.as_str()).await;
        let credentials = session.map_err(|error| StartFault::Worker {
            reason: format!("role {}: {}", config.role, with_causes(&error)),
        })?;
        let token = credentials.session_token.as_ref().map(|token| token.expose());
        let variables = [
            ("AWS_ACCESS_KEY_ID", Some(credentials.access_key_id.as_str())),
            ("AWS_SECRET_ACCESS_KEY", Some(credentials.secret_access_key.expose())),
            ("AWS_SESSION_TOKEN", token),
        ];
        let given =
            variables.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
        spec.environment.extend(given);
        Ok(roles.usable_for(&credentials, config.timeout))
    }

    #[cfg(not(feature = "roles"))]
    #[expect(clippy::unused_async, reason = "the same form as with the feature")]
    async fn add_credentials(
        &self,
        _spec: &mut SandboxSpec,
    ) -> Result<Option<Duration>, StartFault> {
        Ok(None)
    }

    fn init_failed(&self, failure: &Failure, init_duration: Duration) -> StartFault {
        let (payload, log) = (failure.payload(), self.log.take());
        StartFault::Function { payload, kind: failure.kind.clone(), log, init_duration }
    }

    /// Runs invocations until the sandbox ends, which it has when this returns.
    async fn serve(
        &self,
        idle: Sandbox<Idle>,
        init: InitReport,
        usable_for: Option<Duration>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let retire_at = usable_for.map(|usable| Instant::now() + usable);
        let mut init = Some(init.duration);
        let mut idle = idle;
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = until(retire_at) => None,
                () = self.kill.notified() => {
                    return self.ended(idle.destroy().await);
                }
            };
            // Asked to stop; or the worker is gone, and the host with it; or the credentials end. An invocation
            // that was sent meanwhile is refused, and another sandbox takes it.
            let Some(Order::Run(invocation)) = order else {
                return self.ended(idle.shutdown(ShutdownReason::Spindown).await);
            };
            let Some(busy) = self.invoke(idle, &invocation, init.take()).await else {
                return;
            };
            match busy.settle().await {
                Ok(settled) => idle = settled,
                Err(error) => {
                    tracing::debug!(
                        error = with_causes(&error),
                        self.sandbox,
                        "ended between invocations"
                    );
                    return;
                }
            }
        }
    }

    /// Runs one invocation and tells how it ended; returns the sandbox when it can be used again.
    async fn invoke(
        &self,
        idle: Sandbox<Idle>,
        invocation: &Invocation,
        init_duration: Option<Duration>,
    ) -> Option<Sandbox<Busy>> {
        let killer = idle.killer();
        let mut killed = false;
        self.log.start(&invocation.request_id);
        let ended = {
            let mut running = std::pin::pin!(idle.invoke(self.call(invocation)));
            tokio::select! {
                ended = &mut running => ended,
                () = self.kill.notified() => {
                    killed = true;
                    killer.kill();
                    running.await
                }
            }
        };
        let (sandbox, number) = (self.sandbox, invocation.number);
        let (outcome, busy) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // The function has not seen it: another sandbox may.
                tracing::warn!(error = with_causes(&error), sandbox, "invocation not handed over");
                self.shared.tell(WorkerEvent::Refused { sandbox, invocation: number }).await;
                return None;
            }
        };
        let failure = if killed && busy.is_none() {
            Some(Failure::stopped(&invocation.request_id))
        } else {
            Failure::of(&outcome.answer, &invocation.request_id, invocation.timeout)
        };
        let cpu_time = outcome.usage.cpu_time.unwrap_or_default();
        let answer = self.answer(invocation, outcome, failure, init_duration);
        let reusable = busy.is_some();
        let ended = WorkerEvent::Ended { sandbox, invocation: number, answer, cpu_time, reusable };
        self.shared.tell(ended).await;
        busy
    }

    fn answer(
        &self,
        invocation: &Invocation,
        outcome: Outcome,
        failure: Option<Failure>,
        init_duration: Option<Duration>,
    ) -> Answer {
        let report = Report {
            duration: outcome.usage.duration,
            init_duration,
            memory_mb: self.function.config.memory_mb,
            memory_peak_bytes: outcome.usage.memory_peak_bytes,
        };
        let function_error = failure.is_some();
        let status = failure.as_ref().map_or_else(String::new, |failure| {
            let timed_out = matches!(outcome.answer, SandboxAnswer::TimedOut);
            let status = if timed_out { "timeout" } else { "error" };
            format!("Status: {status}\tError Type: {}", failure.kind)
        });
        let payload = match (failure, outcome.answer) {
            (Some(failure), _) => failure.payload(),
            (None, SandboxAnswer::Success(response)) => response.body,
            (None, _) => Bytes::new(),
        };
        let request_id = invocation.request_id.clone();
        let log_tail = self.log.take().end(&request_id, &report, &status);
        Answer { request_id, payload, function_error, log_tail, report }
    }

    fn call(&self, invocation: &Invocation) -> Call {
        let id = invocation.request_id.clone();
        let mut call = Call::new(id, invocation.payload.clone(), invocation.timeout);
        call.invoked_function_arn = self.shared.arns.function(&self.function.config.name);
        call.trace_id.clone_from(&invocation.trace_id);
        call.client_context.clone_from(&invocation.client_context);
        call
    }

    /// Tells that the invocations that wait for an ended sandbox were not seen by the function.
    async fn refuse_waiting(&self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Run(invocation) = order {
                let invocation = invocation.number;
                self.shared.tell(WorkerEvent::Refused { sandbox: self.sandbox, invocation }).await;
            }
        }
    }

    fn ended(&self, released: Result<(), lambda_sandbox::Error>) {
        if let Err(error) = released {
            // The next start's sweep tries again.
            tracing::warn!(error = with_causes(&error), sandbox = self.sandbox, "not all released");
        }
    }

    /// Describes the sandbox: base system, runtime, code, environment, limits.
    fn spec(&self) -> Result<SandboxSpec, Failure> {
        let config = &self.function.config;
        let code = self.shared.code.folder(&self.function.code);
        // The runtime was there when the function was deployed; a host may have been started without it.
        let image =
            self.shared.runtimes.image(&config.runtime).ok_or_else(Failure::no_entry_point)?;
        let mut root = Root::of_machine();
        for mount in &image.mounts {
            root = root.with_bind(&mount.source, &mount.target);
        }
        let command: Vec<OsString> = match &image.entry {
            Entry::Bootstrap if is_file(&code.join("bootstrap")) => {
                vec!["/var/task/bootstrap".into()]
            }
            Entry::Bootstrap => return Err(Failure::no_entry_point()),
            Entry::Program(words) => words.iter().map(Into::into).collect(),
        };
        let root = root.with_bind(code, TASK_ROOT);
        let mut spec = SandboxSpec::new(config.name.as_str(), root, command);
        spec.working_directory = TASK_ROOT.into();
        spec.limits = Limits::for_memory_mb(config.memory_mb);
        spec.limits.scratch_bytes = u64::from(config.ephemeral_storage_mb) << 20;
        spec.log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        let own = image.environment.iter().chain(&config.environment);
        let own = own.map(|(name, value)| (name.into(), value.into()));
        spec.environment = self.defined().into_iter().chain(own).collect();
        Ok(spec)
    }

    /// The variables that Lambda defines for every function.
    ///
    /// Source: AWS, "Defined runtime environment variables".
    fn defined(&self) -> Vec<(OsString, OsString)> {
        let config = &self.function.config;
        let log_group = format!("/aws/lambda/{}", config.name);
        let log_stream = format!("[{LATEST}]{:016x}", self.sandbox);
        let memory = config.memory_mb.to_string();
        let execution = format!("AWS_Lambda_{}", config.runtime);
        let defined: [(&str, &str); 15] = [
            ("_HANDLER", &config.handler),
            ("AWS_REGION", self.shared.arns.region()),
            ("AWS_DEFAULT_REGION", self.shared.arns.region()),
            ("AWS_EXECUTION_ENV", &execution),
            ("AWS_LAMBDA_FUNCTION_NAME", config.name.as_str()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
            ("AWS_LAMBDA_FUNCTION_VERSION", LATEST),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &log_group),
            ("AWS_LAMBDA_LOG_STREAM_NAME", &log_stream),
            ("LAMBDA_TASK_ROOT", TASK_ROOT),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"),
            ("TZ", ":UTC"),
        ];
        defined.map(|(name, value)| (name.into(), value.into())).into()
    }
}

/// Takes a sandbox's output: what it writes before an invocation counts to it, as in Lambda's log.
#[derive(Debug, Default)]
struct SandboxLog {
    tail: Mutex<LogTail>,
}

impl SandboxLog {
    fn start(&self, request_id: &str) {
        self.tail().start(request_id);
    }

    fn take(&self) -> LogTail {
        std::mem::take(&mut self.tail())
    }

    fn tail(&self) -> MutexGuard<'_, LogTail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for SandboxLog {
    fn line(&self, line: LogLine) {
        self.tail().line(&line.text);
    }
}

/// Waits until `at`; without it for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Where a function's code is in its sandbox.
const TASK_ROOT: &str = "/var/task";
