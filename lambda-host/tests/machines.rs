//! A host whose sandboxes are in real virtual machines, of both generations. It needs a KVM that
//! runs kernels: `cargo xtask vm` provides one in QEMU, with a kernel (`VM_KERNEL`), the guest's
//! root (`VM_GUEST`) and the monitor (`LAMBDA_VMM`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "the bed reads what is measured")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambda_host::worker::protocol::Boundary;
use lambda_host::{Account, Host, HostBuilder, HostEvent, Publish};
use lambda_sandbox::Backend as _;
use lambda_sandbox::vm::{Settings, VmBackend, VmEvent};
use tokio::sync::broadcast::Receiver;

use crate::common::{config, named};

/// A runtime in busybox's shell. It answers with the kernel's version and with the turns of a loop
/// that never pauses.
const BOOTSTRAP: &str = r#"#!/bin/busybox sh
box=/bin/busybox
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
(turns=0; while :; do turns=$((turns + 1)); echo $turns > /tmp/turns; $box usleep 10000; done) &
while :; do
    $box wget -q -S -O /dev/null $api/next 2>/tmp/head || exit 9
    id=$($box sed -n 's/.*aws-request-id: //Ip' /tmp/head | $box tr -d '\r')
    $box wget -q -O /dev/null --post-data "[\"$($box uname -r)\", $($box cat /tmp/turns)]" \
        $api/$id/response
done
"#;

const STRANGER: &str = "210987654321";

/// Returns the archive of a function that is this program.
fn program() -> Bytes {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let executable = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    archive.start_file("bootstrap", executable).unwrap();
    archive.write_all(BOOTSTRAP.as_bytes()).unwrap();
    archive.finish().unwrap().into_inner().into()
}

async fn vms(test: &str) -> Option<Arc<VmBackend>> {
    let path = |variable: &str| {
        let path = std::env::var_os(variable).map(PathBuf::from);
        if path.is_none() {
            test_support::left_out(test, &format!("{variable} is not set: cargo xtask vm"));
        }
        path
    };
    let images = std::env::temp_dir().join("host-images");
    let settings =
        Settings::new(path("VM_KERNEL")?, path("VM_GUEST")?, path("LAMBDA_VMM")?, images);
    Some(Arc::new(VmBackend::start(settings).await.unwrap()))
}

fn builder(vms: &Arc<VmBackend>, boundary: Boundary) -> HostBuilder {
    let stranger = Account::new(STRANGER).unwrap();
    let builder = Host::builder_of_vms(Arc::clone(vms) as Arc<_>, boundary).with_memory_mb(4096);
    builder.with_account(stranger).with_idle_timeout(IDLE_TIME)
}

/// Invokes a function, prints the time, and returns the turns of its loop.
async fn invoke(what: &str, host: &Host, function: &'static str) -> u64 {
    let began = Instant::now();
    let answer = host.invoke(function, "{}").await.unwrap();
    println!("measured: {what} = {:.2} ms", ms(began));
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(!answer.function_error, "{text}");
    // The guest's kernel, not that of this machine.
    let turns = text.strip_prefix("[\"6.12").and_then(|rest| rest.split_once("\", "));
    turns.unwrap_or_else(|| panic!("{text}")).1.trim_end_matches(']').parse().unwrap()
}

