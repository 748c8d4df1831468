//! One sandbox's life on this machine: a task that makes it, runs invocations in it and ends it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_sandbox::{
    Answer as SandboxAnswer, Busy, Created, Failed, FailedInit, Idle, InitFailure,
    Invocation as Call, Sandbox, ShutdownReason, Usage,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::context::Context;
use super::failure::{Failure, payload};
use super::log::{INIT_TIMEOUT, Phase, SandboxLog};
use super::making::{Began, Made, Maker, State, Unmade};
use super::protocol::{
    Deployment, Invocation, InvocationId, Outcome, SandboxId, StartFault, WorkerEvent,
};
use super::stream::{self, Credits, Passing};
use crate::error::with_causes;
use crate::invocation::Report;

/// One sandbox from its making to its end.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) context: Arc<Context>,
    pub(super) sandbox: SandboxId,
    pub(super) deployment: Arc<Deployment>,
    pub(super) maker: Maker,
    pub(super) kill: Arc<Notify>,
    /// Renewed with each streamed answer.
    pub(super) credits: Credits,
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
    began: Option<Began>,
    /// How much of the invocation's time is over already.
    spent: Duration,
}

/// A sandbox after an invocation.
#[derive(Debug)]
enum After<U, F> {
    /// Its runtime will wait for the next one.
    Usable(U),
    /// It can be reset at the most; with what extensions are told.
    Failed(F),
}

