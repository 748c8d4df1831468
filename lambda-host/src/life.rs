//! One sandbox's life on this machine: a task that makes it, runs invocations in it and ends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::{
    Answer as SandboxAnswer, Busy, Created, Idle, InitFailure, InitReport, Invocation as Call,
    LogLine, LogSink, Outcome, Sandbox, ShutdownReason,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::error::with_causes;
use crate::failure::Failure;
use crate::invocation::{Answer, LogTail, Report};
use crate::local::{Order, Shared};
use crate::registry::Function;
use crate::worker::{Invocation, SandboxNumber, StartFault, WorkerEvent};

/// One sandbox from its making to its end.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sandbox: SandboxNumber,
    pub(crate) function: Arc<Function>,
    pub(crate) kill: Arc<Notify>,
    pub(crate) log: Arc<SandboxLog>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.running.send_modify(|count| *count -= 1);
    }
}

impl Life {
    pub(crate) async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
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
}

/// Takes a sandbox's output: what it writes before an invocation counts to it, as in Lambda's log.
#[derive(Debug, Default)]
pub(crate) struct SandboxLog {
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
