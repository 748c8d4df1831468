//! Things that are made ahead of their use. Each kind has a shelf, which is filled again when one
//! is taken. A task makes one thing at a time, for the kind that was used last first. What would be
//! too much together takes the place of what was not used for longest.
//!
//! Before a kind is made again whose last one could not be made, or has ended on its shelf, there
//! is a pause of a second, and of twice as long each time, until one was of use. One that was taken
//! is replaced a little later, so that the making does not compete with the use.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::{BoxFuture, Error};

/// Something that is kept until it is used.
pub(super) trait Kept: Send + 'static {
    /// Returns whether it can still be used.
    fn is_alive(&mut self) -> bool;
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Of each kind.
    pub(super) each: usize,
    /// The memory of all together that they may use at most.
    pub(super) bytes_max: u64,
}

/// Items `T` that are kept ready, on one shelf for each kind `K`. An item is made from an `R`.
/// Dropping the stock ends its items.
pub(super) struct Stock<K: 'static, R: 'static, T: Kept> {
    shelves: Arc<Shared<K, R, T>>,
    filler: AbortHandle,
}

struct Shared<K, R, T> {
    shelves: Mutex<Shelves<K, R, T>>,
    changed: Notify,
}

/// Makes a thing, or returns `None` if there is nothing to make it from any more.
pub(super) type Make<K, R, T> =
    Box<dyn Fn(K, R) -> BoxFuture<'static, Result<Option<T>, Error>> + Send + Sync>;

impl<K, R, T> Stock<K, R, T>
where
    K: Ord + Clone + Send + 'static,
    R: Clone + Send + 'static,
    T: Kept,
{
    /// Starts the task that makes things. `failed` is told of those that could not be made.
    pub(super) fn new(
        room: Room,
        make: Make<K, R, T>,
        failed: impl Fn(&K, Error) + Send + Sync + 'static,
    ) -> Self {
        let shelves = Mutex::new(Shelves { room, shelves: BTreeMap::new(), uses: 0 });
        let shelves = Arc::new(Shared { shelves, changed: Notify::new() });
        let filler = tokio::spawn(fill(Arc::clone(&shelves), make, failed)).abort_handle();
        Self { shelves, filler }
    }

    /// Takes one of a kind, if there is one.
    pub(super) fn take(&self, kind: &K) -> Option<T> {
        let (taken, dead) = self.shelves.lock().take(kind, Instant::now());
        drop(dead);
        self.shelves.changed.notify_one();
        taken
    }

    /// Has some of a kind kept from now on. Each may use so much memory.
    pub(super) fn want(&self, kind: K, from: R, bytes: u64) {
        let dropped = self.shelves.lock().want(kind, from, bytes);
        drop(dropped);
        self.shelves.changed.notify_one();
    }

    /// Ends all of a kind.
    pub(super) fn forget(&self, kind: &K) {
        let shelf = self.shelves.lock().shelves.remove(kind);
        drop(shelf);
    }

    /// Returns how many are ready.
    pub(super) fn ready(&self) -> usize {
        self.shelves.lock().shelves.values().map(|shelf| shelf.ready.len()).sum()
    }

    /// Takes all that are kept. Nothing is made until a kind is wanted again.
    pub(super) fn clear(&self) -> Vec<T> {
        let shelves = std::mem::take(&mut self.shelves.lock().shelves);
        shelves.into_values().flat_map(|shelf| shelf.ready).collect()
    }
}

impl<K, R, T: Kept> Drop for Stock<K, R, T> {
    fn drop(&mut self) {
        // What the task makes is dropped with it.
        self.filler.abort();
    }
}

impl<K, R, T: Kept> fmt::Debug for Stock<K, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock").field("room", &self.shelves.lock().room).finish_non_exhaustive()
    }
}

