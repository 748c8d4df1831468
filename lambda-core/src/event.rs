//! Events: the engine's input.

use std::time::Duration;

use crate::id::{
    AccountId, FunctionId, InterfaceId, InvocationId, NetworkId, SandboxId, VmId, WorkerId,
};
use crate::settings::{Capacity, FunctionSettings, NetworkSettings};
use crate::time::Time;

/// Something that happened on a worker, or that the driver or a customer wants. Times are those of
/// [`Engine::handle`](crate::Engine::handle).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Event {
    /// A worker is available. It runs nothing.
    WorkerJoined {
        /// The new worker; its id is not in use.
        worker: WorkerId,
        /// The resources of the worker.
        capacity: Capacity,
    },
    /// A worker sent a heartbeat. Renews its lease
    /// ([`Config::worker_lease`](crate::Config::worker_lease)).
    WorkerBeat {
        /// The worker that sent it.
        worker: WorkerId,
    },
    /// Drains a worker: it takes no new sandboxes, its idle sandboxes are stopped, its busy ones
    /// finish. Invocations that still run after [`Config::drain_max`](crate::Config::drain_max) are
    /// timed out.
    WorkerDraining {
        /// The worker to drain.
        worker: WorkerId,
    },
    /// A worker's machine will be taken away (spot capacity). The worker drains, and invocations
    /// that still run at `at` are timed out.
    WorkerEnds {
        /// The worker that ends.
        worker: WorkerId,
        /// The time of the machine's end, in the driver's time.
        at: Time,
    },
    /// A worker is short of something that the engine does not count: its memory pressure is high,
    /// its disk is full. Until [`Event::WorkerRelieved`], no sandbox and no VM starts on it, and a
    /// sizing fleet does not count on it. Its sandboxes go on and take invocations.
    WorkerPressed {
        /// The worker under pressure.
        worker: WorkerId,
    },
    /// A worker is no longer under pressure.
    WorkerRelieved {
        /// The relieved worker.
        worker: WorkerId,
    },
    /// A worker is lost with all its sandboxes and VMs.
    WorkerLost {
        /// The lost worker.
        worker: WorkerId,
    },
    /// A worker reports everything that it runs. The engine forgets the sandboxes and VMs that are
    /// not in the report. It adopts those that it does not know if an earlier engine can have
    /// started them ([`Engine::restarted`](crate::Engine::restarted)), and stops all others.
    WorkerReported {
        /// The worker that reports.
        worker: WorkerId,
        /// All VMs of the worker.
        vms: Vec<ReportedVm>,
        /// All sandboxes of the worker.
        sandboxes: Vec<ReportedSandbox>,
    },
    /// Sets the concurrency limit of an account.
    AccountPut {
        /// The limited account, below [`Config::accounts_max`](crate::Config::accounts_max).
        account: AccountId,
        /// The limit: how many invocations of the account may run or wait at once.
        concurrency_max: u32,
    },
    /// Sets the weight of an account, by which scarce room is shared. Free room goes first to the
    /// account with the least memory held per weight. An account without this event has weight 100.
    AccountWeightSet {
        /// The weighted account, below [`Config::accounts_max`](crate::Config::accounts_max).
        account: AccountId,
        /// The weight, at least 1.
        weight: u32,
    },
    /// Adds or changes a function. If `revision` differs from the known one, the sandboxes of the
    /// old revision end: idle ones at once, busy ones after their invocation. With the same
    /// revision only the two concurrency settings may change.
    FunctionPut {
        /// The new or changed function, below
        /// [`Config::functions_max`](crate::Config::functions_max).
        function: FunctionId,
        /// The driver's number for this code and configuration. The engine compares it for equality
        /// and returns it in [`Command::StartSandbox`](crate::Command::StartSandbox).
        revision: u64,
        /// The function's settings.
        settings: FunctionSettings,
    },
    /// Removes a function. New invocations are rejected; accepted ones finish.
    FunctionRemoved {
        /// The function to remove.
        function: FunctionId,
    },
    /// Adds or changes a customer's network.
    NetworkPut {
        /// The new or changed network, below [`Config::networks_max`](crate::Config::networks_max).
        network: NetworkId,
        /// The network's owner and subnets.
        settings: NetworkSettings,
    },
    /// Removes a network. No new sandbox can use it; sandboxes that use it continue.
    NetworkRemoved {
        /// The network to remove.
        network: NetworkId,
    },
    /// A customer invokes a function. The engine answers with `Reject` or `Dispatch`. A dispatched
    /// invocation ends once: with [`Event::InvocationEnded`], with `TimeOut`, or with a `Reject`
    /// when its sandbox is lost. The driver must give each invocation a new id: the engine does not
    /// detect that an id is used twice.
    InvocationArrived {
        /// The new invocation.
        invocation: InvocationId,
        /// The function to invoke.
        function: FunctionId,
    },
    /// An invocation ended in its sandbox.
    InvocationEnded {
        /// The invocation that ended.
        invocation: InvocationId,
        /// The sandbox that ran it.
        sandbox: SandboxId,
        /// Whether the sandbox can take another invocation. If `false`, the worker is already
        /// ending the sandbox.
        reusable: bool,
        /// The resources that the invocation used.
        used: Used,
    },
    /// The caller gave up on an invocation. If it still waits for a sandbox, it ends without a
    /// further command. If it already runs, the event is an error and the invocation runs to its
    /// end.
    InvocationWithdrawn {
        /// The invocation that nobody waits for.
        invocation: InvocationId,
        /// The function that it invoked.
        function: FunctionId,
    },
    /// A sandbox finished its start and can take invocations.
    SandboxReady {
        /// The sandbox that became ready.
        sandbox: SandboxId,
    },
    /// The start of a sandbox failed. Nothing of the sandbox is left.
    SandboxFailed {
        /// The sandbox that failed.
        sandbox: SandboxId,
        /// Whether the function or the worker caused the failure.
        fault: Fault,
    },
    /// A sandbox ended, and all its resources are free.
    SandboxGone {
        /// The sandbox that ended.
        sandbox: SandboxId,
    },
    /// A VM finished its start and can take sandboxes.
    VmReady {
        /// The VM that became ready.
        vm: VmId,
    },
    /// A VM ended with all its sandboxes, or could not be started.
    VmGone {
        /// The VM that ended or could not be started.
        vm: VmId,
    },
    /// A network interface can be used.
    InterfaceReady {
        /// The interface that became ready.
        interface: InterfaceId,
    },
    /// A network interface has no room for more sandboxes. Those that it has keep it; new ones get
    /// another.
    InterfaceFull {
        /// The interface that is full.
        interface: InterfaceId,
    },
    /// A network interface that was full has room again.
    InterfaceRoom {
        /// The interface that has room.
        interface: InterfaceId,
    },
    /// A network interface is removed, or could not be made.
    InterfaceGone {
        /// The interface that was removed or could not be made.
        interface: InterfaceId,
    },
}

