//! A day of a served host in 24 short hours: functions of archives and of an image that answer,
//! fail, crash, use up their memory, take too long and leave files and processes; deployments,
//! events, streams whose readers go away, and kills of the host. What the host holds at the end of
//! an hour does not grow.
//!
//! Runs with `--long` alone. An hour takes 60 s, or `DAY_HOUR_SECONDS`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::Random;

use crate::layout::Layout;
use crate::support::{Served, python, ready};

/// Does what its event says.
const PYTHON: &[u8] = br#"
import os, subprocess, time

def handler(event, context):
    do = event.get("do")
    if do == "raise": raise ValueError("asked")
    if do == "exit": os._exit(3)
    if do == "segv": os.kill(os.getpid(), 11)
    if do == "sleep": time.sleep(30)
    if do == "memory": return len(bytearray(1 << 30))
    if do == "files":
        for number in range(200):
            with open(f"/tmp/{os.urandom(4).hex()}", "wb") as file: file.write(b"x" * 10000)
    if do == "processes":
        for _ in range(5): subprocess.Popen(["sleep", "1000"])
    if do == "output": print("x" * 100000)
    return {"done": do}
"#;

/// A bootstrap that fails at once.
const BROKEN: &[u8] = b"#!/bin/sh\nexit 9\n";

/// What a host holds when nothing runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
    children: usize,
    groups: usize,
    mounts: usize,
    /// Files of functions' code and layers, and of the host's own.
    stored: usize,
}

fn held(served: &Served) -> Held {
    let process = Path::new("/proc").join(served.pid().to_string());
    let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let tasks = std::fs::read_dir(process.join("task")).unwrap().map(|it| it.unwrap().path());
    let children = tasks.map(|it| std::fs::read_to_string(it.join("children")).unwrap_or_default());
    Held {
        descriptors: count(&process.join("fd")),
        threads: count(&process.join("task")),
        resident_kib: line.split_whitespace().next().unwrap().parse().unwrap(),
        children: children.map(|it| it.split_whitespace().count()).sum(),
        groups: groups(Path::new("/sys/fs/cgroup"), &mark(&process), 0),
        mounts: std::fs::read_to_string(process.join("mountinfo")).unwrap().lines().count(),
        stored: count(&served.folder.path().join("data/code")),
    }
}

/// Returns what the paths of a host's control groups contain: its number, whose lock it holds.
fn mark(process: &Path) -> String {
    let files = std::fs::read_dir(process.join("fd")).unwrap();
    let links = files.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok());
    let number = links.filter_map(|link| {
        let name = link.strip_prefix("/run/lambda-sandbox").ok()?.to_str()?.to_owned();
        Some(name.strip_suffix(".lock")?.to_owned())
    });
    format!("/lambda-sandbox-{}/", number.last().expect("the host holds a lock"))
}

/// Counts the control groups of a host's sandboxes.
fn groups(folder: &Path, mark: &str, depth: usize) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let folders = entries.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    folders
        .map(|it| {
            let own = usize::from(it.path().to_string_lossy().contains(mark));
            own + if depth < 6 { groups(&it.path(), mark, depth + 1) } else { 0 }
        })
        .sum()
}

