//! One sandbox's life on this machine: a task that makes it, runs invocations in it and ends it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_sandbox::{
    Answer as SandboxAnswer, Busy, Created, Idle, InitFailure, Invocation as Call, LogSink,
    Sandbox, ShutdownReason, Usage,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::context::Context;
use super::failure::{Failure, payload};
use super::log::SandboxLog;
use super::protocol::{
    Deployment, Invocation, InvocationId, Outcome, SandboxId, StartFault, WorkerEvent,
};
use super::specification::{Folders, specify, stand_in_credentials};
use crate::blocking::blocking;
use crate::code::CodeLease;
use crate::error::{Error, with_causes};
use crate::invocation::Report;

/// One sandbox from its making to its end.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) context: Arc<Context>,
    pub(super) sandbox: SandboxId,
    pub(super) deployment: Box<Deployment>,
    /// Holds the function's code until the sandbox is gone.
    pub(super) code: CodeLease,
    /// Holds the files of its layers.
    pub(super) layers: Option<CodeLease>,
    pub(super) kill: Arc<Notify>,
    pub(super) log: Arc<SandboxLog>,
    /// Set when the manager was told that the sandbox is ready.
    pub(super) ready: Arc<AtomicBool>,
    /// Invocations after which the sandbox was frozen, and how long that took; not told yet.
    pub(super) frozen: Mutex<Vec<(InvocationId, Duration)>>,
}

/// What a sandbox's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Run an invocation.
    Run(Invocation),
    /// End, when no invocation runs.
    Stop,
}

/// An invocation that a sandbox runs, and what came before it.
#[derive(Debug)]
struct Turn {
    invocation: Invocation,
    /// Of the sandbox, when this is its first invocation.
    init_duration: Option<Duration>,
    /// How much of the invocation's time is over already.
    spent: Duration,
}

/// A sandbox that was made, and is ready.
#[derive(Debug)]
struct Made {
    idle: Sandbox<Idle>,
    init_duration: Duration,
    /// How long its credentials hold; `None` for ever.
    usable_for: Option<Duration>,
}

/// Why a sandbox could not be made. Nothing of it is left.
#[derive(Debug)]
enum Unmade {
    /// Its init took longer than it may.
    InitTooLong(Duration),
    /// By the function's fault, so long after its start.
    Function(Failure, Duration),
    /// By the machine's: the error with its causes.
    Machine(String),
}

