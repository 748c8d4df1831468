//! Streamed answers: through the library, `InvokeWithResponseStream` as boto3 calls it, and
//! function URLs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_host::{FunctionConfig, Host, Runtimes};
use lambda_sandbox::linux::LinuxBackend;
use serde_json::json;

use crate::support::{Served, archive, client_environment, ready};

/// A Node.js function that streams what its event says.
const STREAMING: &[u8] = br#"
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  if (event.rawPath === '/page') {
    const prelude = { statusCode: 201, headers: { 'Content-Type': 'text/html', 'X-Own': 'yes' }, cookies: ['a=b'] };
    stream = awslambda.HttpResponseStream.from(stream, prelude);
    stream.write('<p>first</p>');
    await pause(1500);
    stream.write('<p>second</p>');
    stream.end();
    return;
  }
  if (event.rawPath === '/events') {
    stream.setContentType('text/event-stream');
    for (const number of [1, 2, 3]) {
      stream.write(`data: ${number}\n\n`);
      await pause(500);
    }
    stream.end();
    return;
  }
  if (event.fail === 'before') throw new Error('before');
  stream.setContentType('text/plain');
  for (let part = 0; part < (event.parts ?? 2); part++) {
    if (!stream.write('x'.repeat(event.bytes ?? 10))) {
      await new Promise((done) => stream.once('drain', done));
    }
    if (event.pause) await pause(event.pause);
    if (event.log) console.log(`part ${part}`);
  }
  if (event.fail || event.rawPath === '/fail') throw new Error('in the middle');
  stream.end();
});
"#;

fn node() -> Option<String> {
    let runtimes = Runtimes::discover();
    let found = runtimes.identifiers().find(|it| it.starts_with("nodejs")).map(str::to_owned);
    if found.is_none() {
        test_support::left_out("streamed answers of Node.js functions", "needs Node.js");
    }
    found
}

async fn host(memory_mb: u32) -> Option<Host> {
    if !ready("streamed answers") {
        return None;
    }
    let node = node()?;
    let backend = Arc::new(LinuxBackend::new().unwrap());
    let builder = Host::builder(backend).with_runtimes(Runtimes::discover());
    let host = builder.start().await.unwrap();
    let config = FunctionConfig::new("streams", &node, "app.handler").unwrap();
    let config = config.with_memory_mb(memory_mb).with_timeout(Duration::from_secs(30));
    host.deploy(config, archive(&[("app.js", STREAMING)]).into()).await.unwrap();
    Some(host)
}

#[tokio::test]
async fn parts_come_while_the_function_runs() {
    let Some(host) = host(1024).await else { return };
    let event = json!({ "parts": 3, "pause": 500 }).to_string();
    let mut answer = host.invoke_streaming("streams", event).await.unwrap();
    assert_eq!(answer.content_type(), Some("text/plain"));
    let (began, mut bytes, mut first) = (Instant::now(), 0, None);
    while let Some(part) = answer.next().await {
        first.get_or_insert_with(|| began.elapsed());
        bytes += part.len();
    }
    assert_eq!(bytes, 30);
    assert!(first.unwrap() + Duration::from_millis(700) < began.elapsed(), "{first:?}");
    let end = answer.end().await.unwrap();
    assert!(!end.function_error && end.payload.is_empty());
    assert!(end.report.duration >= Duration::from_millis(1500), "{:?}", end.report);
    // A caller who wants all of it at once gets it, and the sandbox serves on.
    let whole = host.invoke("streams", "{}").await.unwrap();
    assert_eq!(whole.payload, "x".repeat(20));
    assert_eq!(whole.report.init_duration, None);
    host.shutdown().await;
}

#[tokio::test]
async fn a_function_that_fails_says_so_at_the_end() {
    let Some(host) = host(1024).await else { return };
    for (when, parts) in [("before", 0), ("middle", 2)] {
        let event = json!({ "fail": when, "pause": 50 }).to_string();
        let mut answer = host.invoke_streaming("streams", event).await.unwrap();
        let mut bytes = 0;
        while let Some(part) = answer.next().await {
            bytes += part.len();
        }
        assert_eq!(bytes, parts * 10, "{when}");
        let end = answer.end().await.unwrap();
        let text = String::from_utf8_lossy(&end.payload).into_owned();
        assert!(end.function_error && text.contains(when), "{when}: {text}");
    }
    host.shutdown().await;
}

