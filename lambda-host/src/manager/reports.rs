//! What workers report: the driver tells the engine, and answers callers.

use lambda_core::{
    AccountId, Capacity, Event, Fault, Isolation, ReportedSandbox, ReportedVm, Used,
};
use tokio::sync::mpsc;

use super::answer;
use super::driver::{Driver, Held};
use super::ids::{to_core, to_engine};
use super::stream::StreamItem;
use crate::error::Error;
use crate::event::HostEvent;
use crate::function::version::Version;
use crate::worker::protocol::{
    Boundary, Epoch, FromWorker, InvocationId, RunningSandbox, SandboxId, StartFault, StreamPart,
    VERSION, VmId, VmSpec, WorkerCapacity, WorkerCommand, WorkerEvent, WorkerId,
};

impl Driver {
    pub(super) fn on_worker(&mut self, message: FromWorker) {
        let FromWorker { version, worker, epoch, event } = message;
        if version != VERSION {
            return self.on_worker_lost(worker, "speaks another version of the worker protocol");
        }
        if let WorkerEvent::Joined { capacity, sandboxes, vms } = event {
            return self.on_joined(worker, epoch, capacity, (&sandboxes, &vms));
        }
        if self.fleet.epoch(worker) != Some(epoch) {
            return tracing::debug!(worker = worker.0, "an event of an earlier life of a worker");
        }
        match event {
            WorkerEvent::Ready { sandbox, init_duration } => {
                self.observer.sandbox_ready(sandbox, init_duration);
                self.show(|| HostEvent::SandboxReady { sandbox, init_duration });
                if let Some(held) = self.sandboxes.get_mut(&sandbox) {
                    held.ready = true;
                }
                self.handle(Event::SandboxReady { sandbox: to_engine(sandbox) });
            }
            WorkerEvent::Failed { sandbox, fault } => self.on_failed(sandbox, fault),
            WorkerEvent::Ended { sandbox, invocation, outcome, cpu_time, reusable } => {
                tracing::debug!(sandbox = sandbox.0, ?cpu_time, reusable, "answered");
                let memory_peak_bytes = outcome.report.memory_peak_bytes;
                if let Some(pending) = self.take(invocation) {
                    let version = self.version(pending.function);
                    let answer = answer::answered(pending.request_id.clone(), version, outcome);
                    self.observer.ended(invocation, answer.function_error, &answer.report);
                    self.show(|| HostEvent::Answered {
                        request_id: answer.request_id.clone(),
                        sandbox,
                        function_error: answer.function_error,
                        report: answer.report,
                    });
                    pending.answer(Ok(answer));
                }
                let used = Used { cpu_time: Some(cpu_time), memory_peak_bytes };
                self.handle(ended(invocation, sandbox, reusable, used));
            }
            WorkerEvent::Streamed { invocation, part, .. } => self.on_streamed(invocation, part),
            WorkerEvent::Refused { sandbox, invocation } => self.on_refused(sandbox, invocation),
            WorkerEvent::Gone { sandbox } => {
                self.handle(Event::SandboxGone { sandbox: to_engine(sandbox) });
                self.forget(sandbox);
            }
            WorkerEvent::Logged { sandbox, stream, events } => {
                if let Some(held) = self.sandboxes.get(&sandbox) {
                    self.append_log(&held.deployment, stream, events);
                }
            }
            WorkerEvent::Frozen { invocations, .. } => {
                for (invocation, duration) in invocations {
                    self.observer.frozen(invocation, duration);
                }
            }
            WorkerEvent::VmReady { vm } => {
                self.show(|| HostEvent::VmReady { vm, worker });
                self.handle(Event::VmReady { vm: lambda_core::VmId(vm.0) });
            }
            WorkerEvent::VmGone { vm, reason } => self.on_vm_gone(vm, worker, reason),
            WorkerEvent::Beat => self.handle(Event::WorkerBeat { worker: to_core(worker) }),
            WorkerEvent::Joined { .. } => {}
        }
    }

    fn on_vm_gone(&mut self, vm: VmId, worker: WorkerId, reason: Option<String>) {
        if let Some(reason) = &reason {
            tracing::warn!(vm = vm.0, worker = worker.0, reason, "virtual machine gone");
        }
        self.show(|| HostEvent::VmGone { vm, worker, reason });
        self.handle(Event::VmGone { vm: lambda_core::VmId(vm.0) });
    }

