//! A limit on open connections. At the limit, the connection that has been idle for the longest
//! time is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The open connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    free: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_id: BTreeMap<u64, State>,
}

#[derive(Debug)]
struct State {
    /// How many of its requests are being answered: with HTTP/2, many at once.
    busy: usize,
    /// The time since which none is; `None` while one is.
    idle_since: Option<Instant>,
    close: Arc<Notify>,
}

/// An open connection. Dropping it frees its place.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    close: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

/// A request that is being answered, until it is dropped: its connection is busy.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Connections {
    /// Returns a limit of `max` connections.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(max)), open: Mutex::default() })
    }

    /// Waits for a place. If there is none, asks the connection with the longest idle time to
    /// close.
    pub(super) async fn place(self: &Arc<Self>) -> Arc<Place> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.close_idle();
                // The semaphore is never closed.
                match Arc::clone(&self.free).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => std::future::pending().await,
                }
            }
        };
        let close = Arc::new(Notify::new());
        let state = State { busy: 0, idle_since: Some(Instant::now()), close: Arc::clone(&close) };
        let mut open = self.open();
        open.last += 1;
        let id = open.last;
        open.by_id.insert(id, state);
        drop(open);
        Arc::new(Place { connections: Arc::clone(self), id, close, _permit: permit })
    }

    fn close_idle(&self) {
        let mut open = self.open();
        let idle = open.by_id.values_mut().filter(|state| state.idle_since.is_some());
        if let Some(longest) = idle.min_by_key(|state| state.idle_since) {
            // Do not choose it again while it closes.
            longest.idle_since = None;
            longest.close.notify_one();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self, id: u64) {
        if let Some(state) = self.open().by_id.get_mut(&id) {
            state.busy += 1;
            state.idle_since = None;
        }
    }

    fn ended(&self, id: u64) {
        if let Some(state) = self.open().by_id.get_mut(&id) {
            state.busy = state.busy.saturating_sub(1);
            if state.busy == 0 {
                state.idle_since = Some(Instant::now());
            }
        }
    }
}

impl Place {
    /// Marks the connection as busy, so that it is not asked to close.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.connections.begun(self.id);
        Busy(Arc::clone(self))
    }

    /// Asks the connection to close.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits until the connection has been idle for this time.
    #[cfg(feature = "tls")]
    pub(super) async fn idle_for(&self, time: std::time::Duration) {
        loop {
            let idle_since =
                self.connections.open().by_id.get(&self.id).and_then(|it| it.idle_since);
            let until = idle_since.unwrap_or_else(Instant::now) + time;
            if idle_since.is_some() && until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Waits until the connection is asked to close.
    pub(super) async fn asked_to_close(&self) {
        self.close.notified().await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.ended(self.0.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.connections.open().by_id.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[cfg(feature = "tls")]
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_request_has_ended() {
        let place = Connections::new(1).place().await;
        let start = Instant::now();
        let (one, two) = (place.busy(), place.busy());
        let idle = tokio::spawn({
            let place = Arc::clone(&place);
            async move { place.idle_for(Duration::from_secs(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(one);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!idle.is_finished());
        drop(two);
        idle.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 260);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_gives_way_and_no_busy_one() {
        let connections = Connections::new(3);
        let first = connections.place().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let second = connections.place().await;
        let third = connections.place().await;
        let busy = first.busy();
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.place().await }
        });
        second.asked_to_close().await;
        drop(second);
        let fourth = waiting.await.unwrap();
        // Idle again, later than the others.
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(busy);
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.place().await }
        });
        third.asked_to_close().await;
        drop((first, third, fourth));
        waiting.await.unwrap();
        assert!(connections.open().by_id.is_empty());
    }
}
