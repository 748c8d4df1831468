//! A day of a host in virtual time: functions that answer, fail, crash, hang and take too long,
//! with deployments, events and removals. Nothing that the host holds grows with the hours.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{named, zip};
use lambda_host::{Host, Request};
use lambda_sandbox::Exit;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use test_support::Random;

/// What a host holds at the end of an hour, when nothing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    sandboxes: usize,
    events: usize,
    descriptors: usize,
    resident_kib: u64,
}

fn held(host: &Host, backend: &FakeBackend) -> Held {
    Held {
        sandboxes: backend.live(),
        events: host.events_waiting(),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        resident_kib: resident_kib(),
    }
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap()
}

fn backend() -> FakeBackend {
    let answer = |number: u64| match number % 20 {
        0 => FakeAnswer::error("Error", r#"{"errorType":"Error"}"#),
        1 => FakeAnswer::crash(Exit::Signal(11)),
        2 => FakeAnswer::hang(),
        3 => FakeAnswer::success("1").after(Duration::from_secs(2)),
        _ => FakeAnswer::success("1").after(Duration::from_millis(number % 50)),
    };
    let mut backend = FakeBackend::new();
    for function in 0..FUNCTIONS {
        let number = std::sync::atomic::AtomicU64::new(function);
        backend = backend.with_handler(format!("f{function}"), move |_: &_| {
            answer(number.fetch_add(7, std::sync::atomic::Ordering::Relaxed))
        });
    }
    backend
}

#[tokio::test(start_paused = true)]
async fn what_a_host_holds_does_not_grow_over_a_day() {
    // The shortened form has fewer invocations, and the same hours.
    let invocations = if test_support::long() { 2000 } else { 100 };
    let backend = Arc::new(backend());
    let host = Host::builder(Arc::clone(&backend) as Arc<dyn lambda_sandbox::Backend>)
        .with_idle_timeout(Duration::from_secs(300))
        .with_event_retry_after(Duration::ZERO)
        // Few, so that their table is full after the first hours.
        .with_invocations_kept(50)
        .start()
        .await
        .unwrap();
    for function in 0..FUNCTIONS {
        host.deploy(named(&format!("f{function}")), zip("0")).await.unwrap();
    }
    let (mut random, mut hours) = (Random::new(1), Vec::new());
    let (mut good, mut failed) = (0_u64, 0_u64);
    for hour in 0..24 {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..invocations {
            tokio::time::sleep(Duration::from_millis(random.below(3_000_000 / invocations))).await;
            let name = format!("f{}", random.below(FUNCTIONS));
            match random.below(50) {
                0 => {
                    let code = zip(&format!("{hour} {number}"));
                    host.update_code(&*name, None, code).await.unwrap();
                }
                1 => {
                    host.remove(&*name).await.unwrap();
                    host.deploy(named(&name), zip("0")).await.unwrap();
                }
                2 => drop(host.invoke_event(&*name, Request::new("{}")).await.unwrap()),
                // Its caller goes away in the middle.
                3 => {
                    let call = host.invoke(&*name, Request::new("{}"));
                    drop(tokio::time::timeout(Duration::from_millis(1), call).await);
                }
                _ => {
                    let host = host.clone();
                    running.spawn(async move { host.invoke(&*name, Request::new("{}")).await });
                }
            }
        }
        while let Some(answer) = running.join_next().await {
            match answer.unwrap() {
                Ok(answer) if !answer.function_error => good += 1,
                _ => failed += 1,
            }
        }
        // Events are tried for some minutes, and sandboxes are idle for five.
        tokio::time::sleep(Duration::from_secs(1200)).await;
        hours.push(held(&host, &backend));
    }
    println!(
        "{good} invocations answered, {failed} failed; first {:?}, last {:?}",
        hours[0], hours[23]
    );
    assert!(good > 15 * invocations && failed > invocations, "{good} {failed}");
    for (hour, held) in hours.iter().enumerate() {
        assert_eq!((held.sandboxes, held.events), (0, 0), "hour {hour}: {hours:?}");
    }
    // Bounded tables (remembered invocations, series of metrics) fill up in the first hours.
    let (base, last) = (hours[3], hours[23]);
    assert!(last.descriptors <= base.descriptors + 4, "{hours:?}");
    assert!(last.resident_kib <= base.resident_kib + GROWTH_KIB, "{hours:?}");
    host.shutdown().await;
}

const FUNCTIONS: u64 = 20;
/// Memory that an allocator may take more of in the course of a day.
const GROWTH_KIB: u64 = 8 << 10;