    /// Passes a part of an answer on to its caller.
    fn on_streamed(&mut self, invocation: InvocationId, part: StreamPart) {
        let Some(pending) = self.pending.get_mut(invocation) else { return };
        let Some(stream) = &pending.stream else { return };
        let item = match part {
            StreamPart::Begin { content_type } => {
                let (function, request_id) = (pending.function, pending.request_id.clone());
                let deployment = self.functions.deployment(function);
                let version = deployment.map_or(Version::Latest, |it| it.version);
                StreamItem::Begin { invocation, request_id, version, content_type }
            }
            StreamPart::Data(data) => StreamItem::Data(data),
        };
        match stream.try_send(item) {
            Ok(()) => {}
            // The caller has gone: the function goes on, as Lambda's does.
            Err(mpsc::error::TrySendError::Closed(_)) => self.read(invocation, 1),
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::error!("a worker sends more of an answer than it may");
                pending.stream = None;
            }
        }
    }

    fn on_joined(
        &mut self,
        worker: WorkerId,
        epoch: Epoch,
        capacity: WorkerCapacity,
        (sandboxes, vms): (&[RunningSandbox], &[VmSpec]),
    ) {
        if !self.fleet.contains(worker) {
            return tracing::warn!(worker = worker.0, "a worker that was never added joins");
        }
        match self.fleet.epoch(worker) {
            // Its connection was lost and is there again.
            Some(known) if known == epoch => return self.report(worker, sandboxes, vms),
            Some(_) => self.lose_sandboxes(worker),
            None => {}
        }
        let joined = Event::WorkerJoined {
            worker: to_core(worker),
            capacity: Capacity {
                interface_slots: capacity.interface_slots,
                isolation: match capacity.boundary {
                    Boundary::Sandbox => Isolation::Sandbox,
                    Boundary::VmPerAccount => Isolation::VmPerAccount,
                    Boundary::VmPerSandbox => Isolation::VmPerSandbox,
                },
                ..Capacity::of_memory(capacity.memory_bytes)
            },
        };
        match self.try_handle(joined) {
            Ok(()) => {
                self.fleet.joined(worker, epoch);
                self.observer.worker_joined(worker, capacity.memory_bytes);
                if !sandboxes.is_empty() || !vms.is_empty() {
                    self.report(worker, sandboxes, vms);
                }
            }
            Err(error) => {
                let bytes = capacity.memory_bytes;
                let reason = format!("a capacity of {bytes} bytes cannot be used: {error}");
                tracing::error!(worker = worker.0, reason, "worker refused");
                self.fleet.remove(worker, &reason);
            }
        }
    }

    /// Tells the engine all that a worker runs: the engine stops what it does not know.
    fn report(&mut self, worker: WorkerId, sandboxes: &[RunningSandbox], vms: &[VmSpec]) {
        let mut reported = Vec::new();
        for it in sandboxes {
            match self.functions.id(&it.key()) {
                Some(function) => reported.push(ReportedSandbox {
                    sandbox: to_engine(it.sandbox),
                    function,
                    revision: it.deployment,
                    vm: it.vm.map(|vm| lambda_core::VmId(vm.0)),
                    interface: it.interface.map(|it| lambda_core::InterfaceId(it.0)),
                    invocation: it.invocation.map(|it| lambda_core::InvocationId(it.0)),
                }),
                None => self.fleet.carry_out(worker, WorkerCommand::Kill { sandbox: it.sandbox }),
            }
        }
        let reported_vm = |it: &VmSpec| ReportedVm {
            vm: lambda_core::VmId(it.vm.0),
            account: it.account.map(|it| AccountId(it.0)),
            memory_bytes: it.memory_bytes,
        };
        let vms = vms.iter().map(reported_vm).collect();
        let worker = to_core(worker);
        self.handle(Event::WorkerReported { worker, vms, sandboxes: reported });
    }

    pub(super) fn on_worker_lost(&mut self, worker: WorkerId, reason: &str) {
        if !self.fleet.contains(worker) {
            return;
        }
        tracing::warn!(worker = worker.0, reason, "worker lost");
        self.lose_sandboxes(worker);
        self.fleet.remove(worker, reason);
        self.observer.worker_gone(worker);
    }

    /// Counts all sandboxes of a worker as gone: the engine answers for their invocations.
    fn lose_sandboxes(&mut self, worker: WorkerId) {
        self.handle(Event::WorkerLost { worker: to_core(worker) });
        let its = |held: &Held| held.worker == worker;
        let gone: Vec<SandboxId> =
            self.sandboxes.iter().filter(|(_, held)| its(held)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|sandbox| self.forget(sandbox));
    }

    fn on_failed(&mut self, sandbox: SandboxId, fault: StartFault) {
        let (whose, reason) = match &fault {
            StartFault::Function { kind, .. } => (Fault::Function, kind.clone()),
            StartFault::Worker { reason } => {
                tracing::warn!(sandbox = sandbox.0, reason, "sandbox not made");
                (Fault::Worker, reason.clone())
            }
        };
        self.observer.sandbox_failed(whose == Fault::Function);
        self.show(|| HostEvent::SandboxFailed { sandbox, reason });
        if let Some(held) = self.sandboxes.get_mut(&sandbox) {
            held.fault = Some(fault);
        }
        self.handle(Event::SandboxFailed { sandbox: to_engine(sandbox), fault: whose });
        self.forget(sandbox);
    }

    /// An invocation did not reach its function, since the sandbox had ended: another one takes it.
    fn on_refused(&mut self, sandbox: SandboxId, invocation: InvocationId) {
        let pending = self.take(invocation);
        self.handle(ended(invocation, sandbox, false, Used::default()));
        let Some(mut pending) = pending else { return };
        pending.refused += 1;
        if pending.refused > REFUSALS_MAX {
            let refused = pending.refused;
            let reason = format!("{refused} sandboxes ended before they could take the invocation");
            let error = Error::SandboxUnavailable { reason };
            self.observer.refused(invocation, None, &error);
            return pending.answer(Err(error));
        }
        self.observer.handed_back(invocation);
        tracing::debug!(sandbox = sandbox.0, "an invocation is handed to another sandbox");
        self.arrive(pending);
    }
}

/// The engine's event for an invocation that came to its end.
fn ended(invocation: InvocationId, sandbox: SandboxId, reusable: bool, used: Used) -> Event {
    let invocation = lambda_core::InvocationId(invocation.0);
    Event::InvocationEnded { invocation, sandbox: to_engine(sandbox), reusable, used }
}

/// How many sandboxes may end under an invocation before it is given up.
const REFUSALS_MAX: u32 = 3;