type Next = After<Sandbox<Busy>, (Sandbox<Failed>, ShutdownReason)>;

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
        if !self.maker.snap_starts() {
            self.log.init_start(&self.deployment);
        }
        let made = tokio::select! {
            made = self.maker.make(None) => made,
            // Dropping what is being made releases it.
            () = self.kill.notified() => Err(Unmade::Machine("killed".to_owned())),
        };
        match made {
            Ok(made) => {
                self.tell_ready(made.began.duration()).await;
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

    /// Makes the sandbox anew in the first invocation, whose timeout covers init and all: the init
    /// took too long when nobody waited for it.
    ///
    /// Source: AWS, "Understanding the Lambda execution environment lifecycle", on failures in the
    /// Init phase.
    async fn serve_late(
        &self,
        init_duration: Duration,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = self.kill.notified() => return,
        };
        let Some(Order::Run(mut invocation)) = order else { return };
        let span = std::mem::replace(&mut invocation.span, Span::none());
        self.log.init_report(init_duration, Phase::Init, INIT_TIMEOUT);
        self.log.start(&invocation.request_id, self.deployment.version);
        let start = Instant::now();
        let made = tokio::select! {
            made = self.maker.make(Some(invocation.timeout)).instrument(span.clone()) => made,
            () = self.kill.notified() => {
                Err(Unmade::Function(Failure::stopped(), Duration::ZERO))
            }
        };
        let failure = match made {
            Ok(made) => {
                invocation.span = span;
                let first = Turn { invocation, began: None, spent: start.elapsed() };
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
        let turn = Turn { invocation, began: None, spent: start.elapsed() };
        self.tell_ended(&turn, Usage::default(), Err(failure), false).await;
    }

    /// Runs invocations until the sandbox ends, which it has when this returns; `first` has come
    /// already.
    async fn serve(
        &self,
        made: Made,
        mut first: Option<Turn>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        // Kept until the sandbox has ended.
        let _attached = made.attached;
        let retire_at = made.usable_for.map(|usable| Instant::now() + usable);
        let mut began = Some(made.began);
        let mut state = made.state;
        let mut next = None;
        loop {
            let mut turn = match first.take() {
                Some(turn) => turn,
                None => {
                    let order = match next.take() {
                        Some(order) => Some(order),
                        None => tokio::select! {
                            order = orders.recv() => order,
                            () = until(retire_at) => None,
                            () = self.kill.notified() => return self.ended(state.destroy().await),
                        },
                    };
                    // Asked to stop; or the worker is gone, and the host with it; or the
                    // credentials end. An invocation that was sent meanwhile is refused, and
                    // another sandbox takes it.
                    let Some(Order::Run(invocation)) = order else {
                        return self.ended(state.shut_down().await);
                    };
                    Turn { invocation, began: None, spent: Duration::ZERO }
                }
            };
            // The span ends with the answer; the sandbox is frozen after it.
            let span = std::mem::replace(&mut turn.invocation.span, Span::none());
            let idle = match state {
                State::Idle(idle) => {
                    self.begin(&mut turn, began);
                    Ok(idle)
                }
                State::Reset(created) => {
                    self.init_again(created, &mut turn).instrument(span.clone()).await
                }
            };
            began = None;
            let after = match idle {
                Ok(idle) => self.invoke(idle, &turn).instrument(span).await,
                Err(ended) => ended,
            };
            state = match after {
                Some(After::Usable(busy)) => {
                    let answered = Instant::now();
                    match settle(busy, orders, retire_at).await {
                        Ok((idle, order)) => {
                            if order.is_none() {
                                self.note_frozen(turn.invocation.id, answered.elapsed());
                            }
                            next = order;
                            State::Idle(idle)
                        }
                        Err((error, failed)) => {
                            let (error, sandbox) = (with_causes(&error), self.sandbox.0);
                            tracing::debug!(error, sandbox, "ended between invocations");
                            match self.reset(failed, ShutdownReason::Failure).await {
                                Some(state) => state,
                                None => return,
                            }
                        }
                    }
                }
                Some(After::Failed((failed, reason))) => match self.reset(failed, reason).await {
                    Some(state) => state,
                    None => return,
                },
                None => return,
            };
        }
    }

    /// Notes that an invocation begins in a sandbox that is ready, unless it began with the
    /// sandbox's start.
    fn begin(&self, turn: &mut Turn, began: Option<Began>) {
        turn.began = began.filter(|_| turn.spent.is_zero());
        if turn.spent.is_zero() {
            self.log.start(&turn.invocation.request_id, self.deployment.version);
        }
    }

    fn note_frozen(&self, invocation: InvocationId, duration: Duration) {
        let mut untold = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        untold.push((invocation, duration));
    }

    /// Ends the programs of a sandbox in which something failed, and keeps it for the next
    /// invocation; `None`: it has ended.
    async fn reset(&self, failed: Sandbox<Failed>, reason: ShutdownReason) -> Option<State> {
        if !failed.can_reset() {
            failed.abandon(reason);
            return None;
        }
        tokio::select! {
            reset = failed.reset(reason) => match reset {
                Ok(created) => Some(State::Reset(created)),
                Err(error) => {
                    let (error, sandbox) = (with_causes(&error), self.sandbox.0);
                    tracing::debug!(error, sandbox, "not reset");
                    None
                }
            },
            // Dropping it ends it.
            () = self.kill.notified() => None,
        }
    }

    /// Starts the programs of a reset sandbox within the invocation, whose time counts from now on.
    ///
    /// Source: AWS, "Understanding the Lambda execution environment lifecycle", on failures in the
    /// Init and Invoke phases.
    async fn init_again(
        &self,
        created: Sandbox<Created>,
        turn: &mut Turn,
    ) -> Result<Sandbox<Idle>, Option<Next>> {
        let start = Instant::now();
        let timeout = turn.invocation.timeout;
        let request_id = turn.invocation.request_id.clone();
        let tried = tokio::select! {
            tried = created.with_init_limit(timeout).try_init() => Some(tried),
            () = self.kill.notified() => None,
        };
        turn.spent = start.elapsed();
        let (failure, kept) = match tried {
            Some(Ok((idle, _))) => {
                self.log.start(&request_id, self.deployment.version);
                return Ok(idle);
            }
            Some(Err(FailedInit { failure, sandbox })) => {
                let (failure, reason) = match failure {
                    InitFailure::TimedOut(_) => {
                        self.log.init_report(turn.spent, Phase::Invoke, INIT_TIMEOUT);
                        (Failure::timed_out(timeout), ShutdownReason::Timeout)
                    }
                    failure => {
                        let Some(function) = self.maker.failure_of_init(&failure) else {
                            return Err(self.refuse(turn, &with_causes(&failure)).await);
                        };
                        self.log.init_report(turn.spent, Phase::Invoke, &function.status());
                        (function, ShutdownReason::Failure)
                    }
                };
                (failure, Some((sandbox, reason)))
            }
            None => (Failure::stopped(), None),
        };
        self.log.start(&request_id, self.deployment.version);
        let kept = kept.filter(|(sandbox, _)| sandbox.can_reset());
        self.tell_ended(turn, Usage::default(), Err(failure), kept.is_some()).await;
        Err(kept.map(After::Failed))
    }

    /// Runs one invocation and tells how it ended; returns the sandbox unless it has ended.
    async fn invoke(&self, idle: Sandbox<Idle>, turn: &Turn) -> Option<Next> {
        let invocation = &turn.invocation;
        let killer = idle.killer();
        let mut killed = false;
        let ended = {
            let mut call = self.call(turn);
            let passed = Notify::new();
            let mut passing = std::pin::pin!(self.pass(invocation, &mut call, &passed));
            let mut running = std::pin::pin!(idle.try_invoke(call));
            let (mut ended, mut all_passed) = (None, false);
            while ended.is_none() {
                tokio::select! {
                    now = &mut running => ended = Some(now),
                    () = &mut passing, if !all_passed => all_passed = true,
                    () = self.kill.notified(), if !killed => {
                        killed = true;
                        killer.kill();
                    }
                }
            }
            passed.notify_one();
            if !all_passed {
                passing.await;
            }
            ended
        };
        let (outcome, after) = match ended? {
            Ok(ended) => ended,
            Err(error) => return self.refuse(turn, &with_causes(&error)).await,
        };
        let failure = match after {
            lambda_sandbox::After::Failed(_) if killed => Some(Failure::stopped()),
            _ => Failure::of(&outcome.answer, invocation.timeout),
        };
        let reason = match outcome.answer {
            SandboxAnswer::TimedOut => ShutdownReason::Timeout,
            _ => ShutdownReason::Failure,
        };
        let response = match (failure, outcome.answer) {
            (Some(failure), _) => Err(failure),
            (None, SandboxAnswer::Success(response)) => Ok(response.body),
            (None, _) => Ok(Bytes::new()),
        };
        let (after, reusable) = match after {
            lambda_sandbox::After::Usable(busy) => (After::Usable(busy), true),
            lambda_sandbox::After::Failed(failed) => {
                let reusable = failed.can_reset();
                (After::Failed((failed, reason)), reusable)
            }
        };
        self.tell_ended(turn, outcome.usage, response, reusable).await;
        Some(after)
    }

    /// Passes on the parts of a streamed answer until `ended` is notified. Does nothing for a
    /// caller who takes the answer as a whole.
    fn pass<'a>(
        &'a self,
        invocation: &Invocation,
        call: &mut Call,
        ended: &'a Notify,
    ) -> impl Future<Output = ()> + Send + use<'a> {
        let passing = invocation.streamed.then(|| {
            let (sender, parts) = mpsc::channel(1);
            call.stream = Some(sender);
            stream::renew(&self.credits);
            let (context, credits) = (&*self.context, &*self.credits);
            let (sandbox, invocation) = (self.sandbox, invocation.id);
            Passing { context, sandbox, invocation, credits, parts, ended }
        });
        async move {
            if let Some(passing) = passing {
                passing.pass().await;
            }
        }
    }

    /// Tells that the function has not seen the invocation: another sandbox may take it.
    async fn refuse(&self, turn: &Turn, error: &str) -> Option<Next> {
        let sandbox = self.sandbox;
        tracing::warn!(error, sandbox = sandbox.0, "invocation not handed over");
        let invocation = turn.invocation.id;
        self.context.tell(WorkerEvent::Refused { sandbox, invocation }).await;
        None
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
        let (init_duration, restore_duration, billed_restore_duration) = match turn.began {
            None => (None, None, None),
            Some(Began::Init(duration)) => (Some(duration), None, None),
            Some(Began::Restore { duration, hooks }) => (None, Some(duration), Some(hooks)),
        };
        let report = Report {
            duration: turn.spent + usage.duration,
            init_duration,
            restore_duration,
            billed_restore_duration,
            memory_mb: self.deployment.config.memory_mb,
            memory_peak_bytes: usage.memory_peak_bytes,
        };
        let function_error = response.is_err();
        let request_id = &turn.invocation.request_id;
        let (payload, status) = match response {
            Ok(body) => (body, String::new()),
            Err(failure) => {
                if !self.log.is_json() {
                    let lines = failure.lines(request_id, SystemTime::now());
                    lines.into_iter().for_each(|line| self.log.say(line));
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

/// Waits until a sandbox can take another invocation. Freezes it unless an order waits already: a
/// sandbox that works without a pause is neither frozen nor thawed.
async fn settle(
    busy: Sandbox<Busy>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    retire_at: Option<Instant>,
) -> Result<(Sandbox<Idle>, Option<Order>), (lambda_sandbox::Error, Sandbox<Failed>)> {
    let idle = busy.try_settle_running().await?;
    // The manager answers the caller first, and may have the next invocation.
    tokio::task::yield_now().await;
    let usable = retire_at.is_none_or(|at| Instant::now() < at);
    match usable.then(|| orders.try_recv().ok()).flatten() {
        Some(order) => Ok((idle, Some(order))),
        None => Ok((idle.try_freeze().await?, None)),
    }
}

/// Waits until `at`; without it for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
