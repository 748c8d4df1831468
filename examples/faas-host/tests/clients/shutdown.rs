//! What happens to running invocations, and what is left behind, when the host stops or is killed.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Served, file, python, ready};

fn app(served: &Served, name: &str) {
    let app = file("functions/app.py");
    served.create(
        name,
        &python(),
        "app.handler",
        &[("app.py", &app)],
        &["--timeout", "30"],
    );
}

/// The cgroups that the host with this pid made, and the processes in them.
fn taken(pid: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for group in fs::read_dir(hierarchy.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if group
                .file_name()
                .to_string_lossy()
                .contains(&format!("-{pid}-"))
            {
                found.insert(group.path().display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_running_invocation_is_finished_and_nothing_is_left() {
    if !ready("aws: stop") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "slow");
    let pid = served.pid();
    std::thread::scope(|scope| {
        let invoked = scope.spawn(|| served.invoke("slow", r#"{"do":"wait","seconds":5}"#, &[]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while taken(pid).is_empty() {
            assert!(Instant::now() < deadline, "no sandbox was made");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The sandbox is there: the command has been taken.
        std::thread::sleep(Duration::from_secs(1));
        let asked = Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .unwrap();
        assert!(asked.success());
        let (said, answer) = invoked.join().unwrap();
        assert_eq!(
            (&said["StatusCode"], &answer),
            (&json!(200), &json!("waited"))
        );
    });
    drop(served);
    assert_eq!(taken(pid), BTreeSet::new());
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
    assert!(!taken(pid).is_empty());
    let next = Served::start_in(served.kill(), &[]);
    assert_eq!(taken(pid), BTreeSet::new());
    let (_, answer) = next.invoke("f", r#"{"do":"echo","text":"again"}"#, &[]);
    assert_eq!(answer["text"], "again");
}
