//! The driver: one task that owns the placement engine, tells it what happens, and carries out what it
//! decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambda_core::{
    AccountId, Capacity, Command, Config, Engine, Event, EventError, Fault, FixedIdle, FunctionId,
    FunctionSettings, InvocationId, RejectReason, SandboxId, Time, Used, WorkerId,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use crate::catalog::registry::Function;
use crate::error::Error;
use crate::event::HostEvent;
use crate::function::arn::Arns;
use crate::function::config::FunctionName;
use crate::invocation::{Answer, LogTail, Report, Request};
use crate::worker::failure::Failure;
use crate::worker::protocol::{
    Invocation, InvocationNumber, SandboxNumber, StartFault, Worker, WorkerCommand, WorkerEvent,
};

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A function is there, or changed: with another deployment its old sandboxes end.
    Put { function: Arc<Function>, reply: oneshot::Sender<Result<(), Error>> },
    /// A function is gone: its idle sandboxes end, its running invocations finish.
    Remove { name: FunctionName },
    /// Someone invokes a function.
    Invoke {
        function: Arc<Function>,
        request: Request,
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    /// A worker tells something.
    Worker(WorkerEvent),
    /// The host stops; `done` is told when no sandbox is left.
    Stop { kill: bool, done: oneshot::Sender<()> },
}

/// Settings of the engine that a host exposes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) idle_timeout: Duration,
    pub(crate) account_concurrency: u32,
    pub(crate) memory_mb: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(600), account_concurrency: 1000, memory_mb: None }
    }
}

/// Owns the engine.
#[derive(Debug)]
pub(crate) struct Driver {
    engine: Engine,
    /// When the engine's clock began.
    began: Instant,
    arns: Arns,
    worker: Arc<dyn Worker>,
    events: broadcast::Sender<HostEvent>,
    /// The engine's ids of the functions that are there.
    ids: BTreeMap<FunctionName, FunctionId>,
    /// What each id in use stands for, the latest deployment.
    functions: BTreeMap<FunctionId, Arc<Function>>,
    /// Ids of functions that are gone, of which something is left.
    removed: BTreeSet<FunctionId>,
    /// Every invocation that has no answer yet.
    pending: BTreeMap<InvocationNumber, Pending>,
    /// Every sandbox that is being made, live or being destroyed.
    sandboxes: BTreeMap<SandboxNumber, Held>,
    next_invocation: InvocationNumber,
    stopping: Option<Vec<oneshot::Sender<()>>>,
    /// Whether the worker was told to take nothing new.
    draining: bool,
}

/// An invocation that has no answer yet.
#[derive(Debug)]
struct Pending {
    id: FunctionId,
    request_id: String,
    request: Request,
    reply: oneshot::Sender<Result<Answer, Error>>,
    /// How often a sandbox could not take it.
    refused: u32,
}

