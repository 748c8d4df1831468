//! Hosts that are root, but lack some of root's capabilities, as in a container.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::process::Command;

use common::shell;
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend as _, Defence, Error, Exit};

/// Runs the test `host` of this program without a capability. Returns what it printed.
fn without(capability: &str) -> Option<String> {
    let mut host = Command::new("setpriv");
    host.arg(format!("--bounding-set=-{capability}"));
    host.arg(std::env::current_exe().expect("a path"));
    host.args(["--exact", "host", "--nocapture", "--test-threads=1"]).env("WITHOUT", capability);
    let output = match host.output() {
        Ok(output) => output,
        Err(error) => {
            test_support::left_out("hosts without a capability", &format!("setpriv: {error}"));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text.split_once("told|").and_then(|(_, rest)| rest.lines().next());
    Some(told.map_or_else(|| format!("{output:?}"), str::to_owned))
}

#[test]
fn a_host_that_lacks_a_capability_is_refused_by_its_name() {
    if common::backend("hosts without a capability").is_none() {
        return;
    }
    for (capability, name) in [
        ("sys_admin", "CAP_SYS_ADMIN"),
        ("net_admin", "CAP_NET_ADMIN"),
        ("setuid", "CAP_SETUID"),
        ("setgid", "CAP_SETGID"),
        ("sys_chroot", "CAP_SYS_CHROOT"),
    ] {
        let Some(told) = without(capability) else { return };
        assert!(told.starts_with("refused"), "{capability}: {told}");
        assert!(told.contains(name), "{capability}: {told}");
    }
    // The clocks of a time namespace are a defence that can be absent.
    let Some(told) = without("sys_time") else { return };
    assert_eq!(
        told,
        "ran, time: the host lacks CAP_SYS_TIME, which sets the clocks of a time namespace"
    );
    for capability in ["sys_resource", "sys_ptrace", "mknod", "kill", "chown", "setpcap", "net_raw"]
    {
        assert_eq!(without(capability).as_deref(), Some("ran, time: in force"), "{capability}");
    }
}

/// Runs in the child process without the capability: creates a backend, runs a sandbox, and prints
/// the result.
#[test]
fn host() {
    if std::env::var_os("WITHOUT").is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let told = runtime.block_on(async {
        let backend = match LinuxBackend::with_settings(&Settings::default()) {
            Ok(backend) => backend,
            Err(error @ Error::Unavailable { .. }) => return format!("refused: {error}"),
            Err(error) => return format!("failed: {error:?}"),
        };
        let sandbox = backend.create(shell("exit 0")).await.expect("made");
        let finished = sandbox.run().await.expect("run");
        assert_eq!(finished.exit, Exit::Status(0));
        let isolation = backend.isolation();
        let absent = isolation.absent.get(&Defence::Time);
        format!("ran, time: {}", absent.map_or("in force", String::as_str))
    });
    println!("told|{told}");
}
