//! Pools of sandboxes: their size, their figures, failures, and their end.

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use lambda_sandbox::pool::{Pool, PoolFigures, PoolSettings};
use lambda_sandbox::{Answer, Exit, InitFailure, Invocation, Root, SandboxSpec};

fn spec() -> SandboxSpec {
    SandboxSpec::new(Root::empty(), ["/bootstrap"]).named("f")
}

fn backend() -> FakeBackend {
    FakeBackend::new().with_handler("f", |_| FakeAnswer::success("1"))
}

fn settings(ready: usize) -> PoolSettings {
    PoolSettings { ready, ..PoolSettings::default() }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn as_many_are_ready_as_were_asked_for_and_the_first_made_goes_first() {
    let fake = backend();
    let pool = Pool::initialised(Arc::new(fake.clone()), spec(), settings(4));
    assert_eq!(fake.live(), 0, "nothing is made before the task has run");
    pass(Duration::from_secs(1)).await;
    assert_eq!((fake.live(), pool.figures().ready), (4, 4));
    let idle = pool.take().await.expect("ready");
    assert_eq!(pool.figures(), PoolFigures { ready: 3, hit: 1, ..PoolFigures::default() });
    // The refill waits while the start has its time.
    pass(Duration::from_millis(9)).await;
    assert_eq!(pool.figures().ready, 3);
    pass(Duration::from_millis(2)).await;
    assert_eq!(pool.figures().ready, 4);
    let (outcome, _) = idle
        .invoke(Invocation::new("id", "{}", Duration::from_secs(1)))
        .await
        .expect("handed over");
    assert!(matches!(outcome.answer, Answer::Success(_)));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_served_and_the_pool_begins_at_half() {
    let fake = backend();
    let pool = Pool::created(Arc::new(fake.clone()), spec(), settings(4));
    pass(Duration::from_secs(1)).await;
    let mut taken = Vec::new();
    for _ in 0..6 {
        taken.push(pool.take().await.expect("made"));
    }
    let PoolFigures { hit, missed, .. } = pool.figures();
    assert_eq!((hit, missed), (4, 2));
    // Only as much time passes as the task needs.
    pass(Duration::from_millis(1)).await;
    assert_eq!((pool.figures().ready, fake.live()), (4, 10));
    drop(pool);
    pass(Duration::from_millis(1)).await;
    assert_eq!(fake.live(), 6, "those taken are their owner's");
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_made_is_told_to_who_takes_it_and_tried_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let look = Arc::clone(&broken);
    let fake = backend().with_init("f", move || {
        if look.load(Ordering::SeqCst) {
            Err(InitFailure::Exited(Exit::Status(1)))
        } else {
            Ok(Duration::ZERO)
        }
    });
    let pool = Pool::initialised(Arc::new(fake.clone()), spec(), settings(2));
    pass(Duration::from_millis(2_500)).await;
    assert_eq!(pool.figures(), PoolFigures { failed: 3, ..PoolFigures::default() });
    let error = pool.take().await.expect_err("broken");
    assert!(matches!(error, InitFailure::Exited(Exit::Status(1))), "{error:?}");
    broken.store(false, Ordering::SeqCst);
    pass(Duration::from_secs(1)).await;
    assert_eq!((pool.figures().ready, fake.live()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_none_makes_each_when_it_is_asked_for() {
    let fake = backend();
    let pool = Pool::created(Arc::new(fake.clone()), spec(), settings(0));
    let first = pool.take().await.expect("made");
    pass(Duration::from_secs(1)).await;
    assert_eq!((pool.figures().missed, fake.live()), (1, 1));
    drop(first);
}

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use super::*;
    use lambda_sandbox::Backend as _;
    use lambda_sandbox::linux::LinuxBackend;

    #[tokio::test]
    async fn real_sandboxes_wait_and_end_with_their_pool() {
        let Some(backend) = common::backend("pools") else { return };
        let backend: Arc<LinuxBackend> = Arc::new(backend);
        let spec = common::shell("exit 5");
        let pool = Pool::created(Arc::clone(&backend) as _, spec, settings(3));
        while pool.figures().ready < 3 {
            pass(Duration::from_millis(1)).await;
        }
        let finished = pool.take().await.expect("ready").run().await.expect("run");
        assert_eq!((finished.exit, pool.figures().hit), (Exit::Status(5), 1));
        drop(pool);
        // They are released in the background.
        for _ in 0..1000 {
            if backend.groups().is_empty() {
                break;
            }
            pass(Duration::from_millis(10)).await;
        }
        assert_eq!(backend.groups(), Vec::<std::path::PathBuf>::new());
        backend.sweep().await.expect("swept");
    }
}