/// A sandbox as the driver knows it.
#[derive(Debug)]
struct Held {
    function: Arc<Function>,
    running: Option<InvocationNumber>,
    /// Why it could not be made, until the engine has said whose answer that is.
    fault: Option<StartFault>,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        arns: Arns,
        worker: Arc<dyn Worker>,
        events: broadcast::Sender<HostEvent>,
    ) -> Self {
        let mut config = Config::default();
        config.account_concurrency_max = settings.account_concurrency;
        config.account_unreserved_min = UNRESERVED_MIN.min(settings.account_concurrency / 10);
        let engine = Engine::new(config, rand_seed());
        let mut driver = Self {
            engine: engine.with_idle_policy(Box::new(FixedIdle(settings.idle_timeout))),
            began: Instant::now(),
            arns,
            worker,
            events,
            ids: BTreeMap::new(),
            functions: BTreeMap::new(),
            removed: BTreeSet::new(),
            pending: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            next_invocation: 0,
            stopping: None,
            draining: false,
        };
        let memory_bytes = settings.memory_mb.map_or_else(default_memory_bytes, |mb| mb << 20);
        let capacity = Capacity::of_memory(memory_bytes);
        driver.handle(Event::WorkerJoined { worker: THIS, capacity });
        driver
    }

    /// Runs until every handle of the host is gone, or it was stopped and nothing is left.
    pub(crate) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let due = self.engine.next_timeout().map(|at| self.began + at.since(Time::ZERO));
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
                () = timeout => {
                    self.engine.handle_timeout(self.now());
                    self.carry_out();
                }
            }
            self.forget_removed();
            if self.stopping.is_some() && self.pending.is_empty() {
                self.drain();
            }
            if self.stopping.is_some() && self.sandboxes.is_empty() && self.pending.is_empty() {
                for done in self.stopping.take().into_iter().flatten() {
                    // Whoever waited may have gone: nothing to do then.
                    done.send(()).unwrap_or_default();
                }
                return;
            }
        }
    }

    /// Forgets the removed functions of which nothing is left: their ids can be used again.
    fn forget_removed(&mut self) {
        let (engine, pending) = (&self.engine, &self.pending);
        let done = |id: &FunctionId| {
            !engine.knows_function(*id) && !pending.values().any(|it| it.id == *id)
        };
        for id in self.removed.extract_if(.., done) {
            self.functions.remove(&id);
        }
    }

    /// Lets the worker take nothing new: its idle sandboxes end.
    fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.handle(Event::WorkerDraining { worker: THIS });
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    fn handle(&mut self, event: Event) {
        if let Err(error) = self.try_handle(event) {
            // Late and repeated events are a worker's right.
            tracing::debug!(%error, "an event that the engine did not take");
        }
    }

    fn try_handle(&mut self, event: Event) -> Result<(), EventError> {
        let taken = self.engine.handle(self.now(), event);
        self.carry_out();
        taken
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Put { function, reply } => {
                // Who asked may have gone: the function is there all the same.
                drop(reply.send(self.put(function)));
            }
            Message::Remove { name } => {
                if let Some(function) = self.ids.remove(&name) {
                    self.removed.insert(function);
                    self.handle(Event::FunctionRemoved { function });
                }
            }
            Message::Invoke { function, request, reply } => {
                let request_id = uuid::Uuid::new_v4().to_string();
                // A function that is gone meanwhile has no id: the engine says so.
                let id = self.ids.get(&function.config.name).copied().unwrap_or(GONE);
                let pending = Pending { id, request_id, request, reply, refused: 0 };
                if self.stopping.is_some() {
                    return self.answer(pending, Err(Error::Stopping));
                }
                if id == GONE {
                    let arn = self.arns.function(&function.config.name);
                    return self.answer(pending, Err(Error::FunctionNotFound { arn }));
                }
                self.arrive(pending);
            }
            Message::Worker(event) => self.on_worker(event),
            Message::Stop { kill, done } => {
                self.stopping.get_or_insert_default().push(done);
                if kill {
                    for sandbox in self.sandboxes.keys().copied() {
                        self.worker.carry_out(WorkerCommand::Kill { sandbox });
                    }
                    // What waits for a sandbox is refused; otherwise it is served first.
                    self.drain();
                }
            }
        }
    }

    /// Tells the engine of a function, under the id of its name or a free one.
    fn put(&mut self, function: Arc<Function>) -> Result<(), Error> {
        let config = &function.config;
        let free = || (0..).map(FunctionId).find(|id| !self.functions.contains_key(id));
        let known = self.ids.get(&config.name).copied();
        let id = known.or_else(free).unwrap_or(GONE);
        let mut settings = FunctionSettings::new(AccountId(0), u64::from(config.memory_mb) << 20);
        // The worker ends the invocation on time; the engine after it, should the worker not.
        settings.timeout = config.timeout + TIMEOUT_GRACE;
        settings.reserved_concurrency = config.reserved_concurrency;
        // Known before the engine is told: it may ask for a sandbox at once.
        let before = self.functions.insert(id, Arc::clone(&function));
        let revision = function.deployment;
        match self.try_handle(Event::FunctionPut { function: id, revision, settings }) {
            Ok(()) => {
                self.ids.insert(config.name.clone(), id);
                Ok(())
            }
            Err(error) => {
                match before {
                    Some(before) => self.functions.insert(id, before),
                    None => self.functions.remove(&id),
                };
                Err(refused_put(error))
            }
        }
    }

    fn arrive(&mut self, pending: Pending) {
        self.next_invocation += 1;
        let (number, function) = (self.next_invocation, pending.id);
        self.pending.insert(number, pending);
        self.handle(Event::InvocationArrived { invocation: InvocationId(number), function });
    }

    fn on_worker(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Ready { sandbox, init_duration } => {
                self.show(|| HostEvent::SandboxReady { sandbox, init_duration });
                self.handle(Event::SandboxReady { sandbox: SandboxId(sandbox) });
            }
            WorkerEvent::Failed { sandbox, fault } => self.on_failed(sandbox, fault),
            WorkerEvent::Ended { sandbox, invocation, answer, cpu_time, reusable } => {
                tracing::debug!(sandbox, invocation, ?cpu_time, reusable, "answered");
                let memory_peak = answer.report.memory_peak_bytes;
                if let Some(held) = self.sandboxes.get_mut(&sandbox) {
                    held.running = None;
                }
                if let Some(pending) = self.pending.remove(&invocation) {
                    self.show(|| HostEvent::Answered {
                        request_id: answer.request_id.clone(),
                        sandbox,
                        function_error: answer.function_error,
                        report: answer.report,
                    });
                    self.answer(pending, Ok(answer));
                }
                let used = Used { cpu_time: Some(cpu_time), memory_peak_bytes: memory_peak };
                let (invocation, sandbox) = (InvocationId(invocation), SandboxId(sandbox));
                self.handle(Event::InvocationEnded { invocation, sandbox, reusable, used });
            }
            WorkerEvent::Refused { sandbox, invocation } => self.on_refused(sandbox, invocation),
            WorkerEvent::Gone { sandbox } => {
                self.forget(sandbox);
                self.handle(Event::SandboxGone { sandbox: SandboxId(sandbox) });
            }
        }
    }

    fn on_failed(&mut self, sandbox: SandboxNumber, fault: StartFault) {
        let whose = match &fault {
            StartFault::Function { .. } => Fault::Function,
            StartFault::Worker { reason } => {
                tracing::warn!(sandbox, reason, "sandbox not made");
                Fault::Worker
            }
        };
        let reason = match &fault {
            StartFault::Function { kind, .. } => kind.clone(),
            StartFault::Worker { reason } => reason.clone(),
        };
        self.show(|| HostEvent::SandboxFailed { sandbox, reason });
        if let Some(held) = self.sandboxes.get_mut(&sandbox) {
            held.fault = Some(fault);
        }
        self.handle(Event::SandboxFailed { sandbox: SandboxId(sandbox), fault: whose });
        self.forget(sandbox);
    }

    /// An invocation did not reach its function, since the sandbox had ended: another one takes it.
    fn on_refused(&mut self, sandbox: SandboxNumber, invocation: InvocationNumber) {
        let pending = self.pending.remove(&invocation);
        let ended = Event::InvocationEnded {
            invocation: InvocationId(invocation),
            sandbox: SandboxId(sandbox),
            reusable: false,
            used: Used::default(),
        };
        self.handle(ended);
        let Some(mut pending) = pending else { return };
        pending.refused += 1;
        if pending.refused > REFUSALS_MAX {
            let reason = format!(
                "{} sandboxes ended before they could take the invocation",
                pending.refused
            );
            return self.answer(pending, Err(Error::SandboxUnavailable { reason }));
        }
        tracing::debug!(sandbox, invocation, "handed to another sandbox");
        self.arrive(pending);
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::StartSandbox { sandbox, function, revision, .. } => {
                    self.start(sandbox.0, function, revision);
                }
                Command::StopSandbox { sandbox, .. } => {
                    self.worker.carry_out(WorkerCommand::Stop { sandbox: sandbox.0 });
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    self.dispatch(invocation.0, sandbox.0)
                }
                Command::TimeOut { invocation, sandbox, .. } => {
                    self.worker.carry_out(WorkerCommand::Kill { sandbox: sandbox.0 });
                    self.lost(invocation.0);
                }
                Command::Reject { invocation, reason } => self.reject(invocation.0, reason),
                // The one worker is this host: it ends when the host does.
                Command::DrainWorker { .. } | Command::RetireWorker { .. } => {}
                other => tracing::error!(?other, "a command that this driver does not know"),
            }
        }
    }

    fn start(&mut self, sandbox: SandboxNumber, function: FunctionId, revision: u64) {
        let known = self.functions.get(&function).filter(|it| it.deployment == revision);
        let Some(function) = known.cloned() else {
            // Kept while anything of it is left, so that the engine has no reason to ask for this.
            tracing::error!(sandbox, "a sandbox of a function that is not there");
            let sandbox = SandboxId(sandbox);
            let failed = Event::SandboxFailed { sandbox, fault: Fault::Function };
            if let Err(error) = self.engine.handle(self.now(), failed) {
                tracing::error!(%error, "the engine does not know its own sandbox");
            }
            return;
        };
        let name = function.config.name.clone();
        self.show(|| HostEvent::SandboxStarting { sandbox, function: name });
        let held = Held { function: Arc::clone(&function), running: None, fault: None };
        self.sandboxes.insert(sandbox, held);
        self.worker.carry_out(WorkerCommand::Start { sandbox, function });
    }

    fn dispatch(&mut self, number: InvocationNumber, sandbox: SandboxNumber) {
        let (Some(pending), Some(held)) =
            (self.pending.get(&number), self.sandboxes.get_mut(&sandbox))
        else {
            return;
        };
        held.running = Some(number);
        let request = &pending.request;
        let invocation = Invocation {
            number,
            request_id: pending.request_id.clone(),
            payload: request.payload.clone(),
            timeout: held.function.config.timeout,
            client_context: request.client_context.clone(),
            trace_id: request.trace_id.clone(),
        };
        self.worker.carry_out(WorkerCommand::Dispatch { sandbox, invocation });
    }

    fn reject(&mut self, number: InvocationNumber, reason: RejectReason) {
        let sandbox = match reason {
            RejectReason::SandboxFailed { sandbox } => self.sandboxes.get_mut(&sandbox.0),
            RejectReason::SandboxLost | RejectReason::WorkerLost => return self.lost(number),
            _ => None,
        };
        let fault = sandbox.and_then(|held| Some((Arc::clone(&held.function), held.fault.take()?)));
        let Some(pending) = self.pending.remove(&number) else {
            return;
        };
        let error = match (reason, fault) {
            (_, Some((function, StartFault::Function { payload, kind, log, init_duration }))) => {
                let answer = init_answer(&pending, &function, payload, &kind, log, init_duration);
                return self.answer(pending, Ok(answer));
            }
            (_, Some((_, StartFault::Worker { reason }))) => Error::SandboxUnavailable { reason },
            (RejectReason::ReservedConcurrency, None) => {
                Error::Throttled { limit: "ReservedFunctionConcurrentInvocationLimitExceeded" }
            }
            (RejectReason::AccountConcurrency | RejectReason::WaitingFull, None) => {
                Error::Throttled { limit: "ConcurrentInvocationLimitExceeded" }
            }
            (RejectReason::ScalingRate, None) => {
                Error::Throttled { limit: "FunctionInvocationRateLimitExceeded" }
            }
            (RejectReason::NoCapacity, None) => {
                Error::NoCapacity { reason: "memory of all workers is taken".to_owned() }
            }
            (RejectReason::FunctionTooLarge, None) => {
                Error::NoCapacity { reason: "no worker has so much memory".to_owned() }
            }
            (RejectReason::FunctionUnknown, None) => {
                let function = self.functions.get(&pending.id);
                let name = function.map(|it| self.arns.function(&it.config.name));
                Error::FunctionNotFound {
                    arn: name.unwrap_or_else(|| "the function was removed".to_owned()),
                }
            }
            (other, None) => Error::SandboxUnavailable { reason: format!("{other:?}") },
        };
        let (request_id, reason) = (pending.request_id.clone(), error.to_string());
        self.show(|| HostEvent::Rejected { request_id, reason });
        self.answer(pending, Err(error));
    }

    /// Answers an invocation whose sandbox ended without a word of it.
    fn lost(&mut self, number: InvocationNumber) {
        let Some(pending) = self.pending.remove(&number) else {
            return;
        };
        let memory_mb = self.functions.get(&pending.id).map_or(0, |it| it.config.memory_mb);
        let report = Report {
            duration: Duration::ZERO,
            init_duration: None,
            memory_mb,
            memory_peak_bytes: None,
        };
        let failure = Failure::lost(&pending.request_id);
        let answer = Answer {
            request_id: pending.request_id.clone(),
            payload: failure.payload(),
            function_error: true,
            log_tail: Bytes::new(),
            report,
        };
        self.answer(pending, Ok(answer));
    }

    fn forget(&mut self, sandbox: SandboxNumber) {
        self.worker.carry_out(WorkerCommand::Forget { sandbox });
        if self.sandboxes.remove(&sandbox).is_some() {
            self.show(|| HostEvent::SandboxGone { sandbox });
        }
    }

    fn answer(&self, pending: Pending, answer: Result<Answer, Error>) {
        // The caller may have gone; the invocation went on, as Lambda's does.
        drop(pending.reply.send(answer));
    }

    fn show(&self, event: impl FnOnce() -> HostEvent) {
        if self.events.receiver_count() > 0 {
            // Receivers may go at any time.
            drop(self.events.send(event()));
        }
    }
}

