//! WebSocket APIs, as an independent client and AWS's SDK for Python use them.

use std::process::Command;

use serde_json::json;

use crate::front_doors::Gateway;
use crate::support::{Served, client_environment, python, ready, source};

/// Events of connections to a function.
const FUNCTION: &[u8] = br#"
import json

def handler(event, context):
    seen = event["requestContext"]
    print(json.dumps([seen["eventType"], seen["routeKey"], seen.get("disconnectStatusCode")]))
    if seen["eventType"] == "CONNECT":
        query = event.get("queryStringParameters") or {}
        return {"statusCode": 403 if query.get("key") == "bad" else 200}
    if seen["routeKey"] == "fail":
        raise ValueError("as asked")
    return {"statusCode": 200, "body": json.dumps({"id": seen["connectionId"], "got": event.get("body")})}
"#;

#[test]
fn an_independent_client_and_boto3_use_a_websocket_api() {
    if !ready("WebSocket APIs") {
        return;
    }
    let python_program = test_support::venv_program("python").expect("checked by `ready`");
    let served = Served::start(&[]);
    served.create("sockets", &python(), "app.handler", &[("app.py", FUNCTION)], &[]);
    let route = |key: &str, answers: bool| json!({ "route": key, "function": "sockets", "route_response": answers });
    let definition = json!({ "apis": [{ "kind": "websocket", "routes": [route("$connect", false),
        route("$disconnect", false), route("$default", true), route("fail", false), route("quiet", false)] }] });
    let gateway = Gateway::start(&served, &definition);
    let mut command = Command::new(python_program);
    command.arg("-B").arg(source("functions/websocket_calls.py"));
    command.args([&gateway.endpoint, &served.endpoint]).envs(client_environment());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("all is well"), "{output:?}");
}
