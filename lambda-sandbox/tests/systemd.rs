//! A host's control groups in a systemd scope, on a machine of its own that systemd runs (`cargo
//! xtask guest`).

#![cfg(all(feature = "systemd", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "it says where it runs, and is the host that is killed")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::shell;
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Exit};

/// Set by the starter of the test on a disposable machine.
const MARK: &str = "OWN_MACHINE";
/// Set for the host that is killed.
const HOST: &str = "SCOPE_HOST";
const GONE_TIME: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings::default().in_systemd_scope()
}

/// Returns whether systemd runs this machine. If not, says that the test is left out.
fn is_there() -> bool {
    if Path::new("/run/systemd/system").is_dir() && std::env::var_os(MARK).is_some() {
        return true;
    }
    // Not skipped: `cargo xtask guest`, a part of the long run, has a machine that systemd runs.
    println!("a scope of systemd's: in a guest alone");
    false
}

#[tokio::test]
async fn without_systemd_it_is_refused_by_name() {
    if Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let error = LinuxBackend::with_settings(&settings()).expect_err("no systemd here");
    assert!(matches!(error, Error::Unavailable { what: "a scope of systemd's", .. }), "{error:?}");
}

/// Returns the scope that contains a group.
fn scope_of(group: &Path) -> Option<PathBuf> {
    let is_scope = |folder: &&Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("lambda-sandbox-") && name.ends_with(".scope")
    };
    group.ancestors().find(is_scope).map(Path::to_owned)
}

fn show(unit: &Path, property: &str) -> String {
    let unit = unit.file_name().expect("a name");
    let shown =
        Command::new("systemctl").args(["show", "--value", "-p", property]).arg(unit).output();
    String::from_utf8_lossy(&shown.expect("systemctl").stdout).trim().to_owned()
}

/// Waits until a scope has ended.
fn gone(scope: &Path) -> bool {
    let until = Instant::now() + GONE_TIME;
    while scope.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    !scope.exists()
}

#[tokio::test]
async fn groups_lie_in_a_scope_that_goes_with_the_host() {
    if !is_there() || std::env::var_os(HOST).is_some() {
        return;
    }
    let backend = LinuxBackend::with_settings(&settings()).expect("a backend");
    let (finished, said) = common::run(&backend, shell("echo in the scope")).await;
    assert_eq!((finished.exit, said.as_str()), (Exit::Status(0), "in the scope\n"));
    let mut limited = shell("exec sleep 100");
    limited.limits.memory_bytes = 64 << 20;
    let sandbox = backend.create(limited).await.expect("created");
    let groups = backend.groups();
    assert!(!groups.is_empty());
    let scope = scope_of(&groups[0]).expect("a scope");
    assert!(groups.iter().all(|group| scope_of(group).is_some()), "{groups:?}");
    assert_eq!(show(&scope, "Delegate"), "yes");
    assert_eq!(show(&scope, "ActiveState"), "active");
    assert_eq!(show(&scope, "Slice"), "system.slice");
    let limit = |group: &PathBuf| std::fs::read_to_string(group.join("memory.max")).ok();
    let limit = groups.iter().find_map(limit).expect("a limit");
    assert_eq!(limit.trim(), (64 << 20).to_string());
    // systemd reloads its units and writes to its own groups. Ours do not change.
    let reload = Command::new("systemctl").arg("daemon-reload").status().expect("systemctl");
    assert!(reload.success());
    assert_eq!(groups.iter().filter(|group| group.exists()).count(), groups.len());
    sandbox.destroy().await.expect("destroyed");
    drop(backend);
    assert!(gone(&scope), "{} stays", scope.display());
}

/// The host that is killed: prints the paths of its groups, and waits.
#[tokio::test]
async fn host() {
    if std::env::var_os(HOST).is_none() {
        return;
    }
    let backend = LinuxBackend::with_settings(&settings()).expect("a backend");
    let _sandbox = backend.create(shell("exec sleep 100")).await.expect("created");
    println!("group|{}", backend.groups()[0].display());
    tokio::time::sleep(Duration::from_secs(100)).await;
}

#[test]
fn the_scope_goes_with_a_host_that_is_killed() {
    if !is_there() || std::env::var_os(HOST).is_some() {
        return;
    }
    let me = std::env::current_exe().expect("a path");
    let mut host = Command::new(me)
        .args(["--exact", "host", "--nocapture", "--test-threads=1"])
        .env(HOST, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    let group = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("group|").map(|(_, group)| PathBuf::from(group)))
        .expect("a group");
    let scope = scope_of(&group).expect("a scope");
    assert!(scope.exists());
    host.kill().expect("killed");
    host.wait().expect("reaped");
    assert!(gone(&scope), "{} stays", scope.display());
}
