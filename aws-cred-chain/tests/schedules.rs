//! The shared load of the cache, in thousands of schedules of its threads.
//!
//! This test compiles `flight.rs` with the locks and atomics of shuttle, which may switch threads
//! after every use. A lost wake is a deadlock, which shuttle reports with its schedule.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../src/cache/flight.rs"]
mod flight;

/// The module that `flight.rs` imports.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Mutex, TryLockError};

    /// A cell that is set once. Another thread may run before each use.
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> Self {
            Self(std::sync::OnceLock::new())
        }

        pub(crate) fn get(&self) -> Option<&T> {
            shuttle::thread::yield_now();
            self.0.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            shuttle::thread::yield_now();
            self.0.set(value)
        }
    }
}

mod credentials {
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Credentials(pub(crate) u32);
}

mod error {
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Error(pub(crate) String);

    impl Error {
        pub(crate) fn unexpected(operation: &str, what: &str) -> Self {
            Self(format!("{operation}: {what}"))
        }
    }
}

mod world {
    use std::pin::Pin;
    use std::sync::PoisonError;

    use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use credentials::Credentials;
use flight::{Flight, Outcome};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

/// Wakes a thread that completes a future.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }
}

/// Completes a future, and polls it only after a wake. shuttle's own function polls more often,
/// which hides a lost wake.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut rung = bell.rung.lock().unwrap();
        while !*rung {
            rung = bell.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The event that a load waits for. Another thread makes it ready at some time.
#[derive(Default)]
struct Source {
    ready: bool,
    waker: Option<Waker>,
}

/// Returns a load with this number of waits, and a count of its completions.
fn load(waits: u32) -> (Arc<Flight>, Arc<AtomicU32>) {
    let ended = Arc::new(AtomicU32::new(0));
    let counted = ended.clone();
    let flight = Flight::new(Box::pin(async move {
        for _ in 0..waits {
            let source = Arc::new(Mutex::new(Source::default()));
            let theirs = source.clone();
            thread::spawn(move || {
                let waker = {
                    let mut source = theirs.lock().unwrap();
                    source.ready = true;
                    source.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            });
            std::future::poll_fn(|cx| {
                let ready = {
                    let mut source = source.lock().unwrap();
                    source.waker = Some(cx.waker().clone());
                    source.ready
                };
                // The wake may come before this poll ends, and make another caller poll.
                (0..8).for_each(|_| thread::yield_now());
                if ready { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Credentials(7)))
    }));
    (flight, ended)
}

fn is_seven(outcome: &Outcome) {
    assert_eq!(outcome.as_ref().map(|credentials| credentials.0), Ok(7));
}

fn check(scenario: fn()) {
    let schedules = if test_support::long() { 50_000 } else { 2_000 };
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, 3);
}

#[test]
fn all_who_wait_get_the_one_outcome() {
    check(|| {
        let (flight, ended) = load(2);
        let waiting = (0..3).map(|_| {
            let flight = flight.clone();
            thread::spawn(move || is_seven(&block_on(flight.wait())))
        });
        let waiting: Vec<_> = waiting.collect();
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        assert!(!flight.is_orphaned());
    });
}

/// If the caller that polled the load or was woken for it is dropped, another one continues.
#[test]
fn the_load_goes_on_when_a_caller_goes_away() {
    check(|| {
        let (flight, ended) = load(2);
        let theirs = flight.clone();
        let fickle = thread::spawn(move || {
            let mut wait = Box::pin(theirs.wait());
            let mut nobody = Context::from_waker(Waker::noop());
            for _ in 0..2 {
                let _answer = wait.as_mut().poll(&mut nobody);
                thread::yield_now();
            }
        });
        let patient = flight.clone();
        let patient = thread::spawn(move || is_seven(&block_on(patient.wait())));
        fickle.join().unwrap();
        patient.join().unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    });
}

/// A caller with valid old credentials polls the load once and does not wait.
#[test]
fn a_push_takes_no_wake_from_those_who_wait() {
    check(|| {
        let (flight, ended) = load(2);
        let (pushing, waiting) = (flight.clone(), flight.clone());
        let pushing = thread::spawn(move || {
            for _ in 0..3 {
                if let Some(outcome) = pushing.push() {
                    is_seven(&outcome);
                }
                thread::yield_now();
            }
        });
        let waiting = thread::spawn(move || is_seven(&block_on(waiting.wait())));
        pushing.join().unwrap();
        waiting.join().unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    });
}
