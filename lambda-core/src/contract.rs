//! What goes into the engine and what comes out: ids, settings, events, commands.

use std::time::Duration;

use crate::Time;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

id!(
    /// Names a worker; given by the driver.
    WorkerId
);
id!(
    /// Names a deployment of a function; given by the driver, never used for another.
    FunctionId
);
id!(
    /// Names a customer; given by the driver.
    AccountId
);
id!(
    /// Names an invocation; given by the driver, never used twice.
    InvocationId
);
id!(
    /// Names a sandbox; given by the engine, never used twice.
    SandboxId
);

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How long a sandbox may be idle before it is destroyed.
    pub idle_timeout: Duration,
    /// How long a sandbox may take to become ready before it is given up.
    pub start_timeout: Duration,
    /// How often a sandbox is started again for a worker's fault before its invocation is rejected.
    pub start_retries_max: u32,
    /// How many invocations of an account may run or wait at once.
    pub account_concurrency_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(600),
            start_timeout: Duration::from_secs(30),
            start_retries_max: 2,
            account_concurrency_max: 1000,
        }
    }
}

/// What a worker has for sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Settings of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Whose function it is.
    pub account: AccountId,
    /// Memory of each of its sandboxes, in bytes.
    pub memory_bytes: u64,
    /// The longest that an invocation may run.
    pub timeout: Duration,
    /// How many of its invocations may run at once, taken out of the account's; `None` leaves it to the rest.
    pub reserved_concurrency: Option<u32>,
}

/// Something that happened. Events about ids that are not known, or no longer, change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A worker is there.
    WorkerJoined {
        /// Which.
        worker: WorkerId,
        /// What it has.
        capacity: Capacity,
    },
    /// A worker takes no new sandboxes; its idle ones end, its busy ones finish.
    WorkerDraining {
        /// Which.
        worker: WorkerId,
    },
    /// A worker is gone with all its sandboxes.
    WorkerLost {
        /// Which.
        worker: WorkerId,
    },
    /// A function is there, or its settings changed.
    FunctionPut {
        /// Which.
        function: FunctionId,
        /// Its settings.
        settings: FunctionSettings,
    },
    /// A function is gone: no new invocations, running ones finish.
    FunctionRemoved {
        /// Which.
        function: FunctionId,
    },
    /// Someone invokes a function.
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
        /// Whether its sandbox can take another; if not, the worker is ending it.
        reusable: bool,
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
}

/// Whose fault it is that a sandbox could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The function's: one failure answers one invocation.
    Function,
    /// The worker's: it is tried again, elsewhere where that can be.
    Worker,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Make a sandbox; tell of it with `SandboxReady` or `SandboxFailed`.
    StartSandbox {
        /// Its id.
        sandbox: SandboxId,
        /// Where.
        worker: WorkerId,
        /// What runs in it, all its life.
        function: FunctionId,
    },
    /// Destroy a sandbox that runs nothing; tell of it with `SandboxGone`.
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
    /// An invocation's time is over: destroy its sandbox, which is busy, and tell of it with `SandboxGone`. The
    /// engine counts the invocation as ended.
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
}

/// Why a sandbox is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It was idle for the idle timeout.
    Idle,
    /// Its worker is draining.
    Draining,
    /// Its function is gone.
    FunctionRemoved,
    /// Another function's sandbox needs the room.
    Evicted,
    /// It did not become ready in time.
    StartTimedOut,
}

/// Why an invocation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// The function is not there.
    FunctionUnknown,
    /// The invocation's id is in use.
    DuplicateInvocation,
    /// The function's reserved concurrency is used up.
    ReservedConcurrency,
    /// The account's concurrency, less what is reserved, is used up.
    AccountConcurrency,
    /// No worker has room for a sandbox, and none is to come free.
    NoCapacity,
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
