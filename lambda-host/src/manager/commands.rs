//! What the engine decides: the driver has workers and networks carry it out, and answers callers.

use std::sync::Arc;

use lambda_core::{Command, Event, Fault, FunctionId, RejectReason};
use tracing::Span;

use super::answer;
use super::driver::{Driver, Held};
use super::ids::{is_of, to_engine};
use crate::error::Error;
use crate::event::HostEvent;
use crate::function::account::AccountIndex;
use crate::logs::LogEvent;
use crate::worker::log::now_ms;
use crate::worker::protocol::{
    Deployment, InterfaceId, Invocation, InvocationId, SandboxId, StartFault, VmId, VmSpec,
    WorkerCommand, WorkerId,
};

impl Driver {
    pub(super) fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::StartSandbox { sandbox, worker, function, revision, interface, vm } => {
                    let (sandbox, worker) = (SandboxId(sandbox.0), WorkerId(worker.0));
                    let interface = interface.map(|it| InterfaceId(it.0));
                    let vm = vm.map(|vm| VmId(vm.0));
                    self.start(sandbox, worker, function, revision, (interface, vm));
                }
                Command::StopSandbox { sandbox, worker, .. } => {
                    self.observer.sandbox_stopping(SandboxId(sandbox.0));
                    let stop = WorkerCommand::Stop { sandbox: SandboxId(sandbox.0) };
                    self.fleet.carry_out(WorkerId(worker.0), stop);
                }
                Command::Dispatch { invocation, sandbox, worker, .. } => {
                    let (invocation, sandbox) = (InvocationId(invocation.0), SandboxId(sandbox.0));
                    self.dispatch(invocation, sandbox, WorkerId(worker.0));
                }
                Command::TimeOut { invocation, sandbox, worker } => {
                    let kill = WorkerCommand::Kill { sandbox: SandboxId(sandbox.0) };
                    self.fleet.carry_out(WorkerId(worker.0), kill);
                    self.lost(InvocationId(invocation.0));
                }
                Command::Reject { invocation, reason } => {
                    self.reject(InvocationId(invocation.0), reason);
                }
                Command::LoseWorker { worker } => {
                    self.on_worker_lost(WorkerId(worker.0), "its lease is over without a beat");
                }
                Command::AskWorker { zone, .. } => {
                    self.show(|| HostEvent::WorkerWanted { zone: u32::from(zone.0) });
                }
                // Nothing to do: the worker works on until its last sandbox is gone.
                Command::DrainWorker { .. } => {}
                Command::RetireWorker { worker } => {
                    self.fleet.remove(WorkerId(worker.0), "retired");
                    self.observer.worker_gone(WorkerId(worker.0));
                    self.show(|| HostEvent::WorkerRetired { worker: worker.0 });
                }
                Command::StartInterface { interface, network, .. } => {
                    self.networks.start(InterfaceId(interface.0), network);
                }
                Command::StopInterface { interface } => {
                    self.networks.stop(InterfaceId(interface.0));
                }
                Command::StartVm { vm, worker, memory_bytes, account } => {
                    let account = account.map(|it| AccountIndex(it.0));
                    let vm = VmSpec { vm: VmId(vm.0), account, memory_bytes };
                    let start = WorkerCommand::StartVm { vm };
                    self.fleet.carry_out(WorkerId(worker.0), start);
                }
                Command::StopVm { vm, worker } => {
                    let stop = WorkerCommand::StopVm { vm: VmId(vm.0) };
                    self.fleet.carry_out(WorkerId(worker.0), stop);
                }
            }
        }
    }

    fn start(
        &mut self,
        sandbox: SandboxId,
        worker: WorkerId,
        function: FunctionId,
        revision: u64,
        (interface, vm): (Option<InterfaceId>, Option<VmId>),
    ) {
        let known = self.functions.deployment(function).filter(|it| it.number == revision);
        let Some(deployment) = known.cloned() else {
            // Kept while anything of it is left, so that the engine has no reason to ask for this.
            tracing::error!(sandbox = sandbox.0, "a sandbox of a function that is not there");
            let failed =
                Event::SandboxFailed { sandbox: to_engine(sandbox), fault: Fault::Function };
            if let Err(error) = self.engine.handle(self.now(), failed) {
                tracing::error!(%error, "the engine does not know its own sandbox");
            }
            return;
        };
        let name = deployment.config.name.clone();
        self.show(|| HostEvent::SandboxStarting { sandbox, worker, function: name });
        if self.observer.is_on() {
            let placement = self.engine.explanations().find(|it| is_of(it, sandbox)).cloned();
            let series = self.series(deployment.account, &deployment.config.name);
            self.observer.sandbox_starting(sandbox, worker, &deployment, &series, placement);
        }
        let held = Held { worker, deployment: Arc::clone(&deployment), ready: false, fault: None };
        self.sandboxes.insert(sandbox, held);
        let deployment = Box::new(Deployment::clone(&deployment));
        self.fleet.carry_out(worker, WorkerCommand::Start { sandbox, deployment, interface, vm });
    }

    fn dispatch(&mut self, id: InvocationId, sandbox: SandboxId, worker: WorkerId) {
        let (Some(pending), Some(held)) = (self.pending.get_mut(id), self.sandboxes.get(&sandbox))
        else {
            return;
        };
        pending.sent_to = Some((sandbox, worker));
        let request = &pending.request;
        let invocation = Invocation {
            id,
            request_id: pending.request_id.clone(),
            payload: request.payload.clone(),
            timeout: held.deployment.config.timeout,
            client_context: request.client_context.clone(),
            trace_id: request.trace_id.clone(),
            function_arn: pending.function_arn.clone(),
            streamed: pending.stream.is_some(),
            span: pending.span.clone(),
        };
        pending.queued = Span::none();
        self.observer.dispatched(id, sandbox);
        self.fleet.carry_out(worker, WorkerCommand::Dispatch { sandbox, invocation });
    }

    /// Lets a worker send as many more parts of an answer.
    pub(super) fn read(&self, invocation: InvocationId, parts: u32) {
        let sent_to = self.pending.get(invocation).and_then(|it| it.sent_to);
        if let Some((sandbox, worker)) = sent_to {
            self.fleet.carry_out(worker, WorkerCommand::Read { sandbox, invocation, parts });
        }
    }

    fn reject(&mut self, id: InvocationId, reason: RejectReason) {
        let sandbox = match reason {
            RejectReason::SandboxFailed { sandbox } => {
                self.sandboxes.get_mut(&SandboxId(sandbox.0))
            }
            RejectReason::SandboxLost | RejectReason::WorkerLost => return self.lost(id),
            _ => None,
        };
        let fault =
            sandbox.and_then(|held| Some((Arc::clone(&held.deployment), held.fault.take()?)));
        let Some(pending) = self.take(id) else {
            return;
        };
        let error = match fault {
            Some((
                deployment,
                StartFault::Function { error, kind, log, log_stream, init_duration },
            )) => {
                let request_id = pending.request_id.clone();
                let (answer, lines) =
                    answer::init_failed(request_id, &deployment, &error, &kind, log, init_duration);
                let now = now_ms();
                let events = lines.into_iter().map(|line| LogEvent::new(now, line)).collect();
                self.append_log(&deployment, log_stream, events);
                self.observer.ended(id, true, &answer.report);
                return pending.answer(Ok(answer));
            }
            Some((_, StartFault::Worker { reason })) => Error::SandboxUnavailable { reason },
            None => match self.networks.why_refused(pending.function, reason) {
                Some(error) => Error::Network(error),
                None => {
                    let deployment = self.functions.deployment(pending.function);
                    let arn = deployment.map_or_else(String::new, |it| it.arn.clone());
                    answer::refused(reason, arn)
                }
            },
        };
        self.observer.refused(id, Some(reason), &error);
        let (request_id, reason) = (pending.request_id.clone(), error.to_string());
        self.show(|| HostEvent::Rejected { request_id, reason });
        pending.answer(Err(error));
    }

    /// Answers an invocation whose sandbox ended without a word of it.
    pub(super) fn lost(&mut self, id: InvocationId) {
        let Some(pending) = self.take(id) else {
            return;
        };
        let deployment = self.functions.deployment(pending.function);
        let memory_mb = deployment.map_or(0, |it| it.config.memory_mb);
        let version = self.version(pending.function);
        let answer = answer::lost(pending.request_id.clone(), version, memory_mb);
        self.observer.ended(id, true, &answer.report);
        pending.answer(Ok(answer));
    }
}
