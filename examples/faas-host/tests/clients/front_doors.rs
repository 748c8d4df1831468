//! The recorded cases of function URLs, HTTP APIs and REST APIs against a real host and its
//! gateways.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Served, client_environment, python, ready, source};

/// A running `faas-host gateway`; ended on drop.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// The definition's file.
    _file: tempfile::NamedTempFile,
}

impl Gateway {
    /// Starts a gateway with a definition before the functions of a host.
    pub(crate) fn start(served: &Served, definition: &Value) -> Self {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), definition.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_faas-host"))
            .args(["gateway", "--listen", "127.0.0.1:0", "--endpoint", &served.endpoint])
            .arg("--definition")
            .arg(file.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines.map_while(Result::ok).find_map(|line| {
            Some(line.strip_prefix("listening")?.split_whitespace().next()?.to_owned())
        });
        Self { child, endpoint: endpoint.expect("the gateway prints its endpoint"), _file: file }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn recorded_cases_of_urls_and_apis_pass() {
    if !ready("recorded cases of function URLs and APIs") {
        return;
    }
    let program = test_support::conformance_dir().join("lambda/run_apigw.py");
    if !program.exists() {
        let why = "needs the conformance data (CONFORMANCE_DIR)";
        return test_support::left_out("recorded cases of function URLs and APIs", why);
    }
    let served = Served::start(&[]);
    let mounts = served.folder.path().join("mounts");
    std::fs::create_dir(&mounts).unwrap();
    let mount = format!("python3 {}", source("functions/mount.py").display());
    let output = Command::new(test_support::venv_program("python").unwrap())
        .arg("-B")
        .arg(program)
        .args(["--endpoint", &served.endpoint, "--runtime", &python(), "--mount", &mount])
        .envs(client_environment())
        .env("FAAS_HOST", env!("CARGO_BIN_EXE_faas-host"))
        .env("MOUNTS", &mounts)
        .output()
        .unwrap();
    // Each gateway's process has left its number.
    for entry in std::fs::read_dir(&mounts).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(pid) = name.strip_suffix(".pid") {
            Command::new("kill").arg(pid).status().unwrap();
        }
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    // One case is of a URL that is not there, which the program cannot make.
    assert!(printed.contains(" 0 failed, 1 skipped"), "{printed}");
}
