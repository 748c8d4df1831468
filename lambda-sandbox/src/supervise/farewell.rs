//! The shutdown of a sandbox with extensions.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::platform::{External, Platform, ended};
use crate::runtime_api::Session;
use crate::{Exit, ShutdownReason, TimeLimits};

/// The state that is needed to shut extensions down.
pub(super) struct Farewell<P> {
    pub(super) platform: Arc<P>,
    pub(super) session: Arc<Session>,
    pub(super) times: TimeLimits,
    pub(super) exit: Option<watch::Receiver<Option<Exit>>>,
    pub(super) extensions: Option<watch::Receiver<External>>,
    /// Whether the runtime was started after external extensions.
    pub(super) runs: bool,
}

impl<P: Platform> Farewell<P> {
    /// Returns the number of external extensions that were started.
    fn external(&self) -> usize {
        (self.extensions.as_ref()).and_then(|it| it.borrow().started).unwrap_or(0)
    }

    /// Returns whether any extension has registered. Only registered ones receive events.
    pub(super) fn is_heard(&self) -> bool {
        self.session.has_extensions()
    }

    /// Waits until the runtime has ended, or an extension has ended too early.
    async fn ended(&self) {
        if let Some(mut exit) = self.exit.clone() {
            ended(&mut exit).await;
        }
    }

    pub(super) async fn say(&self, reason: ShutdownReason) {
        let external = self.external();
        if !self.is_heard() || self.platform.thaw().is_err() {
            return;
        }
        self.platform.begin_end();
        let times = self.times;
        let until = Instant::now()
            + if external > 0 { times.shutdown_external } else { times.shutdown_internal };
        if external > 0 && self.runs {
            self.platform.end_runtime(false);
            if tokio::time::timeout(times.shutdown_runtime, self.ended()).await.is_err() {
                self.platform.end_runtime(true);
            }
        }
        let gone = async {
            match self.extensions.clone().filter(|_| external > 0) {
                // An error means that the init has ended.
                Some(mut extensions) => {
                    drop(extensions.wait_for(|it| it.ended >= external).await);
                }
                // Internal extensions are part of the runtime's process.
                None => self.ended().await,
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        tokio::select! {
            () = self.session.shut_down(reason, left) => {}
            () = gone => {}
        }
    }
}
