//! AWS's SDK for JavaScript against a real host with real sandboxes.

use std::process::Command;

use crate::support::{Served, archive, client_environment, python, ready, source};

#[test]
fn the_javascript_sdk_is_content() {
    if !ready("AWS's SDK for JavaScript") {
        return;
    }
    let sdk = test_support::workspace().join("target/sdk");
    if !sdk.join("installed").exists() {
        let why = "needs target/sdk (`cargo xtask prepare`)";
        return test_support::left_out("AWS's SDK for JavaScript", why);
    }
    let served = Served::start(&[]);
    let zip = served.folder.path().join("app.zip");
    let code = b"def handler(event, context):\n    return event\n";
    std::fs::write(&zip, archive(&[("app.py", code)])).unwrap();
    let mut command = Command::new("node");
    command.arg(source("functions/javascript_calls.cjs")).args([&served.endpoint, &python()]);
    command.arg(zip).env("NODE_PATH", sdk.join("node_modules")).envs(client_environment());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
