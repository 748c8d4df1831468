//! A credential cache. Concurrent callers share one load, and a refresh begins ahead of expiry.
//!
//! No task is spawned. A waiting caller polls the load; if that caller is dropped, another waiting
//! caller polls it. While the old credentials are valid, each call advances a due refresh without
//! waiting for it.

pub mod cli;
mod flight;
mod sync;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use crate::cache::flight::{Flight, Outcome};
use crate::credentials::{Credentials, ProvideCredentials, Source};
use crate::error::Error;
use crate::settings::run::jitter;
use crate::world::lock;
use crate::world::{BoxFuture, Context};

/// When a [`Cache`] refreshes its credentials, and how long it repeats an error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheSettings {
    /// How long before expiry a refresh begins, at most. Callers still get the old credentials. If
    /// a third of the lifetime of the credentials is shorter, that is used. Default 15 minutes.
    pub refresh_ahead: Duration,
    /// How long before expiry callers begin to wait for the refresh, at most. If a tenth of the
    /// lifetime is shorter, that is used. Default 2 minutes.
    pub wait_ahead: Duration,
    /// Upper bound of a random time by which a refresh begins earlier, so that many hosts do not
    /// refresh together. If a tenth of the lifetime is shorter, that is used. Default 1 minute.
    pub jitter: Duration,
    /// How long callers get the same error again without a new load. Default 2 seconds.
    pub error_ttl: Duration,
    /// Delay from a failed refresh to the next one while the old credentials are valid. A random
    /// time, at most as long again, is added. Default 30 seconds.
    pub retry_after: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(15 * 60),
            wait_ahead: Duration::from_secs(2 * 60),
            jitter: Duration::from_secs(60),
            error_ttl: Duration::from_secs(2),
            retry_after: Duration::from_secs(30),
        }
    }
}

/// Caches credentials and refreshes them. Clones share the cached credentials.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    provider: Arc<dyn ProvideCredentials>,
    context: Context,
    settings: CacheSettings,
    entry: RwLock<Option<Arc<Entry>>>,
    /// Number of the latest change of `entry`. Numbers are unique among all caches; see
    /// [`Glimpse`].
    change: AtomicU64,
    load: Mutex<Load>,
}

/// The cache entry that a thread read last. As long as the number of the change is the same, a read
/// takes no lock. A lock costs two writes to shared memory, about as much as reading the clock.
struct Glimpse {
    /// The number of the change. No other cache has the same number.
    change: u64,
    credentials: Weak<Credentials>,
    refresh_at: Option<SystemTime>,
}

thread_local! {
    static GLIMPSE: RefCell<Glimpse> = const {
        RefCell::new(Glimpse { change: 0, credentials: Weak::new(), refresh_at: None })
    };
}

/// Returns the next number of a change. All caches share the sequence, which begins at one.
fn next_change() -> u64 {
    static CHANGES: AtomicU64 = AtomicU64::new(0);
    CHANGES.fetch_add(1, Ordering::Relaxed) + 1
}

#[derive(Default)]
struct Load {
    flight: Option<Arc<Flight>>,
    error: Option<(Error, Duration)>,
}

/// Credentials and the times at which a refresh is due.
struct Entry {
    credentials: Arc<Credentials>,
    refresh_at: Option<SystemTime>,
    wait_at: Option<SystemTime>,
}

impl Cache {
    /// Returns an empty cache of the credentials of `provider`.
    #[must_use]
    pub fn new(context: Context, provider: impl ProvideCredentials + 'static) -> Self {
        Self::with_settings(context, provider, CacheSettings::default())
    }

