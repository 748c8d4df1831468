//! Events: invocations whose caller does not wait, and what reads them from queues and streams.
//!
//! An event is on disk when it is accepted, and until it was handled: it is run at least once. A function that fails is
//! tried again, twice by default; an event that is throttled, or finds no room, waits. Then a destination is told.

pub(crate) mod deliver;
mod dispatch;
pub(crate) mod filter;
mod lanes;
mod outcome;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::sync::{mpsc, oneshot};

use self::deliver::Deliver;
use self::dispatch::{Dispatcher, Told};
use self::store::{Event, EventStore};
use crate::catalog::now_ms;
use crate::error::{Error, ThrottleLimit};
use crate::function::target::Target;
use crate::host::Host;
use crate::invocation::Request;

/// How events are handled.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a failed event waits before it is tried again: twice as long the second time.
    pub(crate) retry_after: Duration,
    /// How many bytes of payload may wait.
    pub(crate) bytes_max: u64,
    pub(crate) deliver: Option<Arc<dyn Deliver>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retry_after: RETRY_AFTER, bytes_max: BYTES_MAX, deliver: None }
    }
}

/// The event queue of a host.
#[derive(Debug)]
pub(crate) struct EventQueue {
    store: EventStore,
    dispatcher: mpsc::Sender<Told>,
    next_id: AtomicU64,
    counts: Arc<Counts>,
    bytes_max: u64,
}

/// What the queue holds.
#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    waiting: AtomicUsize,
}

/// A queue that was opened, to be started when its host is there.
#[derive(Debug)]
pub(crate) struct Opened {
    dispatcher: Dispatcher,
    told: mpsc::Receiver<Told>,
}

impl Opened {
    /// Runs events on `host` until it is gone, or the queue is stopped.
    pub(crate) fn start(self, host: &Host) {
        drop(tokio::spawn(self.dispatcher.run(host.downgrade(), self.told)));
    }
}

impl EventQueue {
    /// Opens the queue in `folder`. Blocks.
    pub(crate) fn open(folder: &Path, settings: Settings) -> Result<(Self, Opened), Error> {
        let (store, events) = EventStore::open(&folder.join("events.redb"))?;
        let counts = Arc::new(Counts::default());
        let bytes = events.iter().map(|it| it.payload_bytes).sum();
        counts.bytes.store(bytes, Ordering::Relaxed);
        let (sender, told) = mpsc::channel(TOLD_MAX);
        // Numbers of events that were handled may be used again: nothing names them any more.
        let next_id = events.iter().map(|it| it.id + 1).max().unwrap_or(0);
        let bytes_max = settings.bytes_max;
        let dispatcher =
            Dispatcher::new(store.clone(), settings, Arc::clone(&counts), events, sender.clone());
        let queue =
            Self { store, dispatcher: sender, next_id: AtomicU64::new(next_id), counts, bytes_max };
        Ok((queue, Opened { dispatcher, told }))
    }

    /// Keeps an event; it is on disk when this returns.
    async fn accept(&self, target: &Target, request: Request, depth: u32) -> Result<String, Error> {
        let bytes = request.payload.len() as u64;
        let before = self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.bytes_max {
            self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::Throttled { limit: ThrottleLimit::EventQueue });
        }
        let now = now_ms();
        let request_id = request.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let event = Event {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            request_id: request_id.clone(),
            name: target.name.clone(),
            qualifier: target.qualifier.clone(),
            client_context: request.client_context,
            trace_id: request.trace_id,
            accepted_at_ms: now,
            attempts: 0,
            refusals: 0,
            due_at_ms: now,
            depth,
            payload_bytes: bytes,
        };
        let (name, id) = (event.name.clone(), event.id);
        if let Err(error) = self.store.put(event, request.payload).await {
            self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(error);
        }
        // Should the dispatcher be gone, the next start runs it.
        self.dispatcher.send(Told::Accepted { name, id }).await.unwrap_or_default();
        Ok(request_id)
    }

    /// Takes no more events up; what is returned is told, or dropped, when none runs. Those that wait stay on disk.
    pub(crate) async fn stop(&self) -> oneshot::Receiver<()> {
        let (done, stopped) = oneshot::channel();
        // An error means that the dispatcher has ended: the receiver hears that too.
        self.dispatcher.send(Told::Stop { done }).await.unwrap_or_default();
        stopped
    }
}

impl Host {
    /// Accepts an event: an invocation whose caller does not wait. It is on disk when this returns its identifier, and is
    /// run at least once, also by a later start of the host on the same folder.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::PayloadTooLarge`] and [`Error::InvalidPayload`] for what cannot be an event;
    /// [`Error::Throttled`] when the queue is full; [`Error::Registry`] when it cannot be kept.
    pub async fn invoke_event(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        request: impl Into<Request>,
    ) -> Result<String, Error> {
        self.accept_event(self.ours(function)?, request.into(), 0).await
    }

    /// Accepts an event that came through `depth` destinations of functions.
    async fn accept_event(
        &self,
        target: Target,
        mut request: Request,
        depth: u32,
    ) -> Result<String, Error> {
        self.invoked(&target)?;
        if request.payload.len() > EVENT_BYTES_MAX {
            return Err(Error::PayloadTooLarge { bytes_max: EVENT_BYTES_MAX });
        }
        if request.payload.is_empty() {
            request.payload = Bytes::from_static(b"{}");
        }
        serde_json::from_slice::<IgnoredAny>(&request.payload)
            .map_err(|error| Error::InvalidPayload { reason: error.to_string() })?;
        self.event_queue().accept(&target, request, depth).await
    }

    /// Returns how many accepted events wait.
    #[must_use]
    pub fn events_waiting(&self) -> usize {
        self.event_queue().counts.waiting.load(Ordering::Relaxed)
    }
}

/// The largest payload of an event, in bytes (AWS: 1 MB).
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// AWS waits a minute before the first retry, and two before the second.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const BYTES_MAX: u64 = 1 << 30;
/// What the dispatcher may be told and has not heard yet; further callers wait.
const TOLD_MAX: usize = 1024;