impl<K, R, T> Shared<K, R, T> {
    fn lock(&self) -> MutexGuard<'_, Shelves<K, R, T>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fill<K, R, T>(
    shared: Arc<Shared<K, R, T>>,
    make: Make<K, R, T>,
    failed: impl Fn(&K, Error) + Send + Sync,
) where
    K: Ord + Clone + Send,
    R: Clone + Send,
    T: Kept,
{
    loop {
        let (dead, evicted, next) = {
            let (mut shelves, now) = (shared.lock(), Instant::now());
            let dead = shelves.remove_dead(now);
            let (evicted, next) = shelves.next(now);
            (dead, evicted, next)
        };
        drop((dead, evicted));
        match next {
            Next::Make(kind, from) => match make(kind.clone(), from).await {
                Ok(Some(made)) => {
                    let refused = shared.lock().put(&kind, made);
                    drop(refused);
                }
                Ok(None) => {
                    let gone = shared.lock().shelves.remove(&kind);
                    drop(gone);
                }
                Err(error) => {
                    shared.lock().note_failure(&kind, Instant::now());
                    failed(&kind, error);
                }
            },
            Next::Wait(until) => tokio::select! {
                () = shared.changed.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            },
            Next::Rest => shared.changed.notified().await,
        }
    }
}

/// The shelves. They decide, and make nothing.
struct Shelves<K, R, T> {
    room: Room,
    shelves: BTreeMap<K, Shelf<R, T>>,
    /// Counts uses, to find what was not used for longest.
    uses: u64,
}

struct Shelf<R, T> {
    from: R,
    /// The memory that each may use.
    bytes: u64,
    used: u64,
    ready: VecDeque<T>,
    /// Failures since one was of use, and when the next attempt is.
    failures: u32,
    retry_at: Option<Instant>,
}

/// What is to be done next.
enum Next<K, R> {
    Make(K, R),
    /// Look again then.
    Wait(Instant),
    /// Until something changes there is nothing to do.
    Rest,
}

impl<K: Ord + Clone, R: Clone, T: Kept> Shelves<K, R, T> {
    /// Takes one that is alive. Returns also those that were not.
    fn take(&mut self, kind: &K, now: Instant) -> (Option<T>, Vec<T>) {
        let mut dead = Vec::new();
        self.uses += 1;
        let Some(shelf) = self.shelves.get_mut(kind) else { return (None, dead) };
        shelf.used = self.uses;
        while let Some(mut kept) = shelf.ready.pop_front() {
            if kept.is_alive() {
                (shelf.failures, shelf.retry_at) = (0, Some(now + REFILL_PAUSE));
                return (Some(kept), dead);
            }
            shelf.fail(now);
            dead.push(kept);
        }
        (None, dead)
    }

    /// Adds a shelf, or notes that its kind was used. Returns a shelf that had to go.
    fn want(&mut self, kind: K, from: R, bytes: u64) -> Option<Shelf<R, T>> {
        if self.room.each == 0 || bytes > self.room.bytes_max {
            return None;
        }
        self.uses += 1;
        let used = self.uses;
        let new =
            || Shelf { from, bytes, used, ready: VecDeque::new(), failures: 0, retry_at: None };
        self.shelves.entry(kind).or_insert_with(new).used = used;
        let is_full = self.shelves.len() > SHELVES_MAX;
        let oldest = self.shelves.iter().min_by_key(|(_, shelf)| shelf.used);
        let oldest = oldest.map(|(kind, _)| kind.clone()).filter(|_| is_full)?;
        self.shelves.remove(&oldest)
    }

    /// Puts one on its shelf. Returns it if its kind is not wanted any more.
    fn put(&mut self, kind: &K, made: T) -> Option<T> {
        let Some(shelf) = self.shelves.get_mut(kind) else { return Some(made) };
        shelf.ready.push_back(made);
        None
    }

    fn note_failure(&mut self, kind: &K, now: Instant) {
        if let Some(shelf) = self.shelves.get_mut(kind) {
            shelf.fail(now);
        }
    }

    /// Takes out what has ended on its shelf.
    fn remove_dead(&mut self, now: Instant) -> Vec<T> {
        let mut dead = Vec::new();
        for shelf in self.shelves.values_mut() {
            for mut kept in std::mem::take(&mut shelf.ready) {
                if kept.is_alive() {
                    shelf.ready.push_back(kept);
                } else {
                    shelf.fail(now);
                    dead.push(kept);
                }
            }
        }
        dead
    }

