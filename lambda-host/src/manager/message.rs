//! What the manager's driver is told by the host, and how it is set up.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use lambda_core::placement::Placement;
use lambda_core::{Explanation, FixedIdle, IdlePolicy};
use tokio::sync::{mpsc, oneshot};

use super::stream::StreamItem;
use crate::error::Error;
use crate::function::Function;
use crate::function::account::AccountIndex;
use crate::function::arn::Arns;
use crate::function::version::VersionKey;
use crate::invocation::{Answer, Request};
use crate::logs::LogWriter;
use crate::network::error::NetworkError;
use crate::worker::Worker;
use crate::worker::protocol::{InvocationId, WorkerId};

/// A message from the host to the driver.
#[derive(Debug)]
pub(crate) enum Message {
    /// A version of a function is there, or changed: with another deployment its old sandboxes end.
    /// With `if_known` it is left out when the engine does not know the version.
    Put { function: Arc<Function>, if_known: bool, reply: oneshot::Sender<Result<(), Error>> },
    /// A version of a function is gone: its idle sandboxes end, its running invocations finish.
    /// With `deployment` it is gone if it is of that one.
    Remove { key: VersionKey, deployment: Option<u64> },
    /// Someone invokes a version, which the engine learns of by this if it does not know it.
    Invoke {
        function: Arc<Function>,
        /// As the caller named it.
        function_arn: String,
        request: Request,
        /// The receiver of a streamed answer's parts.
        stream: Option<mpsc::Sender<StreamItem>>,
        reply: oneshot::Sender<Result<Answer, Error>>,
        /// Of the invocation, in its caller's.
        span: tracing::Span,
    },
    /// The caller has taken parts of a streamed answer.
    Read { invocation: InvocationId, parts: u32 },
    /// A worker is to be connected; `reply` is told when the engine has taken it.
    AddWorker { worker: Arc<dyn Worker>, reply: oneshot::Sender<Result<WorkerId, Error>> },
    /// The limits of an account are other ones.
    LimitAccount { account: AccountIndex, invocations_max: u32, weight: u32 },
    /// Prepares the network of functions without a `VpcConfig`, if there is one; `reply` is told
    /// when its first interface is ready.
    DefaultNetwork { reply: oneshot::Sender<Result<(), NetworkError>> },
    /// Someone asks how many sandboxes of a version are ready or busy.
    Ready { key: VersionKey, reply: oneshot::Sender<u32> },
    /// Someone asks for the engine's last decisions, oldest first.
    Explain { reply: oneshot::Sender<Vec<Explanation>> },
    /// The host stops; `done` is told when no sandbox is left.
    Stop { kill: bool, done: oneshot::Sender<()> },
}

/// An account as the driver knows it.
#[derive(Debug)]
pub(crate) struct AccountPart {
    pub(crate) arns: Arns,
    pub(crate) logs: LogWriter,
    pub(crate) concurrency_max: u32,
    pub(crate) weight: u32,
}

/// The engine's settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: lambda_core::Config,
    pub(crate) placement: Option<Box<dyn Placement>>,
    pub(crate) idle: Box<dyn IdlePolicy>,
}

impl Settings {
    /// Returns the most invocations at once, and how many of them stay unreserved.
    pub(crate) fn limits(&self) -> (u32, u32) {
        (self.config.account_concurrency_max, self.unreserved_min())
    }

    /// How much of an account's concurrency stays unreserved at the least: AWS's 100, and of a
    /// small account a tenth.
    pub(crate) fn unreserved_min(&self) -> u32 {
        self.config.account_unreserved_min.min(self.config.account_concurrency_max / 10)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut config = lambda_core::Config::default();
        // Who has updated a function expects its new code with the next invocation.
        config.rollout_max = Duration::ZERO;
        // More inits at once than the processors can run would all take longer, and those that wait
        // with them.
        let starts = u32::try_from(processors).unwrap_or(u32::MAX);
        config.starts_per_worker_max = starts.saturating_mul(STARTS_PER_PROCESSOR);
        // A sandbox is shown with the decision that placed it, which is read as soon as it is made.
        config.explanations_kept = EXPLANATIONS_KEPT;
        config.vm.shared_memory_bytes = SHARED_VM_BYTES;
        Self { config, placement: None, idle: Box::new(FixedIdle(IDLE_TIMEOUT)) }
    }
}

/// Memory of a VM for the sandboxes of an account: eight of 128 MB. A larger function has a VM of
/// its own size.
const SHARED_VM_BYTES: u64 = 1 << 30;
/// How long a sandbox is kept idle by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const EXPLANATIONS_KEPT: u32 = 64;
/// Sandboxes that are made at once for each processor: an init waits for other things too.
const STARTS_PER_PROCESSOR: u32 = 4;
