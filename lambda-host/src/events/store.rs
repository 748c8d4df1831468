//! Accepted events, kept on disk until they were handled. What comes at once is written in one
//! transaction.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::blocking::blocking;
use crate::database::Database;
use crate::error::Error;
use crate::function::name::FunctionName;

/// An event without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// Names the event for good.
    pub(super) id: u64,
    pub(super) request_id: String,
    /// The number of the account that owns the function; none for the host's own.
    #[serde(default)]
    pub(super) account: Option<String>,
    pub(super) name: FunctionName,
    pub(super) qualifier: Option<String>,
    pub(super) client_context: Option<String>,
    pub(super) trace_id: Option<String>,
    /// When it was accepted, in milliseconds since 1970-01-01 UTC.
    pub(super) accepted_at_ms: u64,
    /// How often the function ran it.
    pub(super) attempts: u32,
    /// How often it could not be run since then: throttled, or no room.
    pub(super) refusals: u32,
    /// When it is to be run next, in milliseconds since 1970-01-01 UTC.
    pub(super) due_at_ms: u64,
    /// Through how many functions' destinations it came.
    pub(super) depth: u32,
    pub(super) payload_bytes: u64,
}

/// The events on disk. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct EventStore {
    database: Arc<Database>,
    writes: mpsc::Sender<Write>,
}

/// A change that is waited for.
#[derive(Debug)]
struct Write {
    change: Change,
    done: Option<oneshot::Sender<Result<(), Arc<Error>>>>,
}

#[derive(Debug)]
enum Change {
    Put(Event, Bytes),
    Update(Event),
    Remove(u64),
    /// Nothing: its caller waits for the changes before it.
    Settle,
}

impl EventStore {
    /// Opens the store and returns the events in it; its writes are made by a task on the current
    /// runtime. Blocks.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Event>), Error> {
        let database = Database::open(Some(path))?;
        let events = database.run(|database| {
            let transaction = database.begin_write().map_err(Error::registry("open"))?;
            transaction.open_table(EVENTS).map_err(Error::registry("open"))?;
            transaction.open_table(PAYLOADS).map_err(Error::registry("open"))?;
            transaction.commit().map_err(Error::registry("open"))?;
            let read = database.begin_read().map_err(Error::registry("read"))?;
            let table = read.open_table(EVENTS).map_err(Error::registry("read"))?;
            let mut events = Vec::new();
            for row in table.iter().map_err(Error::registry("read"))? {
                let (_, json) = row.map_err(Error::registry("read"))?;
                let event = serde_json::from_slice(json.value());
                events.push(event.map_err(Error::registry("decode"))?);
            }
            Ok(events)
        })?;
        let database = Arc::new(database);
        let (writes, waiting) = mpsc::channel(WRITES_MAX);
        drop(tokio::spawn(write_all(Arc::downgrade(&database), waiting)));
        Ok((Self { database, writes }, events))
    }

    /// Keeps an event; it is on disk when this returns.
    pub(super) async fn put(&self, event: Event, payload: Bytes) -> Result<(), Error> {
        self.write(Change::Put(event, payload)).await
    }

    /// Keeps an event's new state; it is on disk when this returns.
    pub(super) async fn update(&self, event: Event) -> Result<(), Error> {
        self.write(Change::Update(event)).await
    }

    /// Removes an event within [`REMOVED_WITHIN`]. Should the host be killed before, the event is
    /// run again.
    pub(super) async fn remove(&self, id: u64) {
        let write = Write { change: Change::Remove(id), done: None };
        // An error means that the host is ending.
        self.writes.send(write).await.unwrap_or_default();
    }

    /// Returns when all earlier changes are on disk, or could not be written.
    pub(super) async fn settle(&self) {
        drop(self.write(Change::Settle).await);
    }

    async fn write(&self, change: Change) -> Result<(), Error> {
        let (done, written) = oneshot::channel();
        let write = Write { change, done: Some(done) };
        self.writes.send(write).await.map_err(|_| Error::Stopping)?;
        match written.await {
            Ok(Ok(())) => Ok(()),
            // Many wait for one transaction, and one error cannot be given to all of them.
            Ok(Err(error)) => Err(Error::registry("write the event queue")(SharedError(error))),
            Err(_) => Err(Error::Stopping),
        }
    }

    /// Reads an event with its payload; `None` when it was handled.
    pub(super) async fn read(&self, id: u64) -> Result<Option<(Event, Bytes)>, Error> {
        let database = Arc::clone(&self.database);
        blocking(move || {
            database.run(|database| {
                let read = database.begin_read().map_err(Error::registry("read"))?;
                let events = read.open_table(EVENTS).map_err(Error::registry("read"))?;
                let payloads = read.open_table(PAYLOADS).map_err(Error::registry("read"))?;
                let event = events.get(id).map_err(Error::registry("read"))?;
                let payload = payloads.get(id).map_err(Error::registry("read"))?;
                let (Some(event), Some(payload)) = (event, payload) else { return Ok(None) };
                let event: Event =
                    serde_json::from_slice(event.value()).map_err(Error::registry("decode"))?;
                Ok(Some((event, Bytes::copy_from_slice(payload.value()))))
            })
        })
        .await
    }
}

/// An error that several callers get.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SharedError(Arc<Error>);