/// 20 MB are more than the host, the pipes and Node.js keep for a caller who does not read.
#[tokio::test]
async fn a_function_waits_for_a_slow_caller_and_not_for_one_who_has_gone() {
    let Some(host) = host(1024).await else { return };
    let event = json!({ "parts": 200, "bytes": 100_000, "log": true }).to_string();
    let mut answer = host.invoke_streaming("streams", event.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(host.ready_sandboxes("streams").await.unwrap(), 1);
    let mut bytes = 0;
    while let Some(part) = answer.next().await {
        bytes += part.len();
    }
    assert_eq!(bytes, 20_000_000);
    let end = answer.end().await.unwrap();
    assert!(end.report.duration >= Duration::from_secs(2), "it did not wait: {:?}", end.report);

    drop(host.invoke_streaming("streams", event).await.unwrap());
    // The same sandbox takes the next one when that has ended.
    let next = tokio::time::timeout(Duration::from_secs(20), host.invoke("streams", "{}")).await;
    assert!(!next.expect("it ended").unwrap().function_error);
    host.shutdown().await;
}

#[test]
fn boto3_and_function_urls_get_the_answer_as_it_comes() {
    if !ready("streamed answers over HTTP") {
        return;
    }
    let Some(node) = node() else { return };
    let served = Served::start(&[]);
    served.create(
        "streams",
        &node,
        "app.handler",
        &[("app.js", STREAMING)],
        &["--memory-size", "512"],
    );
    boto3_reads_events(&served);
    function_urls_send_parts(&served);
}

fn boto3_reads_events(served: &Served) {
    let program = r#"
import boto3, json, sys, time
client = boto3.client("lambda", endpoint_url=sys.argv[1])
client.get_waiter("function_active_v2").wait(FunctionName="streams")
event = json.dumps({"parts": 3, "pause": 400})
answer = client.invoke_with_response_stream(FunctionName="streams", Payload=event, LogType="Tail")
print(answer["StatusCode"], answer["ExecutedVersion"], answer["ResponseStreamContentType"])
began, times = time.time(), []
for message in answer["EventStream"]:
    times.append(time.time() - began)
    print(json.dumps({key: {k: str(v)[:24] for k, v in value.items()} for key, value in message.items()}))
print(times[-1] - times[0] > 0.7)
answer = client.invoke_with_response_stream(FunctionName="streams", Payload=json.dumps({"fail": "middle"}))
print([message for message in answer["EventStream"]][-1]["InvokeComplete"])
"#;
    let python = test_support::venv_program("python").expect("checked by `ready`");
    let output = Command::new(python)
        .args(["-c", program, &served.endpoint])
        .envs(client_environment())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("200 $LATEST application/vnd.amazon.eventstream\n"), "{text}");
    assert!(text.matches(r#"{"PayloadChunk": {"Payload": "b'xxx"#).count() >= 2, "{text}");
    assert!(
        text.contains(r#"{"InvokeComplete": {"LogResult":"#) && text.contains("\nTrue\n"),
        "{text}"
    );
    assert!(text.contains("'ErrorCode': 'Unhandled'") && text.contains("in the middle"), "{text}");
}

fn function_urls_send_parts(served: &Served) {
    let url = served.open_url("streams", &["--invoke-mode", "RESPONSE_STREAM"]);
    let (page, spread) = get(&url, "page");
    assert!(page.starts_with("HTTP/1.1 201 Created"), "{page}");
    let head = page.to_ascii_lowercase();
    for header in ["content-type: text/html", "x-own: yes", "set-cookie: a=b"] {
        assert!(head.contains(header), "{header}: {page}");
    }
    assert!(page.contains("<p>first</p>") && page.contains("<p>second</p>"), "{page}");
    assert!(spread > Duration::from_secs(1), "the parts came together: {spread:?}");
    let (events, spread) = get(&url, "events");
    assert!(events.to_ascii_lowercase().contains("content-type: text/event-stream"), "{events}");
    assert!(events.contains("data: 1") && events.contains("data: 3"), "{events}");
    assert!(spread > Duration::from_millis(700), "the events came together: {spread:?}");
    // The last chunk, of length 0, is missing.
    let (failed, _) = get(&url, "fail");
    assert!(failed.contains("xxx") && !failed.ends_with("0\r\n\r\n"), "{failed}");
}

/// Sends a request to a function URL. Returns the answer as it came, and the time between its first
/// and its last part.
fn get(url: &str, path: &str) -> (String, Duration) {
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, base) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    let head =
        format!("GET /{base}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut part, mut first) = (Vec::new(), vec![0; 4096], None);
    let mut last = Instant::now();
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
        last = Instant::now();
        first.get_or_insert(last);
    }
    (String::from_utf8_lossy(&answer).into_owned(), last - first.unwrap_or(last))
}