/// What the caller of a function sees whose init failed.
fn init_answer(
    pending: &Pending,
    function: &Function,
    payload: Bytes,
    kind: &str,
    mut log: LogTail,
    init_duration: Duration,
) -> Answer {
    let memory_mb = function.config.memory_mb;
    let init_duration = Some(init_duration);
    let report =
        Report { duration: Duration::ZERO, init_duration, memory_mb, memory_peak_bytes: None };
    let request_id = pending.request_id.clone();
    log.start(&request_id);
    let status = format!("Status: error\tError Type: {kind}");
    let log_tail = log.end(&request_id, &report, &status);
    Answer { request_id, payload, function_error: true, log_tail, report }
}

/// What the caller hears whose function the engine did not take.
fn refused_put(error: EventError) -> Error {
    let message = match error {
        EventError::Reserved => format!(
            "Specified ReservedConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_MIN}]."
        ),
        other => other.to_string(),
    };
    Error::InvalidParameter { message }
}

/// A seed for the placement's draws: any will do, and hosts need not draw alike.
fn rand_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// The machine's memory less an eighth, which is left to the host and the system.
fn default_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib =
        total.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse::<u64>().ok());
    kib.map_or(DEFAULT_MEMORY_BYTES, |kib| kib * 1024 / 8 * 7)
}

const THIS: WorkerId = WorkerId(0);
/// The id of no function.
const GONE: FunctionId = FunctionId(u32::MAX);
/// How much of the account's concurrency cannot be reserved, where there is that much. AWS: 100.
const UNRESERVED_MIN: u32 = 100;
/// How long after a function's timeout the engine waits for the worker to say so.
const TIMEOUT_GRACE: Duration = Duration::from_secs(2);
/// How many sandboxes may end under an invocation before it is given up.
const REFUSALS_MAX: u32 = 3;
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
