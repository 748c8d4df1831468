//! The event queue: what was accepted, and the way to the dispatcher that runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::deliver::Deliver;
use super::lanes::LaneKey;
use super::store::{Event, EventStore};
use crate::blocking::joined;
use crate::clock::now_ms;
use crate::error::{Error, ThrottleLimit};
use crate::function::account::AccountIndex;
use crate::function::target::Target;
use crate::invocation::{Request, trace_id};

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
pub(super) struct Counts {
    pub(super) bytes: AtomicU64,
    pub(super) waiting: AtomicUsize,
    /// When each event was accepted that is not handled yet, by id.
    accepted: Mutex<BTreeMap<u64, u64>>,
}

impl Counts {
    fn accepted(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an event was handled or given up.
    pub(super) fn handled(&self, id: u64, payload_bytes: u64) {
        self.bytes.fetch_sub(payload_bytes, Ordering::Relaxed);
        self.accepted().remove(&id);
    }
}

/// What a dispatcher needs of a queue that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) store: EventStore,
    pub(super) settings: Settings,
    pub(super) counts: Arc<Counts>,
    /// The events that waited.
    pub(super) events: Vec<Event>,
    pub(super) sender: mpsc::WeakSender<Told>,
    pub(super) told: mpsc::Receiver<Told>,
}

/// What the dispatcher is told.
#[derive(Debug)]
pub(super) enum Told {
    /// An event is on disk and may be run.
    Accepted { lane: LaneKey, id: u64 },
    /// An event was run; it is to be run again at a time, or was handled.
    Ran { lane: LaneKey, id: u64, again_at_ms: Option<u64> },
    /// The host stops; `done` is told when no event runs.
    Stop { done: oneshot::Sender<()> },
}

impl EventQueue {
    /// Opens the queue in `folder`. Blocks.
    pub(crate) fn open(folder: &Path, settings: Settings) -> Result<(Self, Opened), Error> {
        let (store, events) = EventStore::open(&folder.join("events.redb"))?;
        let counts = Arc::new(Counts::default());
        let bytes = events.iter().map(|it| it.payload_bytes).sum();
        counts.bytes.store(bytes, Ordering::Relaxed);
        counts.accepted().extend(events.iter().map(|it| (it.id, it.accepted_at_ms)));
        let (sender, told) = mpsc::channel(TOLD_MAX);
        // Numbers of events that were handled may be used again: nothing names them any more.
        let next_id = events.iter().map(|it| it.id + 1).max().unwrap_or(0);
        let bytes_max = settings.bytes_max;
        let opened = Opened {
            store: store.clone(),
            settings,
            counts: Arc::clone(&counts),
            events,
            sender: sender.downgrade(),
            told,
        };
        let queue =
            Self { store, dispatcher: sender, next_id: AtomicU64::new(next_id), counts, bytes_max };
        Ok((queue, opened))
    }

    /// Keeps an event of a function of `owner`, by place and number; it is on disk when this
    /// returns.
    pub(crate) async fn accept(
        &self,
        owner: (AccountIndex, &str),
        target: &Target,
        request: Request,
        depth: u32,
    ) -> Result<String, Error> {
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
            account: (owner.0 != AccountIndex::default()).then(|| owner.1.to_owned()),
            name: target.name.clone(),
            qualifier: target.qualifier.clone(),
            client_context: request.client_context,
            trace_id: Some(request.trace_id.unwrap_or_else(|| trace_id(now))),
            accepted_at_ms: now,
            attempts: 0,
            refusals: 0,
            due_at_ms: now,
            depth,
            payload_bytes: bytes,
        };
        let id = event.id;
        let lane = LaneKey { account: owner.0, name: event.name.clone() };
        let (store, counts) = (self.store.clone(), Arc::clone(&self.counts));
        counts.accepted().insert(id, now);
        let dispatcher = self.dispatcher.clone();
        // In a task of its own: the caller may drop its future when the event is on disk already.
        joined(tokio::spawn(async move {
            if let Err(error) = store.put(event, request.payload).await {
                counts.handled(id, bytes);
                return Err(error);
            }
            // If the dispatcher has ended, the next start of the host runs the event.
            dispatcher.send(Told::Accepted { lane, id }).await.unwrap_or_default();
            Ok(request_id)
        }))
        .await
    }

    /// Returns how many accepted events wait.
    pub(crate) fn waiting(&self) -> usize {
        self.counts.waiting.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of payload wait or run.
    pub(crate) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Returns how long the oldest event has been waiting or running; nothing if there is none.
    pub(crate) fn oldest_age(&self) -> Duration {
        // Events have ascending ids in the order of their acceptance.
        let oldest = self.counts.accepted().first_key_value().map(|(_, at_ms)| *at_ms);
        oldest.map_or(Duration::ZERO, |at_ms| Duration::from_millis(now_ms().saturating_sub(at_ms)))
    }

    /// Stops starting events. The returned receiver resolves when no event runs any more. Waiting
    /// events stay on disk.
    pub(crate) async fn stop(&self) -> oneshot::Receiver<()> {
        let (done, stopped) = oneshot::channel();
        // An error means that the dispatcher has ended: the receiver hears that too.
        self.dispatcher.send(Told::Stop { done }).await.unwrap_or_default();
        stopped
    }
}

/// AWS waits a minute before the first retry, and two before the second.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const BYTES_MAX: u64 = 1 << 30;
/// What the dispatcher may be told and has not heard yet; further callers wait.
const TOLD_MAX: usize = 1024;