/// Takes the events up to now. Returns how many machines became ready, and the ends of others.
fn machines(events: &mut Receiver<HostEvent>) -> (usize, Vec<Option<String>>) {
    let (mut ready, mut ends) = (0, Vec::new());
    while let Ok(event) = events.try_recv() {
        match event {
            HostEvent::VmReady { .. } => ready += 1,
            HostEvent::VmGone { reason, .. } => ends.push(reason),
            _ => {}
        }
    }
    (ready, ends)
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_host_runs_each_sandbox_in_a_machine_of_its_own() {
    let Some(vms) = vms("a host with a machine for each sandbox").await else { return };
    let groups_before = test_support::control_groups();
    let host = builder(&vms, Boundary::VmPerSandbox).start().await.unwrap();
    let mut events = host.events();
    host.deploy(config(), program()).await.unwrap();
    invoke("a host's cold invocation with a new machine", &host, "f").await;
    assert_eq!(machines(&mut events), (1, vec![]));
    let before = invoke("its warm invocation", &host, "f").await;
    assert_eq!(machines(&mut events), (0, vec![]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = invoke("its warm invocation after a second frozen", &host, "f").await;
    assert!(after - before < 30, "{} turns in a second: it was not frozen", after - before);
    let stranger = host.account(STRANGER).unwrap();
    stranger.deploy(config(), program()).await.unwrap();
    invoke("the cold invocation of another account", &stranger, "f").await;
    assert_eq!(machines(&mut events), (1, vec![]));
    assert_eq!(monitors(), 2);
    tokio::time::sleep(IDLE_TIME + Duration::from_secs(1)).await;
    assert_eq!(machines(&mut events), (0, vec![None, None]), "both were stopped");
    assert_eq!(monitors(), 0);
    // A host that stops takes along what runs.
    invoke("a cold invocation with cached images", &host, "f").await;
    host.shutdown().await;
    nothing_is_left(&vms, &groups_before).await;
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_host_runs_the_sandboxes_of_an_account_in_one_machine() {
    let Some(vms) = vms("a host with a machine for each account").await else { return };
    let groups_before = test_support::control_groups();
    let host = builder(&vms, Boundary::VmPerAccount).start().await.unwrap();
    let mut events = host.events();
    host.deploy(config(), program()).await.unwrap();
    host.deploy(named("g"), program()).await.unwrap();
    invoke("a host's cold invocation with a machine for its account", &host, "f").await;
    invoke("a cold invocation in the machine of its account", &host, "g").await;
    let before = invoke("its warm invocation", &host, "g").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = invoke("its warm invocation after a second frozen", &host, "g").await;
    assert!(after - before < 30, "{} turns in a second: it was not frozen", after - before);
    assert_eq!(machines(&mut events), (1, vec![]), "both functions are in one");
    let stranger = host.account(STRANGER).unwrap();
    stranger.deploy(config(), program()).await.unwrap();
    invoke("the cold invocation of another account", &stranger, "f").await;
    assert_eq!(machines(&mut events), (1, vec![]));
    assert_eq!(monitors(), 2);
    host.shutdown().await;
    nothing_is_left(&vms, &groups_before).await;
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_host_runs_published_versions_from_a_snapshot() {
    let Some(vms) = vms("a host that starts from snapshots").await else { return };
    let groups_before = test_support::control_groups();
    let mut events = vms.events();
    let host = builder(&vms, Boundary::VmPerSandbox).start().await.unwrap();
    assert!(host.starts_from_snapshots());
    let mut config = config();
    config.snap_start = true;
    host.deploy(config, program()).await.unwrap();
    host.publish_version("f", Publish::default()).await.unwrap();
    let mut logs = Vec::new();
    for what in ["the first of a version", "one from a snapshot", "another from a snapshot"] {
        let began = Instant::now();
        let answer = host.invoke("f:1", "{}").await.unwrap();
        println!("measured: a host's {what} = {:.2} ms", ms(began));
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!answer.function_error && text.starts_with("[\"6.12"), "{text}");
        logs.push(String::from_utf8_lossy(&answer.log_tail).into_owned());
        tokio::time::sleep(IDLE_TIME + Duration::from_secs(1)).await;
        assert_eq!(monitors(), 0, "its sandbox was idle");
    }
    println!("logs: {logs:?}");
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, VmEvent::SnapshotMade { .. }), "{event}");
    }
    assert!(logs[0].contains("Init Duration") && !logs[0].contains("Restore Duration"));
    for log in &logs[1..] {
        assert!(log.contains("\tRestore Duration: ") && !log.contains("Init Duration"), "{log}");
    }
    host.shutdown().await;
    nothing_is_left(&vms, &groups_before).await;
}

/// Checks that no monitor runs, and that a sweep leaves the control groups of before.
async fn nothing_is_left(vms: &VmBackend, groups_before: &[PathBuf]) {
    assert_eq!(monitors(), 0);
    vms.sweep().await.unwrap();
    assert_eq!(test_support::control_groups(), groups_before);
}

/// Returns how many monitors run.
fn monitors() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let names = processes.map(|entry| std::fs::read_to_string(entry.path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.trim() == "monitor")).count()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

const IDLE_TIME: Duration = Duration::from_secs(3);
