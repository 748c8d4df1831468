//! A worker's end of its connection to the host.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::protocol::{Epoch, FromWorker, WorkerEvent, WorkerId};
use crate::code::FetchCode;

/// A worker's connection to its host. Cheap to clone; dropping the last clone tells the host that
/// the worker is lost.
#[derive(Clone, Debug)]
pub struct Connection {
    ends: Arc<Ends>,
    code: Arc<dyn FetchCode>,
    beat_interval: Option<Duration>,
}

#[derive(Debug)]
struct Ends {
    worker: WorkerId,
    link: Link,
}

/// Where the events of all workers go.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) events: mpsc::Sender<FromWorker>,
    /// Told of a worker whose connection is dropped; holds no more than a message for each worker.
    pub(crate) lost: Option<mpsc::UnboundedSender<WorkerId>>,
}

/// The host has ended: nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host has ended")]
#[non_exhaustive]
pub struct Disconnected;

impl Connection {
    /// Returns both ends of a connection that leads elsewhere than to a host in this process:
    /// whoever carries a worker's messages to another machine connects the worker to the first end,
    /// and reads its events from the second. At the most `events_max` events wait to be read; the
    /// worker then waits itself.
    #[must_use]
    pub fn pair(
        worker: WorkerId,
        code: Arc<dyn FetchCode>,
        beat_interval: Option<Duration>,
        events_max: usize,
    ) -> (Self, mpsc::Receiver<FromWorker>) {
        let (events, received) = mpsc::channel(events_max);
        let link = Link { events, lost: None };
        (Self::new(worker, link, code, beat_interval), received)
    }

    /// Passes on a message that a worker elsewhere sent.
    ///
    /// # Errors
    ///
    /// [`Disconnected`] when the host has ended.
    pub async fn forward(&self, message: FromWorker) -> Result<(), Disconnected> {
        let message = FromWorker { worker: self.ends.worker, ..message };
        self.ends.link.events.send(message).await.map_err(|_| Disconnected)
    }

    pub(crate) fn new(
        worker: WorkerId,
        link: Link,
        code: Arc<dyn FetchCode>,
        beat_interval: Option<Duration>,
    ) -> Self {
        Self { ends: Arc::new(Ends { worker, link }), code, beat_interval }
    }

    /// Returns the worker's id.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.ends.worker
    }

    /// Returns where to get code that the worker lacks.
    #[must_use]
    pub fn code(&self) -> &Arc<dyn FetchCode> {
        &self.code
    }

    /// Returns how often the host wants to see a [`WorkerEvent::Beat`]; `None`: never.
    #[must_use]
    pub fn beat_interval(&self) -> Option<Duration> {
        self.beat_interval
    }

    /// Sends an event; waits while the host has too many to read.
    ///
    /// # Errors
    ///
    /// [`Disconnected`] when the host has ended.
    pub async fn send(&self, epoch: Epoch, event: WorkerEvent) -> Result<(), Disconnected> {
        let message = FromWorker::new(self.ends.worker, epoch, event);
        self.ends.link.events.send(message).await.map_err(|_| Disconnected)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(lost) = &self.link.lost {
            // An error means that the host has ended, which is what the message is for.
            lost.send(self.worker).unwrap_or_default();
        }
    }
}
