//! One load for many callers; refresh ahead of expiry; old credentials and repeated errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_cred_chain::testing::VirtualClock;
use aws_cred_chain::{
    BoxFuture, Cache, Clock, Context, Credentials, Error, Origin, ProvideCredentials, Source,
    block_on,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts its loads. Each takes `delay` and gives credentials that are valid for an hour.
#[derive(Clone, Debug)]
struct Counted {
    clock: Arc<dyn Clock>,
    loads: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
    delay: Duration,
    source: Source,
}

impl Counted {
    fn new(clock: impl Clock + 'static, delay: Duration) -> Self {
        Self {
            clock: Arc::new(clock),
            loads: Arc::default(),
            broken: Arc::default(),
            delay,
            source: Source::AssumeRole,
        }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl ProvideCredentials for Counted {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let number = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
            self.clock.sleep(self.delay).await;
            if self.broken.load(Ordering::SeqCst) > 0 {
                let (operation, budget) = ("load".to_owned(), self.delay);
                return Err(Error::TimedOut { operation, budget });
            }
            let keys = Credentials::new(format!("AKID{number}"), "s").with_source(self.source);
            Ok(keys.with_expires_at(self.clock.now() + HOUR))
        })
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn virtual_world(clock: &VirtualClock, delay: Duration) -> (Counted, Cache) {
    let provider = Counted::new(clock.clone(), delay);
    (provider.clone(), Cache::new(Context::empty(clock.clone()), provider))
}

#[tokio::test]
async fn ten_thousand_callers_at_expiry_send_one_request_by_the_virtual_clock() {
    let clock = VirtualClock::manual(start());
    let (provider, cache) = virtual_world(&clock, Duration::from_secs(1));
    let mut calls = tokio::task::JoinSet::new();
    let first = {
        let (cache, clock) = (cache.clone(), clock.clone());
        let waiting = tokio::spawn(async move { cache.credentials().await });
        while provider.loads() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        waiting.await.unwrap().unwrap()
    };
    clock.advance(HOUR + Duration::from_secs(1));
    for _ in 0..10_000 {
        let cache = cache.clone();
        calls.spawn(async move { cache.credentials().await.unwrap() });
    }
    while provider.loads() < 2 {
        tokio::task::yield_now().await;
    }
    // All callers join the load before the answer comes.
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    while let Some(found) = calls.join_next().await {
        let found = found.unwrap();
        assert_eq!(found.access_key_id, "AKID2");
        assert_ne!(found, first);
    }
    assert_eq!(provider.loads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_callers_on_real_threads_send_one_request() {
    let clock = aws_cred_chain::real::SystemClock;
    let provider = Counted::new(clock, Duration::from_millis(200));
    let cache = Cache::new(Context::empty(clock), provider.clone());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let cache = cache.clone();
        calls.spawn(async move { cache.credentials().await.unwrap() });
    }
    while let Some(found) = calls.join_next().await {
        assert_eq!(found.unwrap().access_key_id, "AKID1");
    }
    assert_eq!(provider.loads(), 1);
}

/// The system's clock, which a test can move forward.
#[derive(Clone, Debug, Default)]
struct Forward(Arc<AtomicU64>);

impl Forward {
    fn by(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Forward {
    fn now(&self) -> SystemTime {
        aws_cred_chain::real::SystemClock.now() + self.by()
    }

    fn monotonic(&self) -> Duration {
        aws_cred_chain::real::SystemClock.monotonic() + self.by()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        aws_cred_chain::real::SystemClock.sleep(duration)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_callers_on_real_threads_at_expiry_send_one_request() {
    let clock = Forward::default();
    let provider = Counted::new(clock.clone(), Duration::from_millis(200));
    let cache = Cache::new(Context::empty(clock.clone()), provider.clone());
    assert_eq!(cache.credentials().await.unwrap().access_key_id, "AKID1");
    let gate = Arc::new(tokio::sync::Barrier::new(10_001));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let (cache, gate) = (cache.clone(), gate.clone());
        calls.spawn(async move {
            assert_eq!(cache.credentials().await.unwrap().access_key_id, "AKID1");
            gate.wait().await;
            // All callers wait here when the keys expire.
            gate.wait().await;
            cache.credentials().await.unwrap()
        });
    }
    gate.wait().await;
    assert_eq!(provider.loads(), 1);
    clock.0.store(3601, Ordering::SeqCst);
    gate.wait().await;
    while let Some(found) = calls.join_next().await {
        assert_eq!(found.unwrap().access_key_id, "AKID2");
    }
    assert_eq!(provider.loads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_others_get_it_when_callers_go_away() {
    let clock = aws_cred_chain::real::SystemClock;
    let provider = Counted::new(clock, Duration::from_millis(300));
    let cache = Cache::new(Context::empty(clock), provider.clone());
    let spawn = |cache: Cache| tokio::spawn(async move { cache.credentials().await });
    let first = spawn(cache.clone());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let others: Vec<_> = (0..1000).map(|_| spawn(cache.clone())).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    for (index, other) in others.iter().enumerate() {
        if index % 2 == 0 {
            other.abort();
        }
    }
    for (index, other) in others.into_iter().enumerate() {
        if index % 2 == 1 {
            let found = tokio::time::timeout(Duration::from_secs(10), other).await;
            assert_eq!(found.expect("nobody drives").unwrap().unwrap().access_key_id, "AKID1");
        }
    }
    assert_eq!(provider.loads(), 1);
}

#[tokio::test]
async fn a_load_that_all_callers_left_is_taken_up_by_the_next() {
    let clock = VirtualClock::manual(start());
    let (provider, cache) = virtual_world(&clock, Duration::from_secs(1));
    let only = tokio::spawn({
        let cache = cache.clone();
        async move { cache.credentials().await }
    });
    while provider.loads() == 0 {
        tokio::task::yield_now().await;
    }
    only.abort();
    assert!(only.await.unwrap_err().is_cancelled());
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.credentials().await.unwrap().access_key_id, "AKID1");
    assert_eq!(provider.loads(), 1);
}

#[test]
fn the_old_serve_while_a_refresh_runs() {
    let clock = VirtualClock::manual(start());
    let (provider, cache) = virtual_world(&clock, Duration::ZERO);
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID1");
    // Before the refresh is due (15 minutes and a jitter of a minute ahead) nothing is loaded.
    clock.advance(Duration::from_secs(43 * 60));
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID1");
    assert_eq!(provider.loads(), 1);
    clock.advance(Duration::from_secs(3 * 60));
    block_on(cache.credentials()).unwrap();
    assert_eq!(provider.loads(), 2, "a refresh began ahead of expiry");
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID2");
}

#[test]
fn a_slow_refresh_makes_nobody_wait() {
    let clock = VirtualClock::manual(start());
    let provider = Counted::new(clock.clone(), Duration::from_secs(5));
    let cache = Cache::new(Context::empty(VirtualClock::manual(start())), provider.clone());
    // This cache's clock stands still, and the provider's moves. The first load needs a caller that
    // polls it.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(cache.credentials()).unwrap());
        while provider.loads() == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        clock.advance(Duration::from_secs(5));
        assert_eq!(waiting.join().unwrap().access_key_id, "AKID1");
    });
}

/// A refresh that callers began and then nobody polled is loaded again: its timeout is out of date.
#[test]
fn a_refresh_that_nobody_drove_is_begun_again() {
    let clock = VirtualClock::manual(start());
    let provider = Counted::new(clock.clone(), Duration::ZERO);
    let slow = Slow { inner: provider.clone(), waits: Arc::default() };
    let waits = slow.waits.clone();
    let cache = Cache::new(Context::empty(clock.clone()), slow);
    block_on(cache.credentials()).unwrap();
    waits.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(50 * 60));
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID1");
    waits.store(0, Ordering::SeqCst);
    clock.advance(HOUR);
    let found = block_on(cache.credentials()).unwrap();
    assert!(found.expires_at.unwrap() > clock.now());
    assert_eq!(provider.loads(), 2);
}

/// Holds a load back until it is polled again, while `waits` is set.
#[derive(Debug)]
struct Slow<P> {
    inner: P,
    waits: Arc<AtomicUsize>,
}

impl<P: ProvideCredentials> ProvideCredentials for Slow<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async {
            let held = self.waits.load(Ordering::SeqCst) > 0;
            if held {
                std::future::poll_fn(|_| match self.waits.load(Ordering::SeqCst) {
                    0 => std::task::Poll::Ready(()),
                    _ => std::task::Poll::Pending,
                })
                .await;
                let (operation, budget) = ("held load".to_owned(), Duration::ZERO);
                return Err(Error::TimedOut { operation, budget });
            }
            self.inner.provide().await
        })
    }
}

#[test]
fn a_failed_refresh_serves_what_is_valid_and_then_says_why() {
    let clock = VirtualClock::manual(start());
    let (provider, cache) = virtual_world(&clock, Duration::ZERO);
    block_on(cache.credentials()).unwrap();
    provider.broken.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(50 * 60));
    for _ in 0..100 {
        assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID1");
    }
    assert_eq!(provider.loads(), 2, "a failed refresh is not tried at every call");
    clock.advance(Duration::from_secs(11 * 60));
    assert!(matches!(block_on(cache.credentials()), Err(Error::TimedOut { .. })));
    let loads = provider.loads();
    assert!(block_on(cache.credentials()).is_err());
    assert_eq!(provider.loads(), loads, "an error is answered again for a short time");
    provider.broken.store(0, Ordering::SeqCst);
    clock.advance(Duration::from_secs(3));
    assert!(block_on(cache.credentials()).is_ok());
}

