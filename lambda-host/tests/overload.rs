//! A host with more work than it can do at once, on the fake backend in virtual time: inits are
//! bounded, nothing that waits is lost, and no function keeps another out.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{SECOND, named, zip};
use lambda_host::Host;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Returns a backend with a function whose init and invocations take these times, and the times at
/// which its inits began.
fn function(
    backend: FakeBackend,
    name: &str,
    init: Duration,
    run: Duration,
) -> (FakeBackend, Arc<Mutex<Vec<Instant>>>) {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&begun);
    let backend = backend.with_handler(name, move |_: &_| FakeAnswer::success("1").after(run));
    let backend = backend.with_init(name, move || {
        noted.lock().unwrap().push(Instant::now());
        Ok(init)
    });
    (backend, begun)
}

async fn start(backend: FakeBackend, memory_mb: u64) -> Host {
    Host::builder(Arc::new(backend)).with_memory_mb(memory_mb).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_two_hundred_cold_starts_none_is_lost_and_few_are_made_at_once() {
    let init = 2 * SECOND;
    let (backend, begun) = function(FakeBackend::new(), "f", init, SECOND / 2);
    let host = start(backend, 200 * 128).await;
    host.deploy(named("f").with_timeout(60 * SECOND), zip("1")).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let host = host.clone();
        callers.spawn(async move { host.invoke("f", "1").await });
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|it| it.as_ref().is_ok_and(|it| !it.function_error)), "{answers:?}");
    let begun = begun.lock().unwrap();
    let at_once = begun.iter().map(|&it| {
        let running = |other: &&Instant| **other <= it && it - **other < init;
        begun.iter().filter(running).count()
    });
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let most = at_once.max().unwrap();
    assert!(most <= 4 * processors, "{most} inits at once on {processors} processors");
}

#[tokio::test(start_paused = true)]
async fn many_callers_of_a_warm_function_are_served_no_slower_than_one() {
    let (backend, _) = function(FakeBackend::new(), "f", SECOND, SECOND / 100);
    let host = start(backend, 16 * 128).await;
    host.deploy(named("f"), zip("1")).await.unwrap();
    host.invoke("f", "1").await.unwrap();
    let served = async |callers: usize| {
        let (end, mut running) = (Instant::now() + 10 * SECOND, JoinSet::new());
        for _ in 0..callers {
            let host = host.clone();
            running.spawn(async move {
                let mut answered = 0;
                while Instant::now() < end {
                    assert!(!host.invoke("f", "1").await.unwrap().function_error);
                    answered += 1;
                }
                answered
            });
        }
        running.join_all().await.into_iter().sum::<u32>()
    };
    let (one, many) = (served(1).await, served(64).await);
    assert!(one > 100 && many >= one, "{one} by one caller, {many} by 64");
}

#[tokio::test(start_paused = true)]
async fn the_queue_of_one_function_keeps_no_other_out() {
    let (backend, _) = function(FakeBackend::new(), "busy", Duration::ZERO, 6 * SECOND);
    let (backend, _) = function(backend, "other", Duration::ZERO, SECOND / 100);
    // Room for three sandboxes, each with what a sandbox takes beside its function.
    let host = start(backend, 1024).await;
    for name in ["busy", "other"] {
        let config = named(name).with_memory_mb(256).with_timeout(60 * SECOND);
        host.deploy(config, zip(name)).await.unwrap();
    }
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let host = host.clone();
        callers.spawn(async move {
            for _ in 0..4 {
                host.invoke("busy", "1").await.unwrap();
            }
        });
    }
    for _ in 0..5 {
        tokio::time::sleep(SECOND).await;
        let began = Instant::now();
        let answer = host.invoke("other", "1").await;
        assert!(answer.is_ok_and(|it| !it.function_error));
        // Until one of the two that run ends, and as long again.
        assert!(began.elapsed() <= 12 * SECOND, "{:?}", began.elapsed());
    }
    callers.join_all().await;
}
