//! The end of a sandbox as its extensions hear of it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::platform::{External, Platform, ended};
use crate::runtime_api::Session;
use crate::{Exit, ShutdownReason, TimeLimits};

/// What it takes to let extensions end in their own time.
pub(super) struct Farewell<P> {
    pub(super) platform: Arc<P>,
    pub(super) session: Arc<Session>,
    pub(super) times: TimeLimits,
    pub(super) exit: Option<watch::Receiver<Option<Exit>>>,
    pub(super) extensions: Option<watch::Receiver<External>>,
    /// Whether there is a runtime beside external extensions.
    pub(super) runs: bool,
}

impl<P: Platform> Farewell<P> {
    /// Returns how many external extensions there are.
    fn external(&self) -> usize {
        (self.extensions.as_ref()).and_then(|it| it.borrow().started).unwrap_or(0)
    }

    /// Returns whether there is anybody to tell: who has not registered cannot be told.
    pub(super) fn is_heard(&self) -> bool {
        self.session.has_extensions()
    }

    /// Waits until the runtime has ended, or an extension that was to stay.
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
                // An error is the end of all.
                Some(mut extensions) => {
                    drop(extensions.wait_for(|it| it.ended >= external).await);
                }
                // Internal extensions go with their runtime.
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