    /// Returns an empty cache of the credentials of `provider` with these settings.
    #[must_use]
    pub fn with_settings(
        context: Context,
        provider: impl ProvideCredentials + 'static,
        settings: CacheSettings,
    ) -> Self {
        let shared = Shared {
            provider: Arc::new(provider),
            context,
            settings,
            entry: RwLock::new(None),
            change: AtomicU64::new(next_change()),
            load: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns valid credentials: the cached ones, or those of a load that all callers share.
    ///
    /// # Errors
    ///
    /// The provider's error, if no cached credentials are valid. Callers get the same error again
    /// for [`CacheSettings::error_ttl`] without a new load.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, Error> {
        if let Some(credentials) = self.peek() {
            return Ok(credentials);
        }
        let entry = self.entry();
        let now = self.shared.context.clock.now();
        if let Some(entry) = &entry
            && entry.wait_at.is_none_or(|at| now < at)
        {
            self.push_refresh();
            // The call above may have completed the refresh.
            let latest = self.entry().map(|latest| latest.credentials.clone());
            return Ok(latest.unwrap_or_else(|| entry.credentials.clone()));
        }
        // Boxed, so that the future of a cached read stays small.
        Box::pin(self.wait_for_load(entry)).await
    }

    /// Returns the cached credentials if they are valid and no refresh is due. Never loads.
    #[must_use]
    pub fn peek(&self) -> Option<Arc<Credentials>> {
        let change = self.shared.change.load(Ordering::Acquire);
        let glimpsed = GLIMPSE.try_with(|last| {
            let last = last.try_borrow().ok().filter(|last| last.change == change)?;
            if self.is_due(last.refresh_at) { None } else { last.credentials.upgrade() }
        });
        match glimpsed {
            Ok(Some(credentials)) => Some(credentials),
            _ => self.look(),
        }
    }

    /// Reads the entry under the lock and stores it for later reads by this thread.
    fn look(&self) -> Option<Arc<Credentials>> {
        let entry = self.shared.entry.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entry.as_ref()?;
        if self.is_due(entry.refresh_at) {
            return None;
        }
        // The lock is held, so the number of the change belongs to this entry.
        let glimpse = Glimpse {
            change: self.shared.change.load(Ordering::Acquire),
            credentials: Arc::downgrade(&entry.credentials),
            refresh_at: entry.refresh_at,
        };
        // A thread that is ending stores none.
        let _ending =
            GLIMPSE.try_with(|last| last.try_borrow_mut().map(|mut last| *last = glimpse));
        Some(entry.credentials.clone())
    }

    /// Returns whether a refresh is due. For credentials without an expiry the clock is not read;
    /// it is half of the cost of a cached read.
    fn is_due(&self, refresh_at: Option<SystemTime>) -> bool {
        refresh_at.is_some_and(|at| self.shared.context.clock.now() >= at)
    }

    fn put(&self, entry: Arc<Entry>) {
        let mut slot = self.shared.entry.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(entry);
        self.shared.change.store(next_change(), Ordering::Release);
    }

    /// Drops the cached credentials if they equal `refused`, which a service did not accept. Newer
    /// credentials stay.
    pub fn invalidate(&self, refused: &Credentials) {
        let mut entry = self.shared.entry.write().unwrap_or_else(PoisonError::into_inner);
        if entry.as_ref().is_some_and(|kept| *kept.credentials == *refused) {
            *entry = None;
            self.shared.change.store(next_change(), Ordering::Release);
        }
    }

    /// Loads credentials and refreshes them ahead of expiry, for ever. For a host that wants fresh
    /// credentials without callers: run this future as a task, and drop it to end it. Errors are
    /// retried; callers of [`Cache::credentials`] get them too.
    pub async fn keep_fresh(&self) {
        let clock = &self.shared.context.clock;
        let pause = self.shared.settings.retry_after.max(Duration::from_secs(1));
        loop {
            let loaded = match self.due() {
                true => self.wait_for_load(self.entry()).await.is_ok(),
                false => true,
            };
            let until = self.entry().and_then(|entry| entry.refresh_at);
            let wait = until.and_then(|at| at.duration_since(clock.now()).ok());
            let wait = if loaded { wait.unwrap_or(pause) } else { pause };
            clock.sleep(wait.max(Duration::from_secs(1))).await;
        }
    }

    fn due(&self) -> bool {
        let now = self.shared.context.clock.now();
        self.entry().is_none_or(|entry| entry.refresh_at.is_some_and(|at| at <= now))
    }

    fn entry(&self) -> Option<Arc<Entry>> {
        self.shared.entry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a refresh if none is running, and polls it once. Does not wait.
    fn push_refresh(&self) {
        let flight = {
            let mut load = lock(&self.shared.load);
            if load.flight.is_none() && self.error_holds(&mut load).is_some() {
                return;
            }
            self.flight(&mut load)
        };
        if let Some(outcome) = flight.push() {
            self.land(&flight, &outcome);
        }
    }

    async fn wait_for_load(&self, old: Option<Arc<Entry>>) -> Result<Arc<Credentials>, Error> {
        let mut fresh_start = false;
        loop {
            let (flight, orphaned) = {
                let mut load = lock(&self.shared.load);
                // Another caller's load may have ended since this caller read the entry.
                if let Some(entry) = self.entry()
                    && old.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &entry))
                {
                    return Ok(entry.credentials.clone());
                }
                if load.flight.is_none()
                    && let Some(error) = self.error_holds(&mut load)
                {
                    return self.stale(old.as_deref()).ok_or(error);
                }
                let flight = self.flight(&mut load);
                let orphaned = flight.is_orphaned();
                (flight, orphaned)
            };
            let outcome = flight.wait().await;
            self.land(&flight, &outcome);
            match outcome {
                Ok(credentials) => return Ok(credentials),
                // This load had begun earlier and nobody polled it, so its deadlines may have
                // passed meanwhile. Load once more.
                Err(_) if orphaned && !fresh_start => {
                    fresh_start = true;
                    lock(&self.shared.load).error = None;
                }
                Err(error) => return self.stale(old.as_deref()).ok_or(error),
            }
        }
    }

