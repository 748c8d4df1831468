//! Tests that change kernel settings and therefore run on a machine of their own (`cargo xtask
//! guest`): programs of the host that the kernel runs for core dumps, and the limit of compiled
//! filters.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "it says where it runs")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

mod common;
mod probes;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::{run, shell};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Error, Root, SandboxSpec};

/// Set by the starter of the test on a disposable machine.
const MARK: &str = "OWN_MACHINE";

fn backend(what: &str) -> Option<LinuxBackend> {
    if std::env::var_os(MARK).is_none() {
        // Not skipped: `cargo xtask guest`, a part of the long run, runs it on a machine of its
        // own.
        println!("{what}: in the guest alone, as it changes the machine's settings");
        return None;
    }
    common::backend(what)
}

/// Makes a program that records how it was called. Returns the path of the record.
fn helper(name: &str) -> (String, String) {
    let (program, log) = (format!("/tmp/{name}"), format!("/tmp/{name}.log"));
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {log}\n")).expect("written");
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, all).expect("set");
    std::fs::write(&log, "").expect("written");
    (program, log)
}

fn set(path: &str, value: &str) -> String {
    let before = std::fs::read_to_string(path).expect("there");
    std::fs::write(path, value).expect("written");
    before
}

async fn calls(log: &str) -> usize {
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::read_to_string(log).expect("there").lines().count()
}

#[tokio::test]
async fn a_core_dump_runs_no_program_of_the_hosts() {
    let Some(backend) = backend("core dumps by a program of the host's") else { return };
    let (program, log) = helper("core-helper");
    let before = set("/proc/sys/kernel/core_pattern", &format!("|{program} %p %u"));
    let crash = "for i in 1 2 3; do sh -c 'kill -SEGV $$'; done";
    let status = std::process::Command::new("/bin/sh").args(["-c", crash]).status();
    status.expect("started");
    let outside = calls(&log).await;
    // Whatever the program requests before.
    let lowered = format!("ulimit -c 0; ulimit -S -c 0; ulimit -c unlimited; {crash}");
    for script in [crash, &lowered] {
        run(&backend, shell(script)).await;
    }
    let both = calls(&log).await;
    set("/proc/sys/kernel/core_pattern", &before);
    assert_eq!((outside, both), (3, 3), "of a plain program, and with those of two sandboxes");
}

/// Run in the sandbox by another test, not on its own.
#[test]
fn inside() {
    if std::env::var_os("PROBE_TCP").is_some() {
        for probe in probes::all() {
            let _through = (probe.attack)();
        }
    }
}

#[tokio::test]
async fn no_attack_has_the_host_load_modules() {
    let Some(backend) = backend("modules for the asking") else { return };
    let (program, log) = helper("module-helper");
    let before = set("/proc/sys/kernel/modprobe", &program);
    probes::call(libc::SYS_socket, [2, 1, 133, 0, 0]);
    let outside = calls(&log).await;
    std::fs::write(&log, "").expect("written");
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/probe");
    let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    spec.limits.cpus = 1.0;
    let given = [("PROBE_TCP", "127.0.0.1:9"), ("PROBE_UNIX", "x"), ("PROBE_UPTIME", "0")];
    spec.environment = given.map(|(name, value)| (name.into(), value.into())).into();
    let (finished, said) = run(&backend, spec).await;
    assert_eq!(finished.exit, lambda_sandbox::Exit::Status(0), "{said}");
    let inside = calls(&log).await;
    let asked = std::fs::read_to_string(&log).expect("there");
    set("/proc/sys/kernel/modprobe", &before);
    assert!(outside > 0, "the kernel asks for modules here");
    assert_eq!(inside, 0, "{asked}");
}

#[tokio::test]
async fn where_there_is_no_room_for_filters_a_start_says_so() {
    let Some(backend) = backend("a machine without room for filters") else { return };
    let path = "/proc/sys/net/core/bpf_jit_limit";
    if !Path::new(path).exists() {
        test_support::left_out(
            "a machine without room for filters",
            "the kernel does not compile them",
        );
        return;
    }
    let before = set(path, "1");
    let made = match backend.create(shell("exit 0")).await {
        Ok(sandbox) => sandbox.run().await.map(|_| ()),
        Err(error) => Err(error),
    };
    set(path, &before);
    let told = made.expect_err("no room");
    assert!(
        matches!(told, Error::Unavailable { what: "room for the system call filter", .. }),
        "{told:?}"
    );
    run(&backend, shell("exit 0")).await;
}
