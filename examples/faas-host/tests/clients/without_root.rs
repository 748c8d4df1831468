//! Runs `faas-host` as a user without privileges: which backends it refuses, what it prints, and
//! what works.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::ready;

/// A user id that belongs to no account.
const USER: u32 = 0x6E00_0001;

/// Runs `faas-host` as that user, in a folder that the user owns.
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("faas-host");
    std::fs::copy(env!("CARGO_BIN_EXE_faas-host"), &program).unwrap();
    open(folder.path());
    open(&program);
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).uid(USER).gid(USER).current_dir(&home);
    command.env("TMPDIR", &home).env("XDG_RUNTIME_DIR", &home).env("HOME", &home);
    command.output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_missing_and_what_to_do_is_said() {
    if !ready("faas-host without root") {
        return;
    }
    let output = run(&["demo"]);
    let (_, errors) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for said in [
        "error: root is not available",
        "run the host as root",
        "`--backend process` runs anywhere, but does not isolate",
        "`--backend linux-rootless` isolates without root",
    ] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
}

#[test]
fn the_process_backend_works_and_says_that_it_does_not_isolate() {
    if !ready("faas-host without root") {
        return;
    }
    let output = run(&["demo", "--backend", "process"]);
    let (said, errors) = text(&output);
    assert!(output.status.success(), "{errors}");
    assert!(said.contains("WARNING     the process backend does not isolate"), "{said}");
    assert!(said.contains("hello-compiled  warm"), "{said}");
}

#[test]
fn sandboxes_without_root_work_and_say_what_is_not_in_force() {
    if !ready("faas-host without root") {
        return;
    }
    let output = run(&["demo", "--backend", "linux-rootless"]);
    let (said, errors) = text(&output);
    if errors.contains("user namespaces is not available") {
        test_support::left_out("faas-host, sandboxes without root", &errors);
        return;
    }
    assert!(output.status.success(), "{errors}");
    assert!(said.contains("Memory             NOT IN FORCE"), "{said}");
    assert!(said.contains("hello-compiled  warm"), "{said}");
    assert!(said.contains("\"CapEff\": \"0000000000000000\""), "{said}");
}
