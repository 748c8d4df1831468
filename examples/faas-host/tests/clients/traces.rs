//! Spans of a real host, as a collector of OpenTelemetry gets them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::support::{Served, client_environment, file, python, ready};

/// The bodies of requests.
type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes requests of an exporter. Returns its address, and the bodies so far.
fn collector() -> io::Result<(String, Bodies)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}/v1/traces", listener.local_addr()?);
    let bodies = Bodies::default();
    let kept = Arc::clone(&bodies);
    drop(std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut stream, kept) = (BufReader::new(stream), Arc::clone(&kept));
            drop(std::thread::spawn(move || {
                while let Ok(Some(body)) = answered(&mut stream) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                }
            }));
        }
    }));
    Ok((address, bodies))
}

/// Answers a request with 200. Returns its body; `None` when there are no more requests.
fn answered(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    Ok(Some(body))
}

/// Reads requests, each a line in base64, as OpenTelemetry's own Python package does. Prints the
/// spans as JSON.
const DECODE: &str = "
import base64, json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
spans = []
for line in sys.stdin:
    request = ExportTraceServiceRequest()
    request.ParseFromString(base64.b64decode(line))
    for resource in request.resource_spans:
        service = {it.key: it.value.string_value for it in resource.resource.attributes}['service.name']
        for scope in resource.scope_spans:
            for span in scope.spans:
                fields = {it.key: it.value.string_value for it in span.attributes}
                spans.append({'name': span.name, 'id': span.span_id.hex(), 'parent': span.parent_span_id.hex(),
                    'trace': span.trace_id.hex(), 'kind': span.kind, 'status': span.status.code, 'service': service,
                    'took': span.end_time_unix_nano - span.start_time_unix_nano, 'fields': fields})
print(json.dumps(spans))
";

#[test]
fn a_collector_gets_the_spans_of_an_invocation() {
    if !ready("spans for a collector") {
        return;
    }
    let (address, bodies) = collector().unwrap();
    let served = Served::start(&["--otlp", &address]);
    let app = file("functions/app.py");
    served.create("f", &python(), "app.handler", &[("app.py", &app)], &[]);
    served.invoke("f", r#"{"do":"wait","seconds":0.2}"#, &[]);
    let (output, _) = served.invoke("f", r#"{"do":"fail","text":"x"}"#, &[]);
    assert_eq!(output["FunctionError"], "Unhandled");
    // The last spans are sent before the program ends.
    drop(served.stop());
    use base64::Engine as _;
    let bodies = bodies.lock().unwrap().clone();
    let lines: Vec<_> =
        bodies.iter().map(|it| base64::engine::general_purpose::STANDARD.encode(it)).collect();
    let mut decode = Command::new(test_support::venv_program("python").unwrap());
    decode.args(["-c", DECODE]).envs(client_environment());
    let mut decode = decode.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    decode.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = decode.wait_with_output().unwrap();
    assert!(output.status.success());
    let spans: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let named = |name: &str| spans.iter().filter(|it| it["name"] == name).collect::<Vec<_>>();
    let invocations = named("invocation");
    assert_eq!(invocations.len(), 2, "{spans:?}");
    for (at, invocation) in invocations.into_iter().enumerate() {
        let request = spans.iter().find(|it| it["id"] == invocation["parent"]).unwrap();
        assert_eq!((&request["name"], &request["parent"]), (&"request".into(), &"".into()));
        assert_eq!(request["kind"], 2, "a server's");
        assert_eq!(invocation["fields"]["faas.name"], "f");
        assert_eq!(invocation["status"], if at == 1 { 2 } else { 0 }, "{invocation}");
        for name in ["queue", "invoke"] {
            let found = named(name).into_iter().find(|it| it["parent"] == invocation["id"]);
            let found = found.unwrap_or_else(|| panic!("{name} of {invocation}: {spans:?}"));
            assert_eq!(found["trace"], request["trace"]);
            assert_eq!(found["service"], "faas-host");
            let took = found["took"].as_u64().unwrap();
            assert!(name != "invoke" || at == 1 || took > 200_000_000, "{found}");
        }
    }
}
