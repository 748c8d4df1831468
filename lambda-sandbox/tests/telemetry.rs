//! The Telemetry API and the Logs API, with extensions that use them as AWS documents them.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::{ASK, RUNTIME, logged, shell_in, text};
use lambda_sandbox::{Answer, Backend, Invocation, Root, SandboxSpec, ShutdownReason};
use serde_json::Value;

/// Subscribes over HTTP and over TCP, collects what comes, and prints it at SHUTDOWN.
const EXTENSION: &str = r#"#!/usr/bin/python3
import http.server, json, os, socketserver, sys, threading, urllib.error, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"]
name = os.path.basename(sys.argv[0])
tcp = name == "tcp"
port = 8081 if tcp else 8080
got = []

class Http(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        got.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        got.extend(json.loads(line) for line in self.rfile)

server = (socketserver.ThreadingTCPServer if tcp else http.server.ThreadingHTTPServer)(("0.0.0.0", port), Tcp if tcp else Http)
threading.Thread(target=server.serve_forever, daemon=True).start()

def call(method, path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data, headers, method=method)
    return urllib.request.urlopen(request)

answer = call("POST", "/2020-01-01/extension/register", {"events": ["INVOKE", "SHUTDOWN"]}, **{"Lambda-Extension-Name": name})
me = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
if tcp:
    asked = {"types": ["extension", "function"], "destination": {"protocol": "TCP", "port": port}}
    path = "/2020-08-15/logs"
else:
    uri = "http://sandbox.localdomain:8080/telemetry"
    asked = {"schemaVersion": "2022-12-13", "types": ["platform", "function"], "destination": {"protocol": "HTTP", "URI": uri}}
    path = "/2022-07-01/telemetry"
    for wrong, identity in [({"types": []}, me), (asked, {"Lambda-Extension-Identifier": "other"})]:
        try:
            call("PUT", path, wrong, **identity)
            print("accepted", flush=True)
        except urllib.error.HTTPError as error:
            print("refused", error.code, flush=True)
asked["buffering"] = {"timeoutMs": 25, "maxItems": 1000, "maxBytes": 262144}
print(name, "subscribes", call("PUT", path, asked, **me).read(), flush=True)
while True:
    event = json.load(call("GET", "/2020-01-01/extension/event/next", **me))
    if event["eventType"] == "SHUTDOWN":
        import time; time.sleep(0.5)
        print(name, "got", json.dumps(got), flush=True)
        sys.exit()
"#;

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// A function in bash with an extension for each API.
fn function(folder: &Path) -> SandboxSpec {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, open).expect("readable");
    let runtime = RUNTIME.replace("  ask \"POST", "  echo works on $id\n  ask \"POST");
    executable(&folder.join("task/bootstrap"), &format!("{ASK}{runtime}"));
    for name in ["http", "tcp"] {
        executable(&folder.join("opt/extensions").join(name), EXTENSION);
    }
    let root = Root::of_machine()
        .with_bind(folder.join("task"), "/var/task")
        .with_bind(folder.join("opt"), "/opt");
    let mut spec = shell_in(root, "").named("f");
    spec.command = vec!["/var/task/bootstrap".into()];
    spec.limits.cpus = 2.0;
    spec.limits.memory_bytes = 256 << 20;
    spec.times.init = Duration::from_secs(60);
    spec.times.shutdown_external = Duration::from_secs(20);
    spec
}

#[tokio::test]
async fn extensions_get_what_happens_and_what_is_printed() {
    let Some(backend) = common::backend("telemetry of extensions") else { return };
    if !Path::new("/usr/bin/python3").exists() {
        return test_support::left_out("telemetry of extensions", "needs /usr/bin/python3");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut spec = function(folder.path());
    let log = logged(&mut spec);
    let (mut idle, _) = match backend.create(spec).await.expect("created").init().await {
        Ok(ready) => ready,
        Err(failure) => panic!("{failure:?}\n{}", text(&log)),
    };
    for id in ["id-1", "id-2"] {
        let event = Invocation::new(id, "{}", Duration::from_secs(20));
        let (outcome, busy) = idle.invoke(event).await.expect("invoked");
        assert!(matches!(outcome.answer, Answer::Success(_)), "{outcome:?}");
        idle = busy.expect("usable").settle().await.expect("settled");
    }
    idle.shutdown(ShutdownReason::Spindown).await.expect("shut down");
    let output = text(&log);
    assert_eq!(output.matches("refused 400\n").count(), 1, "{output}");
    assert_eq!(output.matches("refused 403\n").count(), 1, "{output}");

    let got = |name: &str| -> Vec<Value> {
        let line = output.lines().find_map(|line| line.strip_prefix(&format!("{name} got ")));
        serde_json::from_str(line.unwrap_or_else(|| panic!("{output}"))).expect("JSON")
    };
    let events = got("http");
    let kinds: Vec<&str> = events.iter().filter_map(|it| it["type"].as_str()).collect();
    for (kind, count) in [
        ("platform.initStart", 1),
        ("platform.telemetrySubscription", 1),
        ("platform.logsSubscription", 1),
        ("platform.extension", 2),
        ("platform.initRuntimeDone", 1),
        ("platform.initReport", 1),
        ("platform.start", 2),
        ("platform.runtimeDone", 2),
        ("platform.report", 2),
        ("extension", 0),
    ] {
        assert_eq!(kinds.iter().filter(|it| **it == kind).count(), count, "{kind}: {kinds:?}");
    }
    assert_eq!(kinds[0], "platform.initStart");
    let of = |kind: &str| events.iter().find(|it| it["type"] == kind).expect("there");
    assert_eq!(of("platform.initReport")["record"]["status"], "success");
    assert_eq!(of("platform.start")["record"]["requestId"], "id-1");
    let report = &of("platform.report")["record"];
    assert_eq!((&report["status"], &report["requestId"]), (&"success".into(), &"id-1".into()));
    assert_eq!(report["metrics"]["memorySizeMB"], 256);
    let time = of("platform.start")["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    // A line of the function comes between the start and the end of its invocation.
    let at = |kind: &str| kinds.iter().position(|it| *it == kind).expect("there");
    let line = events.iter().position(|it| it["record"] == "works on id-1\n").expect("a line");
    assert!(at("platform.start") < line && line < at("platform.runtimeDone"), "{kinds:?}");

    let lines = got("tcp");
    let has = |kind: &str, part: &str| {
        let its = |it: &&Value| it["type"] == kind;
        lines.iter().filter(its).any(|it| it["record"].as_str().is_some_and(|it| it.contains(part)))
    };
    assert!(has("function", "works on id-2"), "{lines:?}");
    assert!(has("extension", "http subscribes"), "{lines:?}");
    assert!(!lines.iter().any(|it| it["type"].as_str().is_some_and(|it| it.contains('.'))));
}
