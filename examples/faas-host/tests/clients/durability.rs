//! A host that is killed in the middle of its work: what it acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Served, python, ready};

/// Kills a host under load, again and again on the same folder. Every event that was answered with
/// 202 is run at least once, and every version that was published is there.
#[test]
fn what_was_acknowledged_survives_kills() {
    if !ready("kills under load") {
        return;
    }
    let kills = if test_support::long() { 200 } else { 10 };
    let deliveries = tempfile::tempdir().unwrap();
    let told = deliveries.path().join("told");
    let arguments =
        ["--event-retry-after", "1", "--change-time", "0", "--deliveries", told.to_str().unwrap()];
    let mut served = Served::start(&arguments);
    let code: &[u8] = b"def handler(event, context):\n    return event\n";
    served.create("f", &python(), "app.handler", &[("app.py", code)], &[]);
    let queue = "OnSuccess={Destination=arn:aws:sqs:us-east-1:123456789012:q}";
    let tell = ["put-function-event-invoke-config", "--function-name", "f", "--destination-config"];
    assert!(served.aws(&[&tell[..], &[queue]].concat()).success);
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let mut published = 0;
    for round in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
                let address = served.endpoint.trim_start_matches("http://").to_owned();
                std::thread::spawn(move || {
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = format!("{round}-{caller}-{number}");
                        if post(&address, "functions/f/invocations", &format!("\"{name}\""), true) {
                            accepted.lock().unwrap().insert(name);
                        }
                    }
                })
            })
            .collect();
        let address = served.endpoint.trim_start_matches("http://").to_owned();
        let end = Instant::now() + Duration::from_millis(300 + 37 * (round % 7));
        while Instant::now() < end {
            let description = format!("{{\"Description\":\"{round}-{published}\"}}");
            let configured = put(&address, "functions/f/configuration", &description);
            if configured && post(&address, "functions/f/versions", "{}", false) {
                published += 1;
            }
        }
        let kept = served.kill();
        stop.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        served = Served::start_in(kept, &arguments);
    }
    assert!(published > kills, "{published} versions");
    let list = ["list-versions-by-function", "--function-name", "f", "--query", "length(Versions)"];
    let count: u64 = served.aws(&list).stdout.trim().parse().unwrap();
    // Beside `$LATEST`; one may have been published whose answer did not come, at each kill.
    let expected = published + 1..=published + 1 + kills;
    assert!(expected.contains(&count), "{count} versions, {published} acknowledged");
    let accepted = accepted.lock().unwrap();
    assert!(accepted.len() > 100, "only {} events were accepted", accepted.len());
    all_ran(&told, &accepted);
    println!("{kills} kills: {} events, {published} versions", accepted.len());
}

/// Waits until the host told of every event that it ran it.
fn all_ran(told: &Path, accepted: &BTreeSet<String>) {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let ran = ran(told);
        let lost: Vec<_> = accepted.iter().filter(|name| !ran.contains(*name)).collect();
        if lost.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{} events did not run: {lost:?}", lost.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The events that the host told as run.
fn ran(told: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(told).unwrap_or_default();
    // A line may be cut off where the host was killed.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let records = lines.filter_map(|it| serde_json::from_str::<Value>(it["body"].as_str()?).ok());
    records.filter_map(|it| it["requestPayload"].as_str().map(str::to_owned)).collect()
}

fn post(address: &str, path: &str, body: &str, event: bool) -> bool {
    let kind = if event { "X-Amz-Invocation-Type: Event\r\n" } else { "" };
    let expected = if event { " 202" } else { " 201" };
    request(address, "POST", path, kind, body).is_some_and(|it| it.contains(expected))
}

fn put(address: &str, path: &str, body: &str) -> bool {
    request(address, "PUT", path, "", body).is_some_and(|it| it.contains(" 200"))
}

/// Returns the first line of an answer; `None` when the host was gone.
fn request(address: &str, method: &str, path: &str, more: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    let head = format!(
        "{method} /2015-03-31/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}Content-Length: \
         {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}
