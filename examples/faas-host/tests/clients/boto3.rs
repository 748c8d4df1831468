//! boto3 against a real host with real sandboxes.

use std::process::Command;

use crate::support::{Served, archive, client_environment, file, python, ready, source};

#[test]
fn boto3_is_content() {
    if !ready("boto3") {
        return;
    }
    let served = Served::start(&[]);
    let zip = served.folder.path().join("app.zip");
    std::fs::write(&zip, archive(&[("app.py", &file("functions/app.py"))])).unwrap();
    let program = test_support::venv_program("python").unwrap();
    let mut command = Command::new(program);
    command.arg(source("functions/boto3_calls.py")).args([&served.endpoint, &python()]).arg(zip);
    let output = command.envs(client_environment()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
