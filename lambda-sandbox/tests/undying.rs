//! A process that cannot die, because somebody has frozen it, delays neither its own run nor the
//! release of other sandboxes.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{backend, shell};
use lambda_sandbox::linux::Controller;
use lambda_sandbox::{Backend, Error};

/// A group of version 1's freezer, in which processes do not react to SIGKILL. It is thawed and
/// removed on drop.
struct Frozen(PathBuf);

impl Frozen {
    fn make(name: &str) -> Option<Self> {
        let groups = lambda_sandbox::linux::LinuxBackend::probe().expect("probed").hierarchies;
        let folder = groups.v1.get(&Controller::Freezer)?.join(name);
        std::fs::create_dir(&folder).expect("made");
        Some(Self(folder))
    }

    fn set(&self, state: &str) {
        std::fs::write(self.0.join("freezer.state"), state).expect("set");
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.set("THAWED");
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns the pid of the process with this command line.
fn find(command: &[u8]) -> Option<String> {
    let entries = std::fs::read_dir("/proc").expect("listed").flatten();
    let mut found = entries.filter(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|text| text == command)
    });
    Some(found.next()?.file_name().to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_frozen_process_holds_up_nobody() {
    let Some(backend) = backend("processes that cannot die") else { return };
    let Some(frozen) = Frozen::make(&format!("lambda-sandbox-undying-{}", std::process::id()))
    else {
        return test_support::left_out("processes that cannot die", "no freezer of version 1");
    };
    let spec = shell("exec sleep 6021").with_wall_time(Duration::from_millis(500));
    let running = tokio::spawn({
        let backend = backend.clone();
        async move { backend.run(spec).await }
    });
    let mut pid = None;
    for _ in 0..200 {
        pid = find(b"sleep\x006021\0");
        if pid.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    std::fs::write(frozen.0.join("cgroup.procs"), pid.expect("it runs")).expect("moved");
    frozen.set("FROZEN");
    let began = Instant::now();
    let error = running.await.expect("joined").expect_err("it is not released");
    assert!(
        matches!(&error, Error::Failed { source, .. }
        if source.kind() == std::io::ErrorKind::TimedOut),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // Others are released meanwhile. This one is released after the process has died.
    let done = backend.run(shell("echo here")).await.expect("run");
    assert_eq!(done.stdout, "here\n");
    assert!(!backend.groups().is_empty());
    frozen.set("THAWED");
    for _ in 0..500 {
        if backend.groups().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(backend.groups().is_empty(), "{:?}", backend.groups());
}
