//! The journal: decisions in order, from which the engine that follows can learn the running
//! sandboxes and VMs.
//!
//! The journal holds decisions, not inputs. A newer version of the engine would decide differently
//! on the same inputs, but it can adopt the old decisions.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::event::{Event, ReportedSandbox, ReportedVm};
use crate::id::{SandboxId, VmId, WorkerId};
use crate::time::Time;

/// A decision of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Decision {
    /// The time of the decision, in the driver's time.
    pub at: Time,
    /// The command that was issued. A sandbox that was adopted or ended without a command appears
    /// as the `StartSandbox` or `StopSandbox` that would have had that effect.
    pub command: Command,
}

/// The sandboxes and VMs that a journal starts and does not end, with their workers.
///
/// The ledger assumes that every command was carried out. [`Event::WorkerReported`] from the
/// workers corrects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    vms: BTreeMap<VmId, (WorkerId, ReportedVm)>,
    sandboxes: BTreeMap<SandboxId, (WorkerId, ReportedSandbox)>,
}

impl Ledger {
    /// Builds a ledger from a whole journal, in order.
    pub fn replay(decisions: impl IntoIterator<Item = Decision>) -> Self {
        let mut ledger = Self::default();
        decisions.into_iter().for_each(|decision| ledger.take(&decision.command));
        ledger
    }

    /// Applies one more decision.
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

    /// Returns the ledger's entries for a worker as the report that the worker would send.
    /// `invocation` is `None` in every sandbox: the ledger does not track invocations.
    #[must_use]
    pub fn report(&self, worker: WorkerId) -> Event {
        let vms = self.vms.values().filter(|(on, _)| *on == worker).map(|(_, it)| *it);
        let sandboxes = self.sandboxes.values().filter(|(on, _)| *on == worker).map(|(_, it)| *it);
        Event::WorkerReported { worker, vms: vms.collect(), sandboxes: sandboxes.collect() }
    }

    /// Returns the worker of a sandbox, or `None` when the ledger has no such sandbox.
    #[must_use]
    pub fn worker_of(&self, sandbox: SandboxId) -> Option<WorkerId> {
        self.sandboxes.get(&sandbox).map(|(worker, _)| *worker)
    }

    /// Returns the number of running sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.sandboxes.len()
    }
}
