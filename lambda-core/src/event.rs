//! What happens: the engine's input.

use std::time::Duration;

use crate::{
    AccountId, Capacity, FunctionId, FunctionSettings, InterfaceId, InvocationId, NetworkId,
    NetworkSettings, SandboxId, Time, VmId, WorkerId,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Event {
    /// A worker is there, empty.
    WorkerJoined {
        /// Which.
        worker: WorkerId,
        /// What it has.
        capacity: Capacity,
    },
    /// A worker lives: renews its lease.
    WorkerBeat {
        /// Which.
        worker: WorkerId,
    },
    /// A worker is to take no new sandboxes; its idle ones end, its busy ones finish, or are timed out after
    /// [`Config::drain_max`](crate::Config::drain_max).
    WorkerDraining {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's machine will be taken away at a time (spot capacity): it drains, and what is still busy then is timed out.
    WorkerEnds {
        /// Which.
        worker: WorkerId,
        /// When.
        at: Time,
    },
    /// A worker is gone with all its sandboxes and VMs.
    WorkerLost {
        /// Which.
        worker: WorkerId,
    },
    /// All that a worker runs, as it says itself. What the worker does not have the engine forgets; what the engine does not
    /// know it adopts if an engine before it can have started that ([`Engine::restarted`](crate::Engine::restarted)), and
    /// stops if not.
    WorkerReported {
        /// Which.
        worker: WorkerId,
        /// Its VMs.
        vms: Vec<ReportedVm>,
        /// Its sandboxes.
        sandboxes: Vec<ReportedSandbox>,
    },
    /// An account's limit.
    AccountPut {
        /// Which.
        account: AccountId,
        /// How many of its invocations may run or wait at once.
        concurrency_max: u32,
    },
    /// An account's part of what is short, against the others': 100 for an account of which nothing is told. Room that comes
    /// free goes first to the account that holds the least memory for its weight.
    AccountWeighed {
        /// Which.
        account: AccountId,
        /// Its weight; at least 1.
        weight: u32,
    },
    /// A function is there, or changed. With another revision its old sandboxes end: idle ones now, busy ones when
    /// their invocation has. With the same revision only its concurrency may change.
    FunctionPut {
        /// Which.
        function: FunctionId,
        /// Which of its codes; the engine compares it, and hands it back.
        revision: u64,
        /// Its settings.
        settings: FunctionSettings,
    },
    /// A function is gone: no new invocations, running ones finish.
    FunctionRemoved {
        /// Which.
        function: FunctionId,
    },
    /// A network is there, or changed.
    NetworkPut {
        /// Which.
        network: NetworkId,
        /// What it has.
        settings: NetworkSettings,
    },
    /// A network is gone for new sandboxes.
    NetworkRemoved {
        /// Which.
        network: NetworkId,
    },
    /// Someone invokes a function. Answered by exactly one `Dispatch` that ends, or by a `Reject`. The driver gives the ids: the
    /// engine keeps no list of those that run, and takes one that comes twice for two.
    InvocationArrived {
        /// Which invocation.
        invocation: InvocationId,
        /// Of which function.
        function: FunctionId,
    },
    /// An invocation came to its end in its sandbox.
    InvocationEnded {
        /// Which.
        invocation: InvocationId,
        /// Where it ran.
        sandbox: SandboxId,
        /// Whether the sandbox can take another; if not, the worker is ending it.
        reusable: bool,
        /// What it used.
        used: Used,
    },
    /// Nobody waits for an invocation any more. Taken while it has no sandbox: it is then ended, and no command follows. One
    /// that runs goes on to its end.
    InvocationWithdrawn {
        /// Which.
        invocation: InvocationId,
        /// Of which function.
        function: FunctionId,
    },
    /// A sandbox can take invocations.
    SandboxReady {
        /// Which.
        sandbox: SandboxId,
    },
    /// A sandbox could not be made, and nothing of it is left.
    SandboxFailed {
        /// Which.
        sandbox: SandboxId,
        /// Whose fault it is.
        fault: Fault,
    },
    /// A sandbox is gone with all that it held.
    SandboxGone {
        /// Which.
        sandbox: SandboxId,
    },
    /// A VM runs.
    VmReady {
        /// Which.
        vm: VmId,
    },
    /// A VM is gone, or could not be started, with all that was in it.
    VmGone {
        /// Which.
        vm: VmId,
    },
    /// A network interface can be used.
    InterfaceReady {
        /// Which.
        interface: InterfaceId,
    },
    /// A network interface is gone, or could not be made.
    InterfaceGone {
        /// Which.
        interface: InterfaceId,
    },
}

/// What an invocation used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Used {
    /// Processor time, where it was measured.
    pub cpu_time: Option<Duration>,
    /// The highest memory use, in bytes, where it was measured.
    pub memory_peak_bytes: Option<u64>,
}

/// A VM that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReportedVm {
    /// Which.
    pub vm: VmId,
    /// Whose it is; `None`: nobody's yet.
    pub account: Option<AccountId>,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
}

/// A sandbox that a worker has, ready or busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReportedSandbox {
    /// Which.
    pub sandbox: SandboxId,
    /// Of which function.
    pub function: FunctionId,
    /// Which of its codes.
    pub revision: u64,
    /// Its VM.
    pub vm: Option<VmId>,
    /// Its network interface.
    pub interface: Option<InterfaceId>,
    /// What runs in it.
    pub invocation: Option<InvocationId>,
}

/// Whose fault it is that a sandbox could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Fault {
    /// The function's: one failure answers one invocation.
    Function,
    /// The worker's: it is tried again, elsewhere where that can be.
    Worker,
}

/// Why an event was not taken. The engine is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// It is about something that is not there, or not any more: late, repeated, or another engine's.
    Unknown,
    /// It does not fit the state of what it is about: repeated, or out of order.
    OutOfOrder,
    /// The id is in use.
    InUse,
    /// The id is not below its limit in [`Config`](crate::Config), or there are too many already.
    TooMany,
    /// A size is zero or beyond what can be counted.
    Size,
    /// Settings changed under the same revision.
    SameRevision,
    /// The account could not keep its unreserved minimum.
    Reserved,
    /// A function names a network of another account.
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
            Self::Reserved => "the account could not keep its unreserved minimum",
        })
    }
}

impl std::error::Error for EventError {}
