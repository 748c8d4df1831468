//! Execution roles, with a moto server as STS.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Served, client_environment, file, python, ready};

/// A moto server with its address, killed on drop.
pub(crate) struct Moto(Child, pub(crate) String);

impl Moto {
    pub(crate) fn start() -> Option<Self> {
        let program = test_support::venv_program("moto_server")?;
        // moto cannot take an open listener, so the port is one that was free a moment ago.
        let port =
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port]).stdout(Stdio::null()).stderr(Stdio::null());
        let moto = Self(command.spawn().unwrap(), format!("127.0.0.1:{port}"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&moto.1).is_err() {
            assert!(Instant::now() < deadline, "moto does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(moto)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

#[test]
fn a_function_gets_credentials_of_its_role() {
    if !ready("roles with moto") {
        return;
    }
    let Some(moto) = Moto::start() else {
        return test_support::left_out("roles with moto", "moto_server is not in target/venv");
    };
    let endpoint = format!("http://{}", moto.1);
    let mut environment = client_environment().to_vec();
    environment.push(("AWS_ENDPOINT_URL_STS", &endpoint));
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start_with(folder, &["--assume-roles"], &environment);
    let app = file("functions/app.py");
    served.create("f", &python(), "app.handler", &[("app.py", &app)], &["--timeout", "10"]);
    let (_, seen) = served.invoke("f", r#"{"do":"environment"}"#, &[]);
    let key = seen["AWS_ACCESS_KEY_ID"].as_str().unwrap();
    assert!(key.starts_with("ASIA"), "a session's key, not the host's: {key}");
    assert!(seen["AWS_SESSION_TOKEN"].is_string());
    // moto knows the role of each session key: ask it who the function's key belongs to.
    let aws = test_support::venv_program("aws").unwrap();
    let text = |name: &str| seen[name].as_str().unwrap().to_owned();
    let mut command = Command::new(aws);
    command.args(["sts", "get-caller-identity", "--endpoint-url", &endpoint]);
    for name in
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"]
    {
        command.env(name, text(name));
    }
    let output = command.output().unwrap();
    let identity = String::from_utf8_lossy(&output.stdout);
    assert!(identity.contains("assumed-role/test/f"), "{output:?}");
}
