//! What happens to running invocations when the host stops, and what is left behind when it is
//! killed.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Served, file, python, ready};

fn app(served: &Served, name: &str) {
    let app = file("functions/app.py");
    served.create(name, &python(), "app.handler", &[("app.py", &app)], &["--timeout", "30"]);
}

/// Returns the descendants of a process as paths in `/proc`, and the folders of their control
/// groups.
fn taken(pid: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            found.insert(format!("/proc/{child}"));
            found.extend(taken(child.parse().unwrap()));
            let groups = fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap_or_default();
            for group in groups.lines() {
                let mut fields = group.splitn(3, ':').skip(1);
                let (name, path) = (fields.next().unwrap(), fields.next().unwrap());
                let hierarchy = if name.is_empty() { "unified" } else { name };
                let path = format!("/sys/fs/cgroup/{hierarchy}{path}");
                found.extend(path.contains("lambda-sandbox").then_some(path));
            }
        }
    }
    found
}

/// Waits until none of these paths exists, for 5 s at most.
fn gone(taken: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(left) = taken.iter().find(|path| fs::exists(path).unwrap()) {
        assert!(Instant::now() < deadline, "left behind: {left}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_running_invocation_is_finished_and_nothing_is_left() {
    if !ready("aws: stop") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "slow");
    let pid = served.pid();
    let held = std::thread::scope(|scope| {
        let invoked = scope.spawn(|| served.invoke("slow", r#"{"do":"wait","seconds":5}"#, &[]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while taken(pid).is_empty() {
            assert!(Instant::now() < deadline, "no sandbox was made");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The sandbox exists, so the host has the command. Wait until the invocation runs.
        std::thread::sleep(Duration::from_secs(1));
        let held = taken(pid);
        let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
        assert!(asked.success());
        let (said, answer) = invoked.join().unwrap();
        assert_eq!((&said["StatusCode"], &answer), (&json!(200), &json!("waited")));
        held
    });
    drop(served);
    assert!(held.iter().any(|path| path.starts_with("/sys/fs/cgroup")), "{held:?}");
    gone(&held);
}

#[test]
fn what_a_killed_host_left_is_swept_by_the_next() {
    if !ready("aws: kill -9") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "f");
    served.invoke("f", r#"{"do":"echo"}"#, &[]);
    let pid = served.pid();
    let held = taken(pid);
    assert!(held.iter().any(|path| path.starts_with("/sys/fs/cgroup")), "{held:?}");
    let next = Served::start_in(served.kill(), &[]);
    gone(&held);
    let (_, answer) = next.invoke("f", r#"{"do":"echo","text":"again"}"#, &[]);
    assert_eq!(answer["text"], "again");
}