    /// Decides what to do next, and takes out what has to go for that.
    fn next(&mut self, now: Instant) -> (Vec<T>, Next<K, R>) {
        let mut kinds: Vec<(u64, K)> =
            self.shelves.iter().map(|(kind, shelf)| (shelf.used, kind.clone())).collect();
        kinds.sort_by(|one, other| other.cmp(one));
        let mut wait: Option<Instant> = None;
        for (used, kind) in kinds {
            let Some(shelf) = self.shelves.get(&kind) else { continue };
            if shelf.ready.len() >= self.room.each {
                continue;
            }
            if let Some(at) = shelf.retry_at.filter(|at| *at > now) {
                wait = Some(wait.map_or(at, |wait| wait.min(at)));
                continue;
            }
            let (bytes, from) = (shelf.bytes, shelf.from.clone());
            if let Some(evicted) = self.make_room(bytes, used) {
                return (evicted, Next::Make(kind, from));
            }
        }
        let is_empty = self.shelves.values().all(|shelf| shelf.ready.is_empty());
        let look_at = (!is_empty).then(|| now + LOOK_INTERVAL);
        let next = match (wait, look_at) {
            (Some(wait), Some(look_at)) => Next::Wait(wait.min(look_at)),
            (Some(at), None) | (None, Some(at)) => Next::Wait(at),
            (None, None) => Next::Rest,
        };
        (Vec::new(), next)
    }

    /// Takes out things of shelves that were used before `used` until there is room for so many
    /// bytes. Returns `None`, and takes none out, if that would not be enough.
    fn make_room(&mut self, bytes: u64, used: u64) -> Option<Vec<T>> {
        let taken: u64 = self.shelves.values().map(Shelf::bytes).sum();
        let mut lacking = (taken + bytes).saturating_sub(self.room.bytes_max);
        let mut older: Vec<&mut Shelf<R, T>> =
            self.shelves.values_mut().filter(|shelf| shelf.used < used).collect();
        if older.iter().map(|shelf| shelf.bytes()).sum::<u64>() < lacking {
            return None;
        }
        older.sort_by_key(|shelf| shelf.used);
        let mut evicted = Vec::new();
        for shelf in older {
            while lacking > 0
                && let Some(kept) = shelf.ready.pop_back()
            {
                lacking = lacking.saturating_sub(shelf.bytes);
                evicted.push(kept);
            }
        }
        Some(evicted)
    }
}

impl<R, T> Shelf<R, T> {
    fn bytes(&self) -> u64 {
        self.bytes.saturating_mul(self.ready.len() as u64)
    }

    fn fail(&mut self, now: Instant) {
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }
}

