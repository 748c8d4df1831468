//! The open connections to WebSocket APIs, by their identifiers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::event::seen::Connection;

/// The open connections of a gateway.
#[derive(Debug)]
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    open: Mutex<BTreeMap<String, Open>>,
    ended: Arc<Notify>,
}

/// A connection as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    /// The front door's number, and the stage: the connection is not seen from another.
    place: (usize, String),
    outgoing: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    close: Arc<watch::Sender<Option<Close>>>,
    pub(crate) connected_unix_ms: u64,
    pub(crate) active_unix_ms: Arc<AtomicU64>,
    pub(crate) source_ip: String,
    pub(crate) user_agent: String,
}

/// A message for the client, and the room that it takes until it is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) text: String,
    pub(crate) room: OwnedSemaphorePermit,
}

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

/// The client reads too slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full;

/// A place for a connection, from its handshake until its functions have been told of its end.
#[derive(Debug)]
pub(crate) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    ended: Arc<Notify>,
}

/// A place in the list of connections, until it is dropped.
#[derive(Debug)]
struct Listed {
    connections: Arc<Connections>,
    id: String,
}

/// A connection's own side.
#[derive(Debug)]
pub(crate) struct Entry {
    _listed: Listed,
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) close: watch::Receiver<Option<Close>>,
    active_unix_ms: Arc<AtomicU64>,
    slot: Slot,
}

impl Default for Connections {
    fn default() -> Self {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { free, open: Mutex::default(), ended: Arc::default() }
    }
}

impl Connections {
    /// Takes a place; `None` if there are too many connections, or no more are taken.
    pub(crate) fn slot(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Slot { permit: Some(permit), ended: Arc::clone(&self.ended) })
    }

    /// Adds a connection.
    pub(crate) fn add(
        self: &Arc<Self>,
        slot: Slot,
        connection: &Connection,
        place: (usize, String),
        (source_ip, user_agent): (String, String),
    ) -> Entry {
        let (sender, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (close_sender, close) = watch::channel(None);
        let active_unix_ms = Arc::new(AtomicU64::new(connection.connected_unix_ms));
        let open = Open {
            place,
            outgoing: sender,
            room: Arc::new(Semaphore::new(OUTGOING_BYTES_MAX)),
            close: Arc::new(close_sender),
            connected_unix_ms: connection.connected_unix_ms,
            active_unix_ms: Arc::clone(&active_unix_ms),
            source_ip,
            user_agent,
        };
        if self.free.is_closed() {
            open.close(GOING_AWAY);
        }
        drop(self.open().insert(connection.id.clone(), open));
        let _listed = Listed { connections: Arc::clone(self), id: connection.id.clone() };
        Entry { _listed, outgoing, close, active_unix_ms, slot }
    }

    /// Finds a connection to a stage of a front door.
    pub(crate) fn find(&self, number: usize, stage: &str, id: &str) -> Option<Open> {
        let open = self.open();
        open.get(id).filter(|it| it.place.0 == number && it.place.1 == stage).cloned()
    }

    /// Takes no more connections, closes those that are there, and waits until their functions
    /// have been told, at most for some seconds.
    pub(crate) async fn end(&self) {
        self.free.close();
        for open in self.open().values() {
            open.close(GOING_AWAY);
        }
        let ended = async {
            loop {
                let next = self.ended.notified();
                if self.free.available_permits() == CONNECTIONS_MAX {
                    return;
                }
                next.await;
            }
        };
        // Sessions that last longer end with their runtime.
        drop(tokio::time::timeout(END_TIMEOUT, ended).await);
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Puts a message into the queue to the client.
    pub(crate) fn send(&self, text: String) -> Result<(), Full> {
        let bytes = u32::try_from(text.len()).map_err(|_| Full)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| Full)?;
        self.outgoing.try_send(Outgoing { text, room }).map_err(|_| Full)
    }

    /// Asks the connection to close.
    pub(crate) fn close(&self, close: Close) {
        self.close.send_if_modified(|asked| {
            let first = asked.is_none();
            asked.get_or_insert(close);
            first
        });
    }
}

impl Entry {
    /// Notes that something was sent or came.
    pub(crate) fn active(&self, unix_ms: u64) {
        self.active_unix_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// Takes the connection from the list. Its place stays taken.
    pub(crate) fn leave(self) -> Slot {
        self.slot
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        drop(self.connections.open().remove(&self.id));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.ended.notify_waiters();
    }
}

/// The server stops, or a limit of time is reached (AWS: 1001 for these).
pub(crate) const GOING_AWAY: Close = Close { status: 1001, reason: "Going away" };
/// The most open WebSocket connections of a gateway: half of the 1,024 connections that a server of
/// `lambda-host` accepts.
const CONNECTIONS_MAX: usize = 512;
/// Messages that wait for a client, and their bytes.
const OUTGOING_MAX: usize = 128;
const OUTGOING_BYTES_MAX: usize = 256 << 10;
const END_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn add(connections: &Arc<Connections>, id: &str) -> Entry {
        let connection = Connection { id: id.to_owned(), connected_unix_ms: 7 };
        let slot = connections.slot().unwrap();
        connections.add(slot, &connection, (0, "prod".to_owned()), Default::default())
    }

    #[test]
    fn queues_are_bounded_by_messages_and_bytes() {
        let connections = Arc::new(Connections::default());
        let mut entry = add(&connections, "a");
        let open = connections.find(0, "prod", "a").unwrap();
        let sent = (0..1000).take_while(|_| open.send("x".to_owned()).is_ok()).count();
        assert_eq!(sent, OUTGOING_MAX);
        while entry.outgoing.try_recv().is_ok() {}
        let long = "x".repeat(MESSAGE);
        let sent = (0..1000).take_while(|_| open.send(long.clone()).is_ok()).count();
        assert_eq!(sent, OUTGOING_BYTES_MAX / MESSAGE);
        drop(entry.outgoing.try_recv().unwrap());
        assert!(open.send(long).is_ok(), "a message that is sent leaves its room");
    }

    #[test]
    fn connections_are_bounded_and_leave_their_places() {
        let connections = Arc::new(Connections::default());
        let entries: Vec<_> =
            (0..CONNECTIONS_MAX).map(|it| add(&connections, &it.to_string())).collect();
        assert!(connections.slot().is_none());
        assert!(connections.find(0, "prod", "3").is_some());
        assert!(connections.find(1, "prod", "3").is_none(), "another front door");
        assert!(connections.find(0, "dev", "3").is_none(), "another stage");
        drop(entries);
        assert!(connections.find(0, "prod", "3").is_none() && connections.slot().is_some());
    }

    const MESSAGE: usize = 100 << 10;
}