/// Sends a request and reads the answer's status; `read` bytes of it at the most.
fn send(served: &Served, method: &str, path: &str, headers: &str, body: &str, read: usize) -> u16 {
    let address = served.endpoint.trim_start_matches("http://");
    let Ok(mut stream) = TcpStream::connect(address) else { return 0 };
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    if stream.write_all(request.as_bytes()).is_err() {
        return 0;
    }
    let mut answer = Vec::new();
    drop(stream.take(read as u64).read_to_end(&mut answer));
    let head = String::from_utf8_lossy(&answer[..answer.len().min(100)]).into_owned();
    head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn invoke(served: &Served, name: &str, event: &Value, headers: &str, read: usize) -> u16 {
    let path = format!("/2015-03-31/functions/{name}/invocations");
    send(served, "POST", &path, headers, &event.to_string(), read)
}

fn deploy(served: &Served) {
    let python = python();
    for name in ["a", "b", "c"] {
        let more = ["--timeout", "1", "--memory-size", "128"];
        served.create(name, &python, "app.handler", &[("app.py", PYTHON)], &more);
    }
    served.create("broken", "provided.al2023", "x", &[("bootstrap", BROKEN)], &[]);
    let arguments = [
        "create-function",
        "--function-name",
        "image",
        "--package-type",
        "Image",
        "--role",
        "arn:aws:iam::123456789012:role/test",
        "--code",
        "ImageUri=local/app",
    ];
    let made = served.aws(&arguments);
    assert!(made.success, "{made:?}");
}

#[test]
fn what_a_served_host_holds_does_not_grow_over_a_day() {
    if !test_support::long() || !ready("a day of a served host") {
        return;
    }
    let Some(base) = crate::images::base() else { return };
    let seconds = std::env::var("DAY_HOUR_SECONDS").ok().and_then(|it| it.parse().ok());
    let hour_length = Duration::from_secs(seconds.unwrap_or(60));
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("registry/app");
    Layout::new(&layout).image("latest", &[base], &crate::images::config());
    let registry = format!("local={}", folder.path().join("registry").display());
    let arguments = [
        "--image-registry",
        registry.as_str(),
        "--change-time",
        "0",
        "--idle-timeout",
        "1",
        "--event-retry-after",
        "1",
        "--metrics",
    ];
    let mut served = Served::start_in(folder, &arguments);
    deploy(&served);
    let (mut random, mut hours) = (Random::new(1), Vec::new());
    let (mut good, mut other) = (0_u64, 0_u64);
    for hour in 1..=24 {
        let end = Instant::now() + hour_length;
        while Instant::now() < end {
            let seeds: Vec<u64> = (0..4).map(|_| random.below(u64::MAX >> 33)).collect();
            let statuses = std::thread::scope(|scope| {
                let callers: Vec<_> = seeds
                    .iter()
                    .map(|&seed| {
                        scope.spawn({
                            let served = &served;
                            move || call(served, &mut Random::new(seed))
                        })
                    })
                    .collect();
                callers.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
            });
            for status in statuses {
                if (200..300).contains(&status) { good += 1 } else { other += 1 }
            }
        }
        // The host is killed four times, in the middle of what it does.
        if hour % 6 == 5 {
            let event = json!({ "do": "sleep" });
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    invoke(&served, "a", &event, "x-amz-invocation-type: Event\r\n", 4096)
                });
            });
            served = Served::start_in(served.kill(), &arguments);
            assert_eq!(invoke(&served, "a", &json!({}), "", 4096), 200, "hour {hour}");
        }
        hours.push(settled(&served));
    }
    println!("{good} answered, {other} otherwise; {:?}, {:?}", hours[0], hours[23]);
    assert!(good > 24 * 10, "{good} answered, {other} otherwise");
    // Of hours in the same life of the host, each compared with the first of that life.
    for life in hours.chunks(6) {
        let (first, last) = (&life[0], &life[life.len() - 2]);
        assert!(last.descriptors <= first.descriptors + 10, "{hours:#?}");
        assert!(last.threads <= first.threads + 10, "{hours:#?}");
        assert!(last.groups <= first.groups + 32, "{hours:#?}");
        assert_eq!((last.children, last.mounts), (first.children, first.mounts), "{hours:#?}");
        assert!(last.resident_kib <= first.resident_kib + GROWTH_KIB, "{hours:#?}");
    }
    assert!(hours.iter().all(|it| it.stored <= hours[0].stored + 2), "{hours:#?}");
}

/// Waits until the idle sandboxes are gone, and counts.
fn settled(served: &Served) -> Held {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = held(served);
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = held(served);
        let same = (now.children, now.descriptors, now.groups, now.threads)
            == (last.children, last.descriptors, last.groups, last.threads);
        if same || Instant::now() > deadline {
            return now;
        }
        last = now;
    }
}

/// One caller's request.
fn call(served: &Served, random: &mut Random) -> u16 {
    let name = ["a", "b", "c"][usize::try_from(random.below(3)).unwrap()];
    let whole = 1 << 20;
    match random.below(40) {
        0 => invoke(served, "broken", &json!({}), "", whole),
        1..=4 => invoke(served, "image", &json!({}), "", whole),
        5 => invoke(served, name, &json!({}), "x-amz-invocation-type: Event\r\n", whole),
        6 => invoke(
            served,
            name,
            &json!({ "do": "raise" }),
            "x-amz-invocation-type: Event\r\n",
            whole,
        ),
        // Goes away before the answer.
        7 => invoke(served, name, &json!({ "do": "sleep" }), "", 0),
        8 => {
            let (path, body) = (
                format!("/2015-03-31/functions/{name}/configuration"),
                json!({ "MemorySize": 128 + random.below(3) }).to_string(),
            );
            send(served, "PUT", &path, "content-type: application/json\r\n", &body, whole)
        }
        9..=17 => {
            let faults = [
                "raise",
                "exit",
                "segv",
                "memory",
                "files",
                "processes",
                "output",
                "sleep",
                "none",
            ];
            let fault = faults[usize::try_from(random.below(9)).unwrap()];
            invoke(served, name, &json!({ "do": fault }), "", whole)
        }
        _ => invoke(served, name, &json!({}), "", whole),
    }
}

/// Memory that an allocator may take more of in the course of a life.
const GROWTH_KIB: u64 = 24 << 10;
