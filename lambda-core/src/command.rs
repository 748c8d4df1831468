//! Commands: the engine's output.

use crate::id::{
    AccountId, FunctionId, InterfaceId, InvocationId, NetworkId, SandboxId, VmId, WorkerId, Zone,
};
use crate::time::Time;

/// An action that the driver must carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(
    clippy::exhaustive_enums,
    reason = "a driver that ignores a command breaks the engine's picture"
)]
pub enum Command {
    /// Start a sandbox. Report `SandboxReady` or `SandboxFailed`.
    StartSandbox {
        /// The id of the new sandbox.
        sandbox: SandboxId,
        /// The worker that runs it.
        worker: WorkerId,
        /// The function that it runs for its whole life.
        function: FunctionId,
        /// The function's revision, as [`Event::FunctionPut`](crate::Event::FunctionPut) gave it.
        revision: u64,
        /// The VM to start it in, which is ready; `None` on workers without VMs.
        vm: Option<VmId>,
        /// The network interface to give it, which is ready; `None` for a function without a
        /// network.
        interface: Option<InterfaceId>,
    },
    /// Destroy a sandbox that runs no invocation. Report `SandboxGone`. The command repeats every
    /// [`Config::stop_timeout`](crate::Config::stop_timeout) until the report.
    StopSandbox {
        /// The sandbox to destroy.
        sandbox: SandboxId,
        /// The worker that runs the sandbox.
        worker: WorkerId,
        /// Why the sandbox ends. The driver destroys it whatever the reason.
        reason: StopReason,
    },
    /// Run an invocation. Report `InvocationEnded`.
    Dispatch {
        /// The invocation to run.
        invocation: InvocationId,
        /// The sandbox that runs it.
        sandbox: SandboxId,
        /// The worker of the sandbox.
        worker: WorkerId,
        /// The time by which it must have ended, in the driver's time.
        deadline: Time,
    },
    /// Destroy a busy sandbox, since its invocation ran longer than its timeout or than its
    /// draining worker waits. Report `SandboxGone`. The engine already counts the invocation as
    /// ended.
    TimeOut {
        /// The invocation that is cut off.
        invocation: InvocationId,
        /// The sandbox to destroy.
        sandbox: SandboxId,
        /// The worker of the sandbox.
        worker: WorkerId,
    },
    /// Refuse an invocation.
    Reject {
        /// The invocation to answer.
        invocation: InvocationId,
        /// The reason for the answer.
        reason: RejectReason,
    },
    /// Start a VM. Report `VmReady` or `VmGone`.
    StartVm {
        /// The id of the new VM.
        vm: VmId,
        /// The worker that runs it.
        worker: WorkerId,
        /// The memory of the VM, in bytes.
        memory_bytes: u64,
        /// The customer of the VM; `None` for a VM of a pool, which gets its customer with its
        /// first sandbox.
        account: Option<AccountId>,
    },
    /// Stop a VM that holds no sandbox. Report `VmGone`.
    StopVm {
        /// The VM to stop.
        vm: VmId,
        /// The worker that runs the VM.
        worker: WorkerId,
    },
    /// Make a network interface. Report `InterfaceReady` or `InterfaceGone`.
    StartInterface {
        /// The id of the new interface.
        interface: InterfaceId,
        /// The network that it belongs to.
        network: NetworkId,
        /// The zone whose subnet it takes an address of.
        zone: Zone,
    },
    /// Remove a network interface that no sandbox uses. Report `InterfaceGone`.
    StopInterface {
        /// The interface to remove.
        interface: InterfaceId,
    },
    /// Provide another worker. The driver chooses its id and reports `WorkerJoined`.
    AskWorker {
        /// The zone of the new worker.
        zone: Zone,
        /// What it must have ([`Capacity::labels`](crate::Capacity::labels)).
        labels: u16,
    },
    /// A worker starts to drain: the engine starts no more sandboxes on it. It is at the end of its
    /// life, or the fleet is too large.
    DrainWorker {
        /// The draining worker.
        worker: WorkerId,
    },
    /// A worker's lease expired. The engine has forgotten the worker and everything on it. Ensure
    /// that the machine runs nothing, or let it report what it still runs when it joins again.
    LoseWorker {
        /// The lost worker.
        worker: WorkerId,
    },
    /// A drained worker is empty. Give it back: the engine has forgotten it.
    RetireWorker {
        /// The empty worker.
        worker: WorkerId,
    },
}

impl Command {
    /// Returns the worker that carries it out, or that it is about; `None` if it is about none.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        match *self {
            Self::StartSandbox { worker, .. }
            | Self::StopSandbox { worker, .. }
            | Self::Dispatch { worker, .. }
            | Self::TimeOut { worker, .. }
            | Self::StartVm { worker, .. }
            | Self::StopVm { worker, .. }
            | Self::DrainWorker { worker }
            | Self::LoseWorker { worker }
            | Self::RetireWorker { worker } => Some(worker),
            Self::Reject { .. }
            | Self::StartInterface { .. }
            | Self::StopInterface { .. }
            | Self::AskWorker { .. } => None,
        }
    }
}

/// Why a sandbox is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StopReason {
    /// It was idle for as long as the idle policy keeps it.
    Idle,
    /// Its worker is draining.
    Draining,
    /// Its function was removed or has a new revision.
    FunctionRemoved,
    /// Another function needs its room.
    Evicted,
    /// It was not ready within [`Config::start_timeout`](crate::Config::start_timeout).
    StartTimedOut,
    /// A worker reported it, but no engine started it or it may not be adopted.
    Stray,
    /// Its VM or its network interface is gone.
    PrerequisiteGone,
    /// Its invocation ran into its deadline ([`Command::TimeOut`]), and the sandbox's end is not
    /// reported yet.
    TimedOut,
    /// Its worker reported that it cannot be used again, and has not reported its end yet.
    NotReusable,
    /// It ended without a command. Appears only in the journal.
    Gone,
}

/// Why an invocation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RejectReason {
    /// The engine does not know the function, or it is removed.
    FunctionUnknown,
    /// The function's reserved concurrency is used up.
    ReservedConcurrency,
    /// The account's unreserved concurrency is used up.
    AccountConcurrency,
    /// The function has used up its scaling rate
    /// ([`Config::scaling_starts_max`](crate::Config::scaling_starts_max)).
    ScalingRate,
    /// Too many invocations wait ([`Config::waiting_max`](crate::Config::waiting_max)).
    WaitingFull,
    /// No worker has room for a sandbox, or none got room within
    /// [`Config::wait_max`](crate::Config::wait_max).
    NoCapacity,
    /// All sandboxes that the function may have were busy for
    /// [`Config::wait_max`](crate::Config::wait_max)
    /// ([`FunctionSettings::sandboxes_max`](crate::FunctionSettings::sandboxes_max)).
    SandboxesMax,
    /// The function is larger than any worker.
    FunctionTooLarge,
    /// The function's network is unknown, or its subnets have no free address.
    NoNetwork,
    /// The start of the sandbox that the invocation waited for failed.
    SandboxFailed {
        /// The sandbox that failed.
        sandbox: SandboxId,
    },
    /// Its worker was lost while it ran.
    WorkerLost,
    /// Its sandbox ended while it ran.
    SandboxLost,
}
