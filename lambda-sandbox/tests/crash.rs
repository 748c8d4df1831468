//! After a host is killed no process of it is left, and the next host removes its control groups.
//!
//! The test program runs itself as the host that is killed.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lambda_sandbox::linux::{Extras, LinuxBackend, Volume};
use lambda_sandbox::{Backend, Exec};

/// The host that is killed: makes two sandboxes, freezes one of them, and waits.
#[tokio::test]
async fn host() {
    if std::env::var_os("CRASH_HOST").is_none() {
        return;
    }
    let backend = LinuxBackend::new().expect("a backend");
    let mut running = Vec::new();
    for _ in 0..2 {
        let volume = Volume::new(1 << 20, 10).expect("a volume");
        let extras = Extras::default().with_volume("/work", &volume);
        let spec = common::shell("sleep 600 & sleep 600").with_linux(extras);
        let created = backend.create(spec).await.expect("created");
        let handle = created.handle().expect("a handle");
        tokio::spawn(async move {
            handle.events().next().await;
            handle.exec(Exec::new(["/bin/sleep", "600"])).await
        });
        running.push(tokio::spawn(created.run()));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let groups = backend.groups();
    if let Some(v2) =
        groups.iter().map(|group| group.join("cgroup.freeze")).find(|file| file.exists())
    {
        std::fs::write(v2, "1").expect("frozen");
    }
    for group in groups {
        println!("group|{}", group.display());
    }
    println!("group|end");
    tokio::time::sleep(Duration::from_secs(60)).await;
}

fn processes(groups: &[PathBuf]) -> usize {
    (groups.iter())
        .map(|group| std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default())
        .map(|pids| pids.lines().count())
        .sum()
}

#[tokio::test]
async fn a_killed_host_leaves_nothing() {
    if std::env::var_os("CRASH_HOST").is_some() {
        return;
    }
    if common::backend("the end of a killed host").is_none() {
        return;
    }
    let me = std::env::current_exe().expect("a path");
    let mut host = Command::new(me)
        .args(["--exact", "host", "--nocapture"])
        .env("CRASH_HOST", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    let groups: Vec<PathBuf> = lines
        .map_while(Result::ok)
        .filter_map(|line| Some(line.split_once("group|")?.1.to_owned()))
        .take_while(|group| group != "end")
        .map(PathBuf::from)
        .collect();
    assert!(groups.len() >= 2, "{groups:?}");
    // Twice an init, a shell and its child. The exact number depends on the shell and the
    // hierarchies.
    assert!(processes(&groups) >= 4, "{}", processes(&groups));
    host.kill().expect("killed");
    host.wait().expect("reaped");
    let until = Instant::now() + Duration::from_secs(5);
    while processes(&groups) > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(processes(&groups), 0);
    assert!(groups.iter().all(|group| group.is_dir()));

    let next = LinuxBackend::new().expect("a backend");
    next.sweep().await.expect("swept");
    assert_eq!(groups.iter().filter(|group| group.exists()).count(), 0);
}