impl Life {
    /// Lives it; returns the last event, to be sent when nothing of the sandbox is left.
    pub(super) async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) -> WorkerEvent {
        let last = tokio::select! {
            last = self.live(&mut orders) => last,
            never = self.send_logs() => match never {},
        };
        self.send_log().await;
        last
    }

    /// Sends the log's lines to the host as they come.
    async fn send_logs(&self) -> Infallible {
        loop {
            self.log.wait().await;
            self.send_log().await;
        }
    }

    async fn send_log(&self) {
        let events = self.log.unsent();
        if !events.is_empty() {
            let (sandbox, stream) = (self.sandbox, self.log.stream().to_owned());
            self.context.tell(WorkerEvent::Logged { sandbox, stream, events }).await;
        }
        let frozen =
            std::mem::take(&mut *self.frozen.lock().unwrap_or_else(PoisonError::into_inner));
        if !frozen.is_empty() {
            let sandbox = self.sandbox;
            self.context.tell(WorkerEvent::Frozen { sandbox, invocations: frozen }).await;
        }
    }

    async fn live(&self, orders: &mut mpsc::UnboundedReceiver<Order>) -> WorkerEvent {
        let sandbox = self.sandbox;
        self.log.note(format!("INIT_START Runtime Version: {}", self.deployment.config.runtime));
        let made = tokio::select! {
            made = self.make(None) => made,
            // Dropping what is being made releases it.
            () = self.kill.notified() => Err(Unmade::Machine("killed".to_owned())),
        };
        match made {
            Ok(made) => {
                self.tell_ready(made.init_duration).await;
                self.serve(made, None, orders).await;
            }
            Err(Unmade::InitTooLong(init_duration)) => {
                self.tell_ready(init_duration).await;
                self.serve_late(init_duration, orders).await;
            }
            Err(Unmade::Function(failure, init_duration)) => {
                let Failure { kind, error } = failure;
                let (log, log_stream) = (self.log.take(), self.log.stream().to_owned());
                let fault = StartFault::Function { error, kind, log, log_stream, init_duration };
                return WorkerEvent::Failed { sandbox, fault };
            }
            Err(Unmade::Machine(reason)) => {
                return WorkerEvent::Failed { sandbox, fault: StartFault::Worker { reason } };
            }
        }
        self.refuse_waiting(orders).await;
        WorkerEvent::Gone { sandbox }
    }

    async fn tell_ready(&self, init_duration: Duration) {
        self.ready.store(true, Ordering::Relaxed);
        self.context.tell(WorkerEvent::Ready { sandbox: self.sandbox, init_duration }).await;
    }

    /// Brings the function's code here where it is not.
    async fn fetch_code(&self) -> Result<(), String> {
        let (lease, digest) = (self.code.clone(), &self.deployment.code);
        let here = blocking(move || Ok(lease.is_present())).await;
        if here.map_err(|error| with_causes(&error))? {
            return Ok(());
        }
        let fetched = async {
            let zip = self.context.fetch(digest).await?;
            let store = self.context.code.clone();
            let (found, lease) = blocking(move || store.put(&zip)).await?;
            // Held by `self.code` from here on.
            drop(lease);
            Ok::<_, Error>(found)
        };
        match fetched.await {
            Ok(found) if found.sha256 == digest.sha256 => Ok(()),
            Ok(found) => Err(format!("code {} came for {}", found.hex(), digest.hex())),
            Err(error) => Err(format!("code {}: {}", digest.hex(), with_causes(&error))),
        }
    }

    /// Brings the files of the function's layers here where they are not.
    async fn fetch_layers(&self) -> Result<(), String> {
        let Some(lease) = self.layers.clone() else { return Ok(()) };
        let fetched = async {
            let here = lease.clone();
            if blocking(move || Ok(here.is_present())).await? {
                return Ok(());
            }
            let mut zips = Vec::new();
            for layer in &self.deployment.config.layers {
                zips.push(self.context.fetch(&layer.code).await?);
            }
            let store = self.context.code.clone();
            blocking(move || store.put_merged(&lease, &zips)).await
        };
        fetched.await.map_err(|error: Error| format!("layers: {}", with_causes(&error)))
    }

    /// Makes the sandbox and waits for its init, at the most `init_max` or else as long as Lambda does.
    async fn make(&self, init_max: Option<Duration>) -> Result<Made, Unmade> {
        self.fetch_code().await.map_err(Unmade::Machine)?;
        self.fetch_layers().await.map_err(Unmade::Machine)?;
        let folders = Folders {
            code: self.code.folder(),
            layers: self.layers.as_ref().map(CodeLease::folder),
        };
        let runtimes = &self.context.runtimes;
        let spec = specify(&self.deployment, self.log.stream(), runtimes, &folders);
        let mut spec = spec.map_err(|failure| Unmade::Function(failure, Duration::ZERO))?;
        spec.log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        spec.times.init = init_max.unwrap_or(spec.times.init);
        let usable_for = self.add_credentials(&mut spec).await.map_err(Unmade::Machine)?;
        let machine = |error: &dyn std::error::Error| Unmade::Machine(with_causes(error));
        let start = Instant::now();
        let created: Sandbox<Created> =
            self.context.backend.create(spec).await.map_err(|error| machine(&error))?;
        let (idle, init) = created.init().await.map_err(|failure| match failure {
            InitFailure::TimedOut(limit) => Unmade::InitTooLong(limit),
            failure => match Failure::of_init(&failure) {
                Some(function) => Unmade::Function(function, start.elapsed()),
                None => machine(&failure),
            },
        })?;
        Ok(Made { idle, init_duration: init.duration, usable_for })
    }

    /// Adds the credentials of the function's role; returns how long the sandbox may use them.
    #[cfg(feature = "roles")]
    async fn add_credentials(
        &self,
        spec: &mut lambda_sandbox::SandboxSpec,
    ) -> Result<Option<Duration>, String> {
        let config = &self.deployment.config;
        let Some(roles) = self.context.roles.as_ref().filter(|_| !config.role.is_empty()) else {
            spec.environment.extend(stand_in_credentials());
            return Ok(None);
        };
        let session = roles.session(&config.role, config.name.as_str()).await;
        let credentials =
            session.map_err(|error| format!("role {}: {}", config.role, with_causes(&error)))?;
        spec.environment.extend(super::roles::variables(&credentials));
        Ok(roles.usable_for(&credentials, config.timeout))
    }

    #[cfg(not(feature = "roles"))]
    #[expect(clippy::unused_async, reason = "the same form as with the feature")]
    async fn add_credentials(
        &self,
        spec: &mut lambda_sandbox::SandboxSpec,
    ) -> Result<Option<Duration>, String> {
        spec.environment.extend(stand_in_credentials());
        Ok(None)
    }

    /// Makes the sandbox anew in the first invocation, whose timeout covers init and all: the init took too long
    /// when nobody waited for it.
    ///
    /// Source: AWS, "Understanding the Lambda execution environment lifecycle", on failures in the Init phase.
    async fn serve_late(
        &self,
        init_duration: Duration,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = self.kill.notified() => return,
        };
        let Some(Order::Run(invocation)) = order else { return };
        self.log.init_timed_out(init_duration);
        self.log.start(&invocation.request_id, self.deployment.version);
        let start = Instant::now();
        let made = tokio::select! {
            made = self.make(Some(invocation.timeout)) => made,
            () = self.kill.notified() => {
                Err(Unmade::Function(Failure::stopped(), Duration::ZERO))
            }
        };
        let failure = match made {
            Ok(made) => {
                let first = Turn { invocation, init_duration: None, spent: start.elapsed() };
                return self.serve(made, Some(first), orders).await;
            }
            Err(Unmade::InitTooLong(_)) => Failure::timed_out(invocation.timeout),
            Err(Unmade::Function(failure, _)) => failure,
            Err(Unmade::Machine(reason)) => {
                tracing::warn!(reason, sandbox = self.sandbox.0, "sandbox not made");
                let (sandbox, invocation) = (self.sandbox, invocation.id);
                return self.context.tell(WorkerEvent::Refused { sandbox, invocation }).await;
            }
        };
        let turn = Turn { invocation, init_duration: None, spent: start.elapsed() };
        self.tell_ended(&turn, Usage::default(), Err(failure), false).await;
    }

    /// Runs invocations until the sandbox ends, which it has when this returns; `first` has come already.
    async fn serve(
        &self,
        made: Made,
        mut first: Option<Turn>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let retire_at = made.usable_for.map(|usable| Instant::now() + usable);
        let mut init_duration = Some(made.init_duration);
        let mut idle = made.idle;
        loop {
            let turn = match first.take() {
                Some(turn) => turn,
                None => {
                    let order = tokio::select! {
                        order = orders.recv() => order,
                        () = until(retire_at) => None,
                        () = self.kill.notified() => {
                            return self.ended(idle.destroy().await);
                        }
                    };
                    // Asked to stop; or the worker is gone, and the host with it; or the credentials end. An
                    // invocation that was sent meanwhile is refused, and another sandbox takes it.
                    let Some(Order::Run(invocation)) = order else {
                        return self.ended(idle.shutdown(ShutdownReason::Spindown).await);
                    };
                    self.log.start(&invocation.request_id, self.deployment.version);
                    Turn { invocation, init_duration, spent: Duration::ZERO }
                }
            };
            init_duration = None;
            let Some(busy) = self.invoke(idle, &turn).await else {
                return;
            };
            let answered = Instant::now();
            match busy.settle().await {
                Ok(settled) => {
                    let frozen = (turn.invocation.id, answered.elapsed());
                    self.frozen.lock().unwrap_or_else(PoisonError::into_inner).push(frozen);
                    idle = settled;
                }
                Err(error) => {
                    tracing::debug!(
                        error = with_causes(&error),
                        sandbox = self.sandbox.0,
                        "ended between invocations"
                    );
                    return;
                }
            }
        }
    }

    /// Runs one invocation and tells how it ended; returns the sandbox when it can be used again.
    async fn invoke(&self, idle: Sandbox<Idle>, turn: &Turn) -> Option<Sandbox<Busy>> {
        let invocation = &turn.invocation;
        let killer = idle.killer();
        let mut killed = false;
        let ended = {
            let mut running = std::pin::pin!(idle.invoke(self.call(turn)));
            tokio::select! {
                ended = &mut running => ended,
                () = self.kill.notified() => {
                    killed = true;
                    killer.kill();
                    running.await
                }
            }
        };
        let (outcome, busy) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // The function has not seen it: another sandbox may.
                let sandbox = self.sandbox;
                let cause = with_causes(&error);
                tracing::warn!(error = cause, sandbox = sandbox.0, "invocation not handed over");
                let invocation = invocation.id;
                self.context.tell(WorkerEvent::Refused { sandbox, invocation }).await;
                return None;
            }
        };
        let failure = if killed && busy.is_none() {
            Some(Failure::stopped())
        } else {
            Failure::of(&outcome.answer, invocation.timeout)
        };
        let response = match (failure, outcome.answer) {
            (Some(failure), _) => Err(failure),
            (None, SandboxAnswer::Success(response)) => Ok(response.body),
            (None, _) => Ok(Bytes::new()),
        };
        self.tell_ended(turn, outcome.usage, response, busy.is_some()).await;
        busy
    }

    async fn tell_ended(
        &self,
        turn: &Turn,
        usage: Usage,
        response: Result<Bytes, Failure>,
        reusable: bool,
    ) {
        let ended = WorkerEvent::Ended {
            sandbox: self.sandbox,
            invocation: turn.invocation.id,
            outcome: self.outcome(turn, usage, response),
            cpu_time: usage.cpu_time.unwrap_or_default(),
            reusable,
        };
        self.context.tell(ended).await;
    }

    fn outcome(&self, turn: &Turn, usage: Usage, response: Result<Bytes, Failure>) -> Outcome {
        let report = Report {
            duration: turn.spent + usage.duration,
            init_duration: turn.init_duration,
            memory_mb: self.deployment.config.memory_mb,
            memory_peak_bytes: usage.memory_peak_bytes,
        };
        let function_error = response.is_err();
        let request_id = &turn.invocation.request_id;
        let (payload, status) = match response {
            Ok(body) => (body, String::new()),
            Err(failure) => {
                for line in failure.lines(request_id, SystemTime::now()) {
                    self.log.say(line);
                }
                (payload(&failure.kind, &failure.error, request_id), failure.status())
            }
        };
        let log_tail = self.log.end(request_id, &report, &status);
        Outcome { payload, function_error, log_tail, report }
    }

    fn call(&self, turn: &Turn) -> Call {
        let invocation = &turn.invocation;
        let left = invocation.timeout.saturating_sub(turn.spent);
        let mut call = Call::new(invocation.request_id.clone(), invocation.payload.clone(), left);
        call.invoked_function_arn.clone_from(&invocation.function_arn);
        call.trace_id.clone_from(&invocation.trace_id);
        call.client_context.clone_from(&invocation.client_context);
        call
    }

    /// Tells that the invocations that wait for an ended sandbox were not seen by the function.
    async fn refuse_waiting(&self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Run(invocation) = order {
                let invocation = invocation.id;
                self.context.tell(WorkerEvent::Refused { sandbox: self.sandbox, invocation }).await;
            }
        }
    }

    fn ended(&self, released: Result<(), lambda_sandbox::Error>) {
        if let Err(error) = released {
            // The next start's sweep tries again.
            let (error, sandbox) = (with_causes(&error), self.sandbox.0);
            tracing::warn!(error, sandbox, "not all released");
        }
    }
}

/// Waits until `at`; without it for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
