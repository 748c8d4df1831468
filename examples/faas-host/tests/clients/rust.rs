//! AWS's SDK for Rust against a real host with real sandboxes.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Served, archive, client_environment, python, ready, source};

#[test]
fn the_rust_sdk_is_content() {
    if !ready("AWS's SDK for Rust") {
        return;
    }
    let Some(program) = built() else { return };
    let served = Served::start(&[]);
    let zip = served.folder.path().join("app.zip");
    let code = b"def handler(event, context):\n    return event\n";
    std::fs::write(&zip, archive(&[("app.py", code)])).unwrap();
    let mut command = Command::new(program);
    command.args([&served.endpoint, &python()]).arg(zip).envs(client_environment());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Builds the program that calls the SDK, which takes a minute of processor time at the first use.
/// `None`, and said so, where its packages cannot be had.
fn built() -> Option<PathBuf> {
    let folder = test_support::workspace().join("target/rust-sdk");
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(source("rust-sdk")).env("CARGO_TARGET_DIR", &folder);
        cargo
    };
    let fetched = cargo().args(["fetch", "--quiet", "--locked"]).output().unwrap();
    if !fetched.status.success() {
        let why = "its packages are not on this machine, and their registry is out of reach";
        test_support::left_out("AWS's SDK for Rust", why);
        return None;
    }
    let built = cargo().args(["build", "--quiet", "--locked", "--offline"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(folder.join("debug/rust-sdk-calls"))
}