#[test]
fn metadata_credentials_serve_beyond_their_expiry() {
    let clock = VirtualClock::manual(start());
    let mut provider = Counted::new(clock.clone(), Duration::ZERO);
    provider.source = Source::InstanceMetadata;
    let cache = Cache::new(Context::empty(clock.clone()), provider.clone());
    block_on(cache.credentials()).unwrap();
    provider.broken.store(1, Ordering::SeqCst);
    clock.advance(10 * HOUR);
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID1");
}

#[test]
fn refreshes_are_spread_by_jitter() {
    let due = |seed: u64| {
        let clock = VirtualClock::manual(start());
        let provider = Counted::new(clock.clone(), Duration::ZERO);
        let cache = Cache::new(Context::empty(clock.clone()).with_seed(seed), provider.clone());
        block_on(cache.credentials()).unwrap();
        let mut seconds = 0;
        while provider.loads() == 1 {
            clock.advance(Duration::from_secs(1));
            seconds += 1;
            block_on(cache.credentials()).unwrap();
        }
        seconds
    };
    let times: std::collections::BTreeSet<u32> = (0..50).map(due).collect();
    assert!(times.len() > 15, "{times:?}");
    assert!(times.iter().all(|s| (44 * 60..=45 * 60 + 1).contains(s)), "{times:?}");
}

