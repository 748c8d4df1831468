//! The promises of a host to its callers, tested on the fake backend in virtual time.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_host::{Answer, Error, FunctionConfig, Host};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use lambda_sandbox::{Exit, InitFailure, Invocation};
use tokio::task::JoinSet;

use crate::common::{SECOND, config, echo, zip};

async fn start(backend: &FakeBackend) -> Host {
    let host = Host::builder(Arc::new(backend.clone())).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host
}

async fn invoke(host: &Host, payload: &'static str) -> Result<Answer, Error> {
    host.invoke("f", payload).await
}

/// Invokes `f` `count` times at once.
async fn burst(host: &Host, count: usize) -> Vec<Result<Answer, Error>> {
    let mut set = JoinSet::new();
    for _ in 0..count {
        let host = host.clone();
        set.spawn(async move { invoke(&host, "1").await });
    }
    set.join_all().await
}

#[tokio::test(start_paused = true)]
async fn one_after_another_uses_one_sandbox() {
    let backend = echo();
    let host = start(&backend).await;
    let first = invoke(&host, "1").await.unwrap();
    assert!(first.report.is_cold());
    for _ in 0..10 {
        let next = invoke(&host, r#"{"a":2}"#).await.unwrap();
        assert_eq!((next.payload.as_ref(), next.report.is_cold()), (&br#"{"a":2}"#[..], false));
        assert_ne!(next.request_id, first.request_id);
    }
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_makes_a_sandbox_for_each_and_the_surplus_falls_idle() {
    let backend = echo();
    let host = start(&backend).await;
    let answers = burst(&host, 50).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(backend.live(), 50);
    // One caller keeps one sandbox busy. The others reach the idle timeout and end.
    for _ in 0..700 {
        invoke(&host, "1").await.unwrap();
    }
    assert_eq!(backend.live(), 1);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_init_that_fails_answers_each_invocation_once() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let backend = echo().with_init("f", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(InitFailure::Exited(Exit::Status(1)))
    });
    let host = start(&backend).await;
    for answer in burst(&host, 5).await {
        let answer = answer.unwrap();
        let payload = String::from_utf8(answer.payload.to_vec()).unwrap();
        assert!(answer.function_error && payload.contains("exit status 1"), "{payload}");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 5, "no start is tried again for ever");
    assert_eq!(backend.live(), 0);
}

/// Lambda gives an init 10 s. An init that takes longer is repeated in the first invocation, within
/// the function's timeout.
#[tokio::test(start_paused = true)]
async fn an_init_that_takes_too_long_is_made_again_in_the_first_invocation() {
    let backend = echo().with_init("f", || Ok(12 * SECOND));
    let host = Host::builder(Arc::new(backend.clone())).start().await.unwrap();
    host.deploy(config().with_timeout(14 * SECOND), zip("1")).await.unwrap();
    let answer = invoke(&host, "1").await.unwrap();
    let log = String::from_utf8(answer.log_tail.to_vec()).unwrap();
    assert!(!answer.function_error, "{answer:?}");
    assert_eq!((answer.report.duration, answer.report.init_duration), (13 * SECOND, None));
    let line =
        "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout\nSTART RequestId: ";
    assert!(log.contains(line), "{log}");
    assert_eq!(invoke(&host, "1").await.unwrap().report.duration, SECOND, "the sandbox lives on");
    assert_eq!(backend.live(), 1);

    for (timeout, kind) in [(5, "init"), (12, "handler")] {
        let changed =
            host.update_config("f", None, move |config| Ok(config.with_timeout(timeout * SECOND)));
        changed.await.unwrap();
        let answer = invoke(&host, "1").await.unwrap();
        let payload = String::from_utf8(answer.payload.to_vec()).unwrap();
        let told = format!("Task timed out after {timeout}.00 seconds");
        assert!(answer.function_error && payload.contains(&told), "{kind}: {payload}");
        assert_eq!(answer.report.duration, timeout * SECOND, "{kind}");
    }
    host.shutdown().await;
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_out_of_time_is_answered_and_its_sandbox_replaced() {
    let backend = FakeBackend::new().with_handler("f", |invocation: &Invocation| {
        if invocation.payload == "0" { FakeAnswer::hang() } else { FakeAnswer::success("1") }
    });
    let host = start(&backend).await;
    let answer = invoke(&host, "0").await.unwrap();
    let payload = String::from_utf8(answer.payload.to_vec()).unwrap();
    assert!(payload.contains("Task timed out after 3.00 seconds"), "{payload}");
    assert_eq!(answer.report.duration, 3 * SECOND);
    let next = invoke(&host, "1").await.unwrap();
    assert!(next.report.is_cold() && !next.function_error);
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn limits_throttle_and_free_again() {
    let backend = echo();
    let host = Host::builder(Arc::new(backend)).with_account_concurrency(3).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let answers = burst(&host, 5).await;
    let throttled = |it: &&Result<Answer, Error>| matches!(it, Err(Error::Throttled { .. }));
    assert_eq!(answers.iter().filter(throttled).count(), 2);
    host.reserve_concurrency("f", Some(0)).await.unwrap();
    assert!(matches!(invoke(&host, "1").await, Err(Error::Throttled { .. })));
    host.reserve_concurrency("f", None).await.unwrap();
    assert!(invoke(&host, "1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn memory_is_not_promised_twice() {
    let backend = echo();
    let host = Host::builder(Arc::new(backend.clone())).with_memory_mb(300).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let answers = burst(&host, 6).await;
    assert!(answers.iter().all(Result::is_ok), "they wait for the two that there is room for");
    assert_eq!(backend.live(), 2);
    let other = FunctionConfig::new("g", "provided", "x").unwrap().with_memory_mb(400);
    host.deploy(other, zip("1")).await.unwrap();
    let name = "g";
    let refused = host.invoke(name, "1").await;
    assert!(matches!(refused, Err(Error::NoCapacity { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_loses_nothing_for_others() {
    let backend = echo();
    let host = start(&backend).await;
    let left = tokio::time::timeout(SECOND / 2, invoke(&host, "1")).await;
    assert!(left.is_err());
    // The invocation runs on without its caller, and its sandbox is used again.
    tokio::time::sleep(SECOND).await;
    assert!(!invoke(&host, "1").await.unwrap().report.is_cold());
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_code_or_settings_mean_a_new_sandbox() {
    let backend = echo();
    let host = start(&backend).await;
    invoke(&host, "1").await.unwrap();
    let before = host.function("f").unwrap().deployment;
    host.update_code("f", None, zip("2")).await.unwrap();
    assert!(invoke(&host, "1").await.unwrap().report.is_cold());
    host.update_config("f", None, |config| Ok(config.with_memory_mb(256))).await.unwrap();
    assert!(invoke(&host, "1").await.unwrap().report.is_cold());
    assert!(host.function("f").unwrap().deployment > before);
    assert_eq!(backend.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn removing_a_function_lets_it_finish() {
    let backend = echo();
    let host = start(&backend).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { invoke(&host, "1").await }
    });
    tokio::time::sleep(SECOND / 2).await;
    host.remove("f").await.unwrap();
    assert!(matches!(invoke(&host, "1").await, Err(Error::FunctionNotFound { .. })));
    assert!(!running.await.unwrap().unwrap().function_error);
    tokio::time::sleep(SECOND).await;
    assert_eq!(backend.live(), 0);
    host.deploy(config(), zip("1")).await.unwrap();
    assert!(invoke(&host, "1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_what_runs_and_kill_does_not() {
    for kill in [false, true] {
        let backend = echo();
        let host = start(&backend).await;
        let running = tokio::spawn({
            let host = host.clone();
            async move { invoke(&host, "1").await }
        });
        tokio::time::sleep(SECOND / 2).await;
        if kill {
            host.kill().await;
        } else {
            host.shutdown().await;
        }
        assert_eq!(running.await.unwrap().unwrap().function_error, kill);
        assert_eq!(backend.live(), 0);
        assert!(matches!(invoke(&host, "1").await, Err(Error::Stopping)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_refused() {
    let host = start(&echo()).await;
    assert!(matches!(invoke(&host, "{").await, Err(Error::InvalidPayload { .. })));
    assert!(matches!(invoke(&host, "").await, Err(Error::InvalidPayload { .. })));
    let large = vec![b'1'; 6 * 1024 * 1024 + 1];
    let refused = host.invoke("f", large).await;
    assert!(matches!(refused, Err(Error::PayloadTooLarge { .. })));
    let deep = "[".repeat(3_000_000) + &"]".repeat(3_000_000);
    assert!(host.invoke("f", deep).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_second_function_of_a_name_is_refused() {
    let host = start(&echo()).await;
    let again = host.deploy(config(), zip("1")).await;
    assert!(matches!(again, Err(Error::FunctionExists { .. })));
    let unknown = FunctionConfig::new("g", "cobol85", "x").unwrap();
    assert!(matches!(host.deploy(unknown, zip("1")).await, Err(Error::RuntimeUnknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_ends_the_sandboxes() {
    let backend = echo();
    let host = start(&backend).await;
    invoke(&host, "1").await.unwrap();
    assert_eq!(backend.live(), 1);
    drop(host);
    tokio::time::sleep(SECOND).await;
    assert_eq!(backend.live(), 0);
}

/// A program that cannot be executed is the function's fault, and its start is not retried. Any
/// other error of the machine is the host's fault.
#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_be_executed_is_the_functions_fault() {
    for (path, errno, words) in [
        ("/var/task/bootstrap", 13, Some("fork/exec /var/task/bootstrap: permission denied")),
        (
            "/var/task/bootstrap",
            2,
            Some("fork/exec /var/task/bootstrap: no such file or directory"),
        ),
        ("/var/task/bootstrap", 8, Some("fork/exec /var/task/bootstrap: exec format error")),
        ("/var/task/bootstrap", 12, None),
        ("/sys/fs/cgroup/x", 13, None),
    ] {
        let backend = echo().with_init("f", move || {
            let source = std::io::Error::from_raw_os_error(errno);
            Err(InitFailure::Failed(lambda_sandbox::Error::failed(
                "starting the program",
                path,
                source,
            )))
        });
        let host = start(&backend).await;
        let answer = invoke(&host, "1").await;
        match (words, answer) {
            (Some(words), Ok(answer)) => {
                let payload = String::from_utf8(answer.payload.to_vec()).unwrap();
                assert!(answer.function_error && payload.contains(words), "{payload}");
                assert!(payload.contains("Runtime.InvalidEntrypoint"), "{payload}");
            }
            (None, Err(Error::SandboxUnavailable { .. })) => {}
            other => panic!("{path} {errno}: {other:?}"),
        }
    }
}