/// Writes what has come, in one transaction each time, until every sender is gone.
///
/// Nobody waits for a removal. A transaction for removals alone would make those wait who want an
/// event kept, so removals wait for the next such event, for [`REMOVED_WITHIN`] at most.
async fn write_all(database: Weak<Database>, mut waiting: mpsc::Receiver<Write>) {
    let mut batch: Vec<Write> = Vec::new();
    while waiting.recv_many(&mut batch, WRITES_MAX).await > 0 {
        let late = tokio::time::sleep(REMOVED_WITHIN);
        tokio::pin!(late);
        while batch.len() < WRITES_MAX && !batch.iter().any(is_awaited) {
            let room = WRITES_MAX - batch.len();
            tokio::select! {
                () = &mut late => break,
                came = waiting.recv_many(&mut batch, room) => if came == 0 { break },
            }
        }
        if !write_batch(&database, &mut batch).await {
            return;
        }
    }
}

fn is_awaited(write: &Write) -> bool {
    write.done.is_some()
}

/// Writes a batch in one transaction, and empties it. Returns whether the store is there still.
async fn write_batch(database: &Weak<Database>, batch: &mut Vec<Write>) -> bool {
    let writes = std::mem::take(batch);
    let (changes, waiters): (Vec<_>, Vec<_>) =
        writes.into_iter().map(|it| (it.change, it.done)).unzip();
    // Held for a write alone: the file is closed with the last handle of the store.
    let Some(database) = database.upgrade() else { return false };
    let written = blocking(move || database.run(|it| write(it, &changes))).await;
    let written = written.map_err(Arc::new);
    if let Err(error) = &written {
        tracing::error!(error = crate::error::with_causes(&**error), "events not written");
    }
    for waiter in waiters.into_iter().flatten() {
        // Who waited may have gone.
        waiter.send(written.clone()).unwrap_or_default();
    }
    true
}

fn write(database: &redb::Database, changes: &[Change]) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(Error::registry("write"))?;
    {
        let mut events = transaction.open_table(EVENTS).map_err(Error::registry("write"))?;
        let mut payloads = transaction.open_table(PAYLOADS).map_err(Error::registry("write"))?;
        for change in changes {
            match change {
                Change::Put(event, payload) => {
                    events.insert(event.id, &*encode(event)?).map_err(Error::registry("write"))?;
                    payloads.insert(event.id, &**payload).map_err(Error::registry("write"))?;
                }
                Change::Update(event) => {
                    events.insert(event.id, &*encode(event)?).map_err(Error::registry("write"))?;
                }
                Change::Remove(id) => {
                    events.remove(id).map_err(Error::registry("write"))?;
                    payloads.remove(id).map_err(Error::registry("write"))?;
                }
                Change::Settle => {}
            }
        }
    }
    transaction.commit().map_err(Error::registry("write"))
}

fn encode(event: &Event) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(event).map_err(Error::registry("encode"))
}

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
const PAYLOADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("payloads");
/// The longest time for which a removal waits for a transaction that others need.
const REMOVED_WITHIN: Duration = Duration::from_millis(50);
/// Writes that may wait for one transaction.
const WRITES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64) -> Event {
        Event {
            id,
            request_id: "r".to_owned(),
            account: None,
            name: "f".parse().unwrap(),
            qualifier: None,
            client_context: None,
            trace_id: None,
            accepted_at_ms: 1,
            attempts: 0,
            refusals: 0,
            due_at_ms: 0,
            depth: 0,
            payload_bytes: 1,
        }
    }

    #[tokio::test]
    async fn what_was_accepted_survives_and_what_was_handled_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.redb");
        {
            let (store, none) = EventStore::open(&path).unwrap();
            assert!(none.is_empty());
            let puts: Vec<_> = (0..100)
                .map(|id| {
                    let store = store.clone();
                    tokio::spawn(
                        async move { store.put(event(id), Bytes::from_static(b"{}")).await },
                    )
                })
                .collect();
            for put in puts {
                put.await.unwrap().unwrap();
            }
            store.update(Event { attempts: 2, ..event(7) }).await.unwrap();
            store.remove(8).await;
            // A later write waits for the removal before it.
            store.update(event(9)).await.unwrap();
            let read = store.read(7).await.unwrap().unwrap();
            assert_eq!((read.0.attempts, &read.1[..]), (2, &b"{}"[..]));
            assert_eq!(store.read(8).await.unwrap(), None);
        }
        let (_store, left) = reopened(&path).await;
        assert_eq!(left.len(), 99);
    }

    #[tokio::test]
    async fn removals_wait_for_others_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.redb");
        let (store, _) = EventStore::open(&path).unwrap();
        for id in 0..3 {
            store.put(event(id), Bytes::from_static(b"{}")).await.unwrap();
        }
        store.remove(0).await;
        tokio::time::sleep(REMOVED_WITHIN / 5).await;
        let there = async |id| store.read(id).await.unwrap().is_some();
        assert!(there(0).await, "a removal alone was written at once");
        store.update(event(2)).await.unwrap();
        assert!(!there(0).await);
        store.remove(1).await;
        for _ in 0..500 {
            if !there(1).await {
                break;
            }
            tokio::time::sleep(REMOVED_WITHIN / 5).await;
        }
        assert!(!there(1).await);
        store.remove(2).await;
        store.settle().await;
        assert!(!there(2).await);
    }

    /// Opens the store when the task of the one before has let go of it.
    async fn reopened(path: &Path) -> (EventStore, Vec<Event>) {
        for _ in 0..500 {
            match EventStore::open(path) {
                Ok(opened) => return opened,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        panic!("the store stays open");
    }
}