/// The resources that an invocation used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Used {
    /// Processor time; `None` if it was not measured.
    pub cpu_time: Option<Duration>,
    /// The highest memory use, in bytes; `None` if it was not measured.
    pub memory_peak_bytes: Option<u64>,
}

/// A VM in a worker's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReportedVm {
    /// The VM's id, as the engine that started it gave it.
    pub vm: VmId,
    /// The customer whose sandboxes it runs; `None` for a VM of a pool that no customer uses yet.
    pub account: Option<AccountId>,
    /// The memory of the VM, in bytes.
    pub memory_bytes: u64,
}

/// A sandbox in a worker's report, ready or busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReportedSandbox {
    /// The sandbox's id, as the engine that started it gave it.
    pub sandbox: SandboxId,
    /// The function that it runs.
    pub function: FunctionId,
    /// The revision of the function that it runs.
    pub revision: u64,
    /// The VM that it is in; `None` on workers without VMs.
    pub vm: Option<VmId>,
    /// Its network interface; `None` for a function without a network.
    pub interface: Option<InterfaceId>,
    /// The invocation that it runs; `None` while it is idle.
    pub invocation: Option<InvocationId>,
}

/// The party that caused the failure of a sandbox's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Fault {
    /// The function. Each such failure rejects one waiting invocation.
    Function,
    /// The worker. The start is tried again, on another worker if one can take it.
    Worker,
}

/// Why an event was refused. A refused event leaves the engine unchanged, apart from timers that
/// were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The id is unknown: the event is late, repeated, or meant for another engine.
    Unknown,
    /// The event does not fit the state of its subject: it is repeated or out of order.
    OutOfOrder,
    /// The id is in use.
    InUse,
    /// The id is not below its limit in [`Config`](crate::Config), or the limit on their number is
    /// reached.
    TooMany,
    /// A size or weight is zero or too large to be counted.
    Size,
    /// The event changes other settings than the concurrency under the same revision.
    SameRevision,
    /// The reservation would leave the account less than
    /// [`Config::account_unreserved_min`](crate::Config::account_unreserved_min), or is smaller
    /// than the function's provisioned concurrency; or the function may not have as many sandboxes
    /// as that.
    Reserved,
    /// The function names a network of another account.
    NotOwner,
}

impl std::fmt::Display for EventError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the event is about something that is not there",
            Self::OutOfOrder => "the event does not fit the state of what it is about",
            Self::InUse => "the id is in use",
            Self::TooMany => "the id is not below its limit, or there are too many",
            Self::Size => "a size is zero or beyond what can be counted",
            Self::SameRevision => "settings changed under the same revision",
            Self::NotOwner => "the network is another account's",
            Self::Reserved => "the reserved or provisioned concurrency exceeds a limit",
        })
    }
}

impl std::error::Error for EventError {}