/// `keep_fresh` renews without callers.
#[test]
fn keep_fresh_renews_ahead_of_every_expiry() {
    let clock = VirtualClock::new(start());
    let (provider, cache) = virtual_world(&clock, Duration::from_secs(2));
    let mut renewal = Box::pin(cache.keep_fresh());
    let mut end = clock.sleep(10 * HOUR);
    block_on(std::future::poll_fn(|cx| {
        assert!(renewal.as_mut().poll(cx).is_pending(), "it never ends");
        if provider.loads() > 1 {
            let kept = block_on(cache.credentials()).unwrap();
            assert!(kept.expires_at.unwrap() > clock.now(), "expired ones were kept");
        }
        end.as_mut().poll(cx)
    }));
    // The keys are valid for an hour and renewed about 15 minutes early.
    assert!((12..=15).contains(&provider.loads()), "{} loads in ten hours", provider.loads());
}

#[test]
fn refused_credentials_are_forgotten() {
    let clock = VirtualClock::manual(start());
    let (provider, cache) = virtual_world(&clock, Duration::ZERO);
    let first = block_on(cache.credentials()).unwrap();
    cache.invalidate(&first);
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID2");
    cache.invalidate(&first);
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID2");
    assert_eq!(provider.loads(), 2);
    assert!(!format!("{cache:?} {:?}", Origin::Default).contains("\"s\""));
}

/// After a load that panicked, later callers must not hang.
#[test]
fn after_a_panic_in_a_load_the_next_caller_loads_again() {
    #[derive(Debug, Default)]
    struct PanicsOnce(AtomicUsize);
    impl ProvideCredentials for PanicsOnce {
        fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
            Box::pin(async {
                assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
                Ok(Credentials::new("AKID", "s"))
            })
        }
    }
    let cache = Cache::new(Context::empty(VirtualClock::new(start())), PanicsOnce::default());
    let theirs = cache.clone();
    assert!(std::thread::spawn(move || block_on(theirs.credentials())).join().is_err());
    assert_eq!(block_on(cache.credentials()).unwrap().access_key_id, "AKID");
}

/// The credentials that a thread remembers are never those of another cache or of an older entry,
/// and are not kept longer than the cache.
#[test]
fn what_a_thread_saw_last_is_not_taken_for_anything_else() {
    let clock = VirtualClock::manual(start());
    let caches: Vec<Cache> = (0..3)
        .map(|number| {
            Cache::new(
                Context::empty(clock.clone()),
                Credentials::new(format!("AKID{number}"), "s"),
            )
        })
        .collect();
    for _ in 0..3 {
        for (number, cache) in caches.iter().enumerate() {
            let found = block_on(cache.credentials()).unwrap();
            assert_eq!(found.access_key_id, format!("AKID{number}"));
            assert_eq!(cache.peek().unwrap(), found);
        }
    }
    let (provider, cache) = virtual_world(&clock, Duration::ZERO);
    let first = block_on(cache.credentials()).unwrap();
    assert!(Arc::ptr_eq(&cache.peek().unwrap(), &cache.peek().unwrap()));
    cache.invalidate(&first);
    assert_eq!(cache.peek(), None);
    let second = block_on(cache.credentials()).unwrap();
    // This thread sees the other thread's renewal at once.
    let theirs = cache.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            theirs.invalidate(&second);
            block_on(theirs.credentials()).unwrap();
        });
    });
    assert_eq!(cache.peek().unwrap().access_key_id, "AKID3");
    assert_eq!(provider.loads(), 3);
    let kept = Arc::downgrade(&cache.peek().unwrap());
    drop((cache, theirs));
    assert!(kept.upgrade().is_none(), "the thread keeps no secrets of a cache that is gone");
}
