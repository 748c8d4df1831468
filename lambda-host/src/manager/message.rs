//! What the manager's driver is told by the host, and how it is set up.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use lambda_core::placement::Placement;
use lambda_core::{Explanation, FixedIdle, IdlePolicy};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::function::Function;
use crate::function::version::VersionKey;
use crate::invocation::{Answer, Request};
use crate::worker::Worker;
use crate::worker::protocol::WorkerId;

/// A message from the host to the driver.
#[derive(Debug)]
pub(crate) enum Message {
    /// A version of a function is there, or changed: with another deployment its old sandboxes end.
    Put { function: Arc<Function>, reply: oneshot::Sender<Result<(), Error>> },
    /// A version of a function is gone: its idle sandboxes end, its running invocations finish.
    Remove { key: VersionKey },
    /// Someone invokes a function.
    Invoke {
        key: VersionKey,
        /// As the caller named it.
        function_arn: String,
        request: Request,
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    /// A worker is to be connected; `reply` is told when the engine has taken it.
    AddWorker { worker: Arc<dyn Worker>, reply: oneshot::Sender<Result<WorkerId, Error>> },
    /// Someone asks how many sandboxes of a version are ready or busy.
    Ready { key: VersionKey, reply: oneshot::Sender<u32> },
    /// Someone asks for the engine's last decisions, oldest first.
    Explain { reply: oneshot::Sender<Vec<Explanation>> },
    /// The host stops; `done` is told when no sandbox is left.
    Stop { kill: bool, done: oneshot::Sender<()> },
}

/// The engine's settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: lambda_core::Config,
    pub(crate) placement: Option<Box<dyn Placement>>,
    pub(crate) idle: Box<dyn IdlePolicy>,
}

impl Settings {
    /// How much of an account's concurrency stays unreserved at the least: AWS's 100, and of a small account a tenth.
    pub(crate) fn unreserved_min(&self) -> u32 {
        self.config.account_unreserved_min.min(self.config.account_concurrency_max / 10)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut config = lambda_core::Config::default();
        // More inits at once than the processors can run would all take longer, and those that wait with them.
        let starts = u32::try_from(processors).unwrap_or(u32::MAX);
        config.starts_per_worker_max = starts.saturating_mul(STARTS_PER_PROCESSOR);
        // A sandbox is shown with the decision that placed it, which is read as soon as it is made.
        config.explanations_kept = EXPLANATIONS_KEPT;
        Self { config, placement: None, idle: Box::new(FixedIdle(IDLE_TIMEOUT)) }
    }
}

/// How long a sandbox is kept idle by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const EXPLANATIONS_KEPT: u32 = 64;
/// Sandboxes that are made at once for each processor: an init waits for other things too.
const STARTS_PER_PROCESSOR: u32 = 4;