    /// Returns the old credentials if they may still be used after a failed refresh.
    fn stale(&self, old: Option<&Entry>) -> Option<Arc<Credentials>> {
        let credentials = &old?.credentials;
        let now = self.shared.context.clock.now();
        let valid = credentials.expires_at.is_none_or(|at| now < at);
        // AWS allows clients of the metadata service to use its credentials beyond their expiry.
        let lasting = credentials.source == Source::InstanceMetadata;
        (valid || lasting).then(|| credentials.clone())
    }

    fn error_holds(&self, load: &mut Load) -> Option<Error> {
        let now = self.shared.context.clock.monotonic();
        load.error.take_if(|(_, until)| *until <= now);
        load.error.as_ref().map(|(error, _)| error.clone())
    }

    fn flight(&self, load: &mut Load) -> Arc<Flight> {
        let provider = self.shared.provider.clone();
        let clock = self.shared.context.clock.clone();
        load.flight
            .get_or_insert_with(|| {
                Flight::new(Box::pin(async move {
                    let credentials = provider.provide().await?;
                    let expired = credentials.expires_at.is_some_and(|at| at <= clock.now());
                    if expired && credentials.source != Source::InstanceMetadata {
                        let what =
                            format!("{} gave credentials that have expired", credentials.source);
                        return Err(Error::unexpected("loading credentials", what));
                    }
                    Ok(Arc::new(credentials))
                }))
            })
            .clone()
    }

    /// Stores the outcome of `flight`. Does nothing if another caller has stored it.
    fn land(&self, flight: &Arc<Flight>, outcome: &Outcome) {
        let mut load = lock(&self.shared.load);
        if load.flight.as_ref().is_none_or(|current| !Arc::ptr_eq(current, flight)) {
            return;
        }
        load.flight = None;
        let context = &self.shared.context;
        let settings = &self.shared.settings;
        match outcome {
            Ok(credentials) => {
                load.error = None;
                let entry = Arc::new(self.plan(credentials.clone()));
                self.put(entry);
            }
            Err(error) => {
                crate::log::unresolved(error);
                let serving = self.stale(self.entry().as_deref()).is_some();
                let pause = if serving {
                    settings.retry_after + jitter(context, settings.retry_after)
                } else {
                    settings.error_ttl
                };
                load.error = Some((error.clone(), context.clock.monotonic() + pause));
            }
        }
    }

    /// Computes when a refresh of `credentials` is due.
    fn plan(&self, credentials: Arc<Credentials>) -> Entry {
        let (context, settings) = (&self.shared.context, &self.shared.settings);
        let now = context.clock.now();
        let (refresh_at, wait_at) = match credentials.expires_at {
            None => (None, None),
            Some(at) => match at.duration_since(now).ok().filter(|life| !life.is_zero()) {
                // Expired: ask again in 5 to 10 minutes, as AWS requires of its clients.
                None => {
                    let five = Duration::from_secs(300);
                    (Some(now + five + jitter(context, five)), None)
                }
                Some(life) => {
                    let ahead = settings.refresh_ahead.min(life / 3);
                    let early = jitter(context, settings.jitter.min(life / 10));
                    let wait = settings.wait_ahead.min(life / 10);
                    (Some(at - ahead - early), Some(at - wait))
                }
            },
        };
        Entry { credentials, refresh_at, wait_at }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("provider", &self.shared.provider)
            .field("credentials", &self.entry().map(|entry| entry.credentials.clone()))
            .finish_non_exhaustive()
    }
}

impl ProvideCredentials for Cache {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move { self.credentials().await.map(|credentials| (*credentials).clone()) })
    }
}
