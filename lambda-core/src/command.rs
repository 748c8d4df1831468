//! What is to be done: the engine's output.

use crate::{
    AccountId, FunctionId, InterfaceId, InvocationId, NetworkId, SandboxId, Time, VmId, WorkerId,
    Zone,
};

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(
    clippy::exhaustive_enums,
    reason = "a driver that ignores a command breaks the engine's picture"
)]
pub enum Command {
    /// Make a sandbox; tell of it with `SandboxReady` or `SandboxFailed`.
    StartSandbox {
        /// Its id.
        sandbox: SandboxId,
        /// Where.
        worker: WorkerId,
        /// What runs in it, all its life.
        function: FunctionId,
        /// Which of the function's codes.
        revision: u64,
        /// In which VM, which runs.
        vm: Option<VmId>,
        /// With which network interface, which is ready.
        interface: Option<InterfaceId>,
    },
    /// Destroy a sandbox that runs nothing; tell of it with `SandboxGone`. May come again when no end is told.
    StopSandbox {
        /// Which.
        sandbox: SandboxId,
        /// Where.
        worker: WorkerId,
        /// Why.
        reason: StopReason,
    },
    /// Run an invocation; tell of it with `InvocationEnded`.
    Dispatch {
        /// Which.
        invocation: InvocationId,
        /// In which sandbox.
        sandbox: SandboxId,
        /// Where that is.
        worker: WorkerId,
        /// When it has to have ended.
        deadline: Time,
    },
    /// An invocation's time is over, or that of its draining worker: destroy its sandbox, which is busy, and tell of it with
    /// `SandboxGone`. The engine counts the invocation as ended.
    TimeOut {
        /// Which.
        invocation: InvocationId,
        /// In which sandbox.
        sandbox: SandboxId,
        /// Where that is.
        worker: WorkerId,
    },
    /// Answer an invocation with a refusal.
    Reject {
        /// Which.
        invocation: InvocationId,
        /// Why.
        reason: RejectReason,
    },
    /// Start a VM; tell of it with `VmReady` or `VmGone`.
    StartVm {
        /// Its id.
        vm: VmId,
        /// Where.
        worker: WorkerId,
        /// Its memory, in bytes.
        memory_bytes: u64,
        /// Whose it will be, if that is known: others get theirs when their first sandbox is started in it.
        account: Option<AccountId>,
    },
    /// Stop a VM that holds no sandbox; tell of it with `VmGone`.
    StopVm {
        /// Which.
        vm: VmId,
        /// Where.
        worker: WorkerId,
    },
    /// Make a network interface; tell of it with `InterfaceReady` or `InterfaceGone`.
    StartInterface {
        /// Its id.
        interface: InterfaceId,
        /// Of which network.
        network: NetworkId,
        /// In which zone's subnet.
        zone: Zone,
    },
    /// Remove a network interface that no sandbox uses; tell of it with `InterfaceGone`.
    StopInterface {
        /// Which.
        interface: InterfaceId,
    },
    /// Get another worker, which will join with an id of the driver's choice.
    AskWorker {
        /// In which zone.
        zone: Zone,
    },
    /// A worker takes no new sandboxes from now on: it is being recycled, or given back.
    DrainWorker {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's lease is over without a beat: the engine has forgotten it and all that it held. Make sure that it runs
    /// nothing; it may join again, empty, or join and report.
    LoseWorker {
        /// Which.
        worker: WorkerId,
    },
    /// A worker holds nothing any more: give it back. The engine has forgotten it.
    RetireWorker {
        /// Which.
        worker: WorkerId,
    },
}

/// Why a sandbox is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StopReason {
    /// It was idle for as long as its function's are kept.
    Idle,
    /// Its worker is draining.
    Draining,
    /// Its function is gone, or has another revision.
    FunctionRemoved,
    /// Another function's sandbox needs the room.
    Evicted,
    /// It did not become ready in time.
    StartTimedOut,
    /// A worker reported it, and nobody knows it or may have it.
    Stray,
    /// Its VM or its network interface is gone.
    PrerequisiteGone,
    /// Its invocation had run for as long as it may ([`Command::TimeOut`]), and its end was not told.
    TimedOut,
    /// Its worker said that it cannot be used again, and did not tell its end.
    NotReusable,
    /// It ended without a command. In the journal alone.
    Gone,
}

/// Why an invocation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RejectReason {
    /// The function is not there.
    FunctionUnknown,
    /// The function's reserved concurrency is used up.
    ReservedConcurrency,
    /// The account's concurrency, less what is reserved, is used up.
    AccountConcurrency,
    /// The function was given as many sandboxes as it may be in the time.
    ScalingRate,
    /// As many invocations wait as may.
    WaitingFull,
    /// No worker has room for a sandbox, and none is to come free.
    NoCapacity,
    /// The function is larger than any worker.
    FunctionTooLarge,
    /// The function's network is not there, or has no address left.
    NoNetwork,
    /// This sandbox, made for it, could not be made.
    SandboxFailed {
        /// Which.
        sandbox: SandboxId,
    },
    /// Its worker was lost while it ran.
    WorkerLost,
    /// Its sandbox was gone while it ran.
    SandboxLost,
}
