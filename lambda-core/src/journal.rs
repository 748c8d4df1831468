//! The journal: what was decided, in order, so that another engine can begin where this one ended.
//!
//! Decisions are kept, not inputs: a newer engine would decide otherwise from the same inputs, but it can take over
//! what was decided.

use std::collections::BTreeMap;

use crate::{Command, Event, ReportedSandbox, ReportedVm, SandboxId, Time, VmId, WorkerId};

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Decision {
    /// When.
    pub at: Time,
    /// What.
    pub command: Command,
}

/// What runs where by a journal: what was started and not ended.
///
/// It believes that what was commanded was done; [`Event::WorkerReported`] from the workers themselves corrects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    vms: BTreeMap<VmId, (WorkerId, ReportedVm)>,
    sandboxes: BTreeMap<SandboxId, (WorkerId, ReportedSandbox)>,
}

impl Ledger {
    /// Reads a journal from its beginning.
    pub fn replay(decisions: impl IntoIterator<Item = Decision>) -> Self {
        let mut ledger = Self::default();
        decisions.into_iter().for_each(|decision| ledger.take(&decision.command));
        ledger
    }

    /// Takes one more decision.
    pub fn take(&mut self, command: &Command) {
        match *command {
            Command::StartVm { vm, worker, memory_bytes, account } => {
                self.vms.insert(vm, (worker, ReportedVm { vm, account, memory_bytes }));
            }
            Command::StopVm { vm, .. } => {
                self.vms.remove(&vm);
            }
            Command::StartSandbox { sandbox, worker, function, revision, vm, interface } => {
                let started = ReportedSandbox {
                    sandbox,
                    function,
                    revision,
                    vm,
                    interface,
                    invocation: None,
                };
                self.sandboxes.insert(sandbox, (worker, started));
            }
            Command::StopSandbox { sandbox, .. } | Command::TimeOut { sandbox, .. } => {
                self.sandboxes.remove(&sandbox);
            }
            Command::RetireWorker { worker } | Command::LoseWorker { worker } => {
                self.sandboxes.retain(|_, (on, _)| *on != worker);
                self.vms.retain(|_, (on, _)| *on != worker);
            }
            _ => {}
        }
    }

    /// Returns what a worker runs, as it would report it; what runs in each sandbox is not known.
    #[must_use]
    pub fn report(&self, worker: WorkerId) -> Event {
        let vms = self.vms.values().filter(|(on, _)| *on == worker).map(|(_, it)| *it);
        let sandboxes = self.sandboxes.values().filter(|(on, _)| *on == worker).map(|(_, it)| *it);
        Event::WorkerReported { worker, vms: vms.collect(), sandboxes: sandboxes.collect() }
    }

    /// Returns a sandbox's worker, if it runs.
    #[must_use]
    pub fn worker_of(&self, sandbox: SandboxId) -> Option<WorkerId> {
        self.sandboxes.get(&sandbox).map(|(worker, _)| *worker)
    }

    /// Returns how many sandboxes run.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.sandboxes.len()
    }
}