/// The most kinds.
const SHELVES_MAX: usize = 64;
/// How often shelves are looked at for what has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before one that was taken is replaced.
const REFILL_PAUSE: Duration = Duration::from_millis(50);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Clone)]
    struct Thing(&'static str, Arc<AtomicBool>);

    impl Thing {
        fn new(kind: &'static str) -> Self {
            Self(kind, Arc::new(AtomicBool::new(true)))
        }
    }

    impl Kept for Thing {
        fn is_alive(&mut self) -> bool {
            self.1.load(Ordering::SeqCst)
        }
    }

    fn shelves(each: usize, bytes_max: u64) -> Shelves<&'static str, (), Thing> {
        Shelves { room: Room { each, bytes_max }, shelves: BTreeMap::new(), uses: 0 }
    }

    /// Makes all that is to be made. Returns the kinds in order, and those that had to go.
    fn make(shelves: &mut Shelves<&'static str, (), Thing>, now: Instant) -> (String, String) {
        let (mut made, mut gone) = (String::new(), String::new());
        loop {
            let (evicted, next) = shelves.next(now);
            evicted.iter().for_each(|thing| gone.push_str(thing.0));
            let Next::Make(kind, ()) = next else { return (made, gone) };
            assert!(shelves.put(&kind, Thing::new(kind)).is_none());
            made.push_str(kind);
        }
    }

    #[test]
    fn what_was_used_last_is_made_first_and_the_oldest_goes() {
        let (mut shelves, now) = (shelves(2, 35), Instant::now());
        shelves.want("a", (), 10);
        assert_eq!(make(&mut shelves, now), ("aa".into(), String::new()));
        shelves.want("b", (), 10);
        assert_eq!(make(&mut shelves, now), ("bb".into(), "a".into()), "three fit");
        assert_eq!(make(&mut shelves, now), Default::default(), "a is older than b");
        shelves.want("a", (), 10);
        assert_eq!(make(&mut shelves, now), ("a".into(), "b".into()));
        shelves.want("large", (), 36);
        assert!(!shelves.shelves.contains_key("large"), "it would never fit");
    }

    #[test]
    fn what_has_ended_is_not_given_out_and_is_made_again_after_a_growing_pause() {
        let (mut shelves, mut now) = (shelves(1, 10), Instant::now());
        shelves.want("a", (), 10);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(make(&mut shelves, now).0, "a");
            let thing = shelves.shelves["a"].ready[0].clone();
            thing.1.store(false, Ordering::SeqCst);
            assert_eq!(shelves.remove_dead(now).len(), 1);
            now += Duration::from_millis(pause * 1000 - 1);
            assert_eq!(make(&mut shelves, now).0, "", "{pause}");
            now += Duration::from_millis(1);
        }
        assert_eq!(make(&mut shelves, now).0, "a");
        shelves.shelves["a"].ready[0].1.store(false, Ordering::SeqCst);
        let (taken, dead) = shelves.take(&"a", now);
        assert_eq!((taken.is_none(), dead.len()), (true, 1));
        now += Duration::from_secs(60);
        assert_eq!(make(&mut shelves, now).0, "a");
        assert!(shelves.take(&"a", now).0.is_some());
        assert_eq!(make(&mut shelves, now).0, "", "it is in use");
        assert_eq!(make(&mut shelves, now + REFILL_PAUSE).0, "a");
    }

    #[test]
    fn kinds_are_bounded() {
        let mut shelves: Shelves<usize, (), Thing> =
            Shelves { room: Room { each: 1, bytes_max: 1 }, shelves: BTreeMap::new(), uses: 0 };
        for kind in 0..2 * SHELVES_MAX {
            shelves.want(kind, (), 1);
        }
        assert_eq!(shelves.shelves.len(), SHELVES_MAX);
        assert!(shelves.shelves.contains_key(&(2 * SHELVES_MAX - 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stock_refills_and_ends_with_its_owner() {
        let (made, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let failures = Arc::new(AtomicUsize::new(0));
        let (count, failing) = (Arc::clone(&made), Arc::clone(&fails));
        let alive = Arc::new(AtomicBool::new(true));
        let living = Arc::downgrade(&alive);
        let make: Make<&'static str, (), Thing> = Box::new(move |kind, ()| {
            let (count, failing, alive) = (count.clone(), failing.clone(), alive.clone());
            Box::pin(async move {
                if failing.load(Ordering::SeqCst) {
                    return Err(Error::Ended);
                }
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Some(Thing(kind, alive)))
            })
        });
        let failed = Arc::clone(&failures);
        let stock = Stock::new(Room { each: 2, bytes_max: 100 }, make, move |_, _| {
            failed.fetch_add(1, Ordering::SeqCst);
        });
        assert!(stock.take(&"a").is_none());
        stock.want("a", (), 10);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(stock.ready(), 2);
        let taken = stock.take(&"a").expect("one is ready");
        tokio::time::sleep(2 * REFILL_PAUSE).await;
        assert_eq!((stock.ready(), made.load(Ordering::SeqCst)), (2, 3));
        fails.store(true, Ordering::SeqCst);
        assert_eq!(stock.clear().len(), 2);
        stock.want("a", (), 10);
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!((stock.ready(), failures.load(Ordering::SeqCst)), (0, 3), "at 0, 1 and 3 s");
        fails.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(stock.ready(), 2);
        drop((stock, taken));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(living.strong_count(), 0, "nothing is kept");
    }
}
