//! Event invocations: they are kept on disk, run at least once and retried, and their results are
//! delivered to destinations.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{config, named, poll_and_drop, zip};
use lambda_host::{
    DeliverToFile, Error, EventInvokeChange, Host, HostBuilder, Request, ThrottleLimit,
};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use serde_json::Value;

/// Returns a backend with a function `f` that fails its first `failures` invocations, and the count
/// of its invocations.
fn counting(failures: u32) -> (FakeBackend, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    let backend = FakeBackend::new().with_handler("f", move |invocation: &Invocation| {
        if seen.fetch_add(1, Ordering::SeqCst) < failures {
            return FakeAnswer::error("Oops", r#"{"errorType":"Oops","errorMessage":"no"}"#);
        }
        FakeAnswer::success(invocation.payload.clone())
    });
    (backend, count)
}

fn host(backend: &FakeBackend, folder: &Path) -> HostBuilder {
    Host::builder(Arc::new(backend.clone()))
        .with_data_folder(folder)
        .with_event_retry_after(Duration::from_millis(20))
        .with_deliveries(DeliverToFile::new(folder.join("delivered")))
}

/// Waits until `count` messages have been delivered. Returns all messages.
async fn delivered(folder: &Path, count: usize) -> Vec<Value> {
    for _ in 0..1000 {
        let text = std::fs::read_to_string(folder.join("delivered")).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{count} messages were not delivered");
}

async fn reached(count: &AtomicU32, expected: u32) {
    for _ in 0..1000 {
        if count.load(Ordering::SeqCst) >= expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count.load(Ordering::SeqCst), expected);
}

fn destinations(success: &str, failure: &str) -> EventInvokeChange {
    let mut change = EventInvokeChange::default();
    change.destinations = Some((Some(success.to_owned()), Some(failure.to_owned())));
    change
}

const QUEUE: &str = "arn:aws:sqs:us-east-1:123456789012:q";

#[tokio::test]
async fn an_event_is_tried_three_times_and_then_told() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(u32::MAX));
    let host = host(&backend, folder.path()).start().await.unwrap();
    let mut config = config();
    config.dead_letter_target = Some(QUEUE.to_owned());
    host.deploy(config, zip("1")).await.unwrap();
    host.set_event_invoke("f", destinations(QUEUE, QUEUE), false).await.unwrap();
    let id = host.invoke_event("f", r#"{"n":1}"#).await.unwrap();
    let told = delivered(folder.path(), 2).await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let record: Value = serde_json::from_str(told[0]["body"].as_str().unwrap()).unwrap();
    let context = &record["requestContext"];
    assert_eq!(context["requestId"], id.as_str());
    assert_eq!(context["condition"], "RetriesExhausted");
    assert_eq!(context["approximateInvokeCount"], 3);
    assert_eq!(context["functionArn"], "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST");
    assert_eq!(record["requestPayload"]["n"], 1);
    assert_eq!(record["responseContext"]["functionError"], "Unhandled");
    assert_eq!(record["responsePayload"]["errorType"], "Oops");
    assert_eq!(told[1]["body"], r#"{"n":1}"#);
    let attributes = told[1]["attributes"].to_string();
    assert!(attributes.contains(&id) && attributes.contains(r#"["ErrorMessage","no"]"#));
    host.shutdown().await;
}

#[tokio::test]
async fn an_event_that_succeeds_in_the_end_is_told_once() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(1));
    let host = host(&backend, folder.path()).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.set_event_invoke("f", destinations(QUEUE, QUEUE), false).await.unwrap();
    host.invoke_event("f", "1").await.unwrap();
    let told = delivered(folder.path(), 1).await;
    let record: Value = serde_json::from_str(told[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    host.shutdown().await;
}

#[tokio::test]
async fn a_destination_may_be_a_function() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(0));
    let seen = Arc::clone(&count);
    let backend = backend.with_handler("g", move |invocation: &Invocation| {
        let record: Value = serde_json::from_slice(&invocation.payload).unwrap();
        assert_eq!(record["responsePayload"], 1);
        seen.fetch_add(10, Ordering::SeqCst);
        FakeAnswer::success("null")
    });
    let host = host(&backend, folder.path()).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.deploy(named("g"), zip("1")).await.unwrap();
    let g = "arn:aws:lambda:us-east-1:123456789012:function:g";
    host.set_event_invoke("f", destinations(g, ""), false).await.unwrap();
    host.invoke_event("f", "1").await.unwrap();
    reached(&count, 11).await;
    host.shutdown().await;
}

/// Events that wait for a retry when the host stops are run by the next host.
#[tokio::test]
async fn events_survive_a_restart() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(5));
    {
        let builder = host(&backend, folder.path());
        // The delay is longer than this host lives, so that it retries nothing.
        let host = builder.with_event_retry_after(Duration::from_secs(1)).start().await.unwrap();
        host.deploy(config(), zip("1")).await.unwrap();
        for n in 0..5 {
            host.invoke_event("f", n.to_string()).await.unwrap();
        }
        reached(&count, 5).await;
        host.shutdown().await;
    }
    let host = host(&backend, folder.path()).start().await.unwrap();
    reached(&count, 10).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((count.load(Ordering::SeqCst), host.events_waiting()), (10, 0));
    host.shutdown().await;
}

