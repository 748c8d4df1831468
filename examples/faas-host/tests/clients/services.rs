//! SQS, Kinesis and DynamoDB streams of moto beside a real host: destinations, dead letters, event
//! source mappings.

use std::process::Command;

use crate::roles::Moto;
use crate::support::{Served, client_environment, python, ready, source};

#[test]
fn events_come_from_and_go_to_services() {
    if !ready("services with moto") {
        return;
    }
    let Some(moto) = Moto::start() else {
        return test_support::left_out("services with moto", "moto_server is not in target/venv");
    };
    let services = format!("http://{}", moto.1);
    let arguments = ["--services-endpoint", &services, "--event-retry-after", "1"];
    let served = Served::start(&arguments);
    let program = test_support::venv_program("python").unwrap();
    let mut command = Command::new(program);
    command.arg(source("functions/services_calls.py"));
    command.args([&served.endpoint, &services, &python()]);
    let output = command.envs(client_environment()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