#[tokio::test]
async fn with_nothing_reserved_an_event_is_given_up_at_once() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(0));
    let host = host(&backend, folder.path()).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.reserve_concurrency("f", Some(0)).await.unwrap();
    host.set_event_invoke("f", destinations("", QUEUE), false).await.unwrap();
    host.invoke_event("f", "1").await.unwrap();
    let told = delivered(folder.path(), 1).await;
    let record: Value = serde_json::from_str(told[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(record["requestContext"]["condition"], "ZeroReservedConcurrency");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 0);
    assert!(record.get("responseContext").is_none());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    host.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_too_old_for_another_try_is_given_up() {
    let (folder, (backend, count)) = (tempfile::tempdir().unwrap(), counting(u32::MAX));
    let builder = host(&backend, folder.path());
    // The next retry would come after 61 s, and the event may be 60 s old at most.
    let host = builder.with_event_retry_after(Duration::from_secs(61)).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let mut change = destinations("", QUEUE);
    change.age_max_seconds = Some(60);
    host.set_event_invoke("f", change, false).await.unwrap();
    host.invoke_event("f", "1").await.unwrap();
    let told = delivered(folder.path(), 1).await;
    let record: Value = serde_json::from_str(told[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 1);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    host.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_an_event_is_refused() {
    let (folder, (backend, _)) = (tempfile::tempdir().unwrap(), counting(0));
    let host = host(&backend, folder.path()).with_event_bytes_max(10).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let refused = host.invoke_event("f", "no json").await;
    assert!(matches!(refused, Err(Error::InvalidPayload { .. })));
    let refused = host.invoke_event("f", format!("\"{}\"", "x".repeat(1 << 20))).await;
    assert!(matches!(refused, Err(Error::PayloadTooLarge { .. })));
    let refused = host.invoke_event("f", Request::new("12345678901")).await;
    assert!(matches!(refused, Err(Error::Throttled { limit: ThrottleLimit::EventQueue })));
    assert!(matches!(host.invoke_event("g", "1").await, Err(Error::FunctionNotFound { .. })));
    host.shutdown().await;
}

/// A caller that goes away at any moment leaves an event that runs, or none, and no bytes that stay
/// counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_caller_goes_away_runs_or_was_not_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (backend, count) = counting(0);
    let builder = host(&backend, folder.path()).with_event_bytes_max(16);
    let host = builder.start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    for polls in 0..6 {
        poll_and_drop(host.invoke_event("f", r#""12345678""#), polls).await;
        for _ in 0..1000 {
            if host.events_waiting() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = count.load(Ordering::SeqCst);
        // The queue has room for one such event at a time.
        for attempt in 0.. {
            match host.invoke_event("f", r#""12345678""#).await {
                Ok(_) => break,
                Err(Error::Throttled { .. }) if attempt < 1000 => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("after {polls} polls: {error}"),
            }
        }
        for _ in 0..1000 {
            if count.load(Ordering::SeqCst) > before && host.events_waiting() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(count.load(Ordering::SeqCst) > before, "after {polls} polls");
    }
    host.shutdown().await;
}

/// A function calls itself by an SDK, which passes the trace header on: the loop is ended, unless
/// the function allows it.
#[tokio::test]
async fn a_loop_of_functions_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (backend, _) = counting(0);
    let host = host(&backend, folder.path()).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.deploy(named("other"), zip("1")).await.unwrap();
    let arn = host.arns().function(&config().name);
    let hash: String = {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(arn.as_bytes()).iter().take(4).map(|it| format!("{it:02x}")).collect()
    };
    let call = async |times: u32| {
        let trace =
            format!("Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=00000000:99|{hash}:{times}");
        host.invoke("f", Request::new("1").with_trace_id(trace)).await
    };
    assert!(call(15).await.is_ok());
    assert!(matches!(call(16).await, Err(Error::Recursion { .. })));
    host.allow_recursion("f", true).await.unwrap();
    assert!(call(16).await.is_ok());
    host.shutdown().await;
}

/// The events of one function wait in a long line; those of a hundred others do not wait behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_delays_no_other_function() {
    const OTHERS: usize = 100;
    let backlog = if test_support::long() { 100_000 } else { 3_000 };
    let began: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let mut backend = FakeBackend::new();
    let names: Vec<String> = (0..OTHERS).map(|it| format!("other{it}")).collect();
    for name in names.iter().cloned().chain(["long".to_owned()]) {
        let (began, own) = (Arc::clone(&began), name.clone());
        backend = backend.with_handler(&name, move |_: &Invocation| {
            began.lock().unwrap().push(own.clone());
            let takes = if own == "long" { 500 } else { 20 };
            FakeAnswer::success("1").after(Duration::from_millis(takes))
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let host = host(&backend, folder.path()).start().await.unwrap();
    for name in names.iter().chain([&"long".to_owned()]) {
        host.deploy(named(name), zip("1")).await.unwrap();
    }
    let one_each = async || {
        let from = std::time::Instant::now();
        for name in &names {
            host.invoke_event(name.as_str(), "1").await.unwrap();
        }
        for _ in 0..6000 {
            let count = began.lock().unwrap().iter().filter(|it| *it != "long").count();
            if count >= OTHERS {
                return from.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not all of the others ran");
    };
    // The median of several times: each is a few commits to the disk, which others use too.
    let median = async || {
        let mut took = Vec::new();
        for _ in 0..9 {
            began.lock().unwrap().clear();
            took.push(one_each().await);
        }
        took.sort();
        took[took.len() / 2]
    };
    // Cold, then alone, then behind the backlog.
    one_each().await;
    let alone = median().await;
    began.lock().unwrap().clear();
    let accepting = (0..64).map(|part| {
        let host = host.clone();
        tokio::spawn(async move {
            for _ in 0..backlog / 64 + usize::from(part < backlog % 64) {
                host.invoke_event("long", "1").await.unwrap();
            }
        })
    });
    for task in accepting.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let (waiting, before) = (host.events_waiting(), began.lock().unwrap().len());
    let first = one_each().await;
    let passed = {
        let began = began.lock().unwrap();
        let last = began.iter().rposition(|it| it != "long").unwrap();
        began[before.min(last)..=last].iter().filter(|it| *it == "long").count()
    };
    let behind = median().await;
    println!(
        "one event each of {OTHERS} functions: {alone:?} alone, {behind:?} beside {waiting} of another ({first:?} at \
         first, while {passed} of those began)"
    );
    assert!(waiting > backlog / 3, "only {waiting} of {backlog} wait");
    assert!(passed < waiting, "the others ran after the backlog");
    host.kill().await;
}
