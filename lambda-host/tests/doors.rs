//! Function URLs and a gateway's front doors on a real socket, with clients that are wrong, rude or
//! dangerous.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_gateway::{Answer, Call, Definition, Functions, Gateway, Invoking};
use lambda_host::http::Server;
use lambda_host::{FunctionConfig, Host, UrlChange};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A function that answers with its event.
#[derive(Clone, Debug, Default)]
struct Echo(Arc<Mutex<Vec<Value>>>);

impl Functions for Echo {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event: Value = serde_json::from_slice(&call.payload).unwrap();
        self.0.lock().unwrap().push(event.clone());
        let answer = json!({ "statusCode": 200, "body": event.to_string() });
        Box::pin(std::future::ready(Ok(Answer::new(answer.to_string(), false))))
    }
}

async fn gateway(kind: &str) -> (SocketAddr, Echo) {
    counted_gateway(kind, None).await
}

async fn counted_gateway(kind: &str, host: Option<&Host>) -> (SocketAddr, Echo) {
    let route = if kind == "rest" { "ANY /{proxy+}" } else { "$default" };
    let file =
        json!({ "apis": [{ "kind": kind, "routes": [{ "route": route, "function": "f" }] }] });
    let echo = Echo::default();
    let definition = Definition::from_json(&file.to_string()).unwrap();
    let gateway = Arc::new(Gateway::new(definition, Arc::new(echo.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::gateway(gateway);
    let server = match host {
        Some(host) => server.with_counts(host),
        None => server,
    };
    drop(tokio::spawn(server.serve(listener, std::future::pending())));
    (address, echo)
}

/// Sends bytes and returns all that comes until the server closes, or nothing comes for two
/// seconds.
async fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before all was sent.
    stream.write_all(bytes).await.unwrap_or_default();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut part)).await;
        match read {
            Ok(Ok(length @ 1..)) => answer.extend_from_slice(&part[..length]),
            _ => return String::from_utf8_lossy(&answer).into_owned(),
        }
    }
}

fn statuses(answer: &str) -> Vec<&str> {
    let lines = answer.split("HTTP/1.1 ").skip(1);
    lines.map(|it| it.split(' ').next().unwrap_or_default()).collect()
}

/// Requests that two parsers may read in two ways: what is wrong, and what is sent.
fn ambiguous() -> Vec<(&'static str, String)> {
    let post = "POST / HTTP/1.1\r\nhost: x\r\n";
    let get = "GET / HTTP/1.1\r\nhost: x\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    vec![
        ("two lengths", format!("{post}content-length: 0\r\ncontent-length: 5\r\n\r\nabcde")),
        ("a list of lengths", format!("{post}content-length: 5, 6\r\n\r\nabcdef")),
        ("a signed length", format!("{post}content-length: +5\r\n\r\nabcde")),
        ("an unknown coding", format!("{post}transfer-encoding: xchunked\r\n\r\n{end}")),
        ("chunked not last", format!("{post}transfer-encoding: chunked, gzip\r\n\r\n{end}")),
        ("a folded header", format!("{get}x-a: 1\r\n 2\r\n\r\n")),
        ("a space before the colon", format!("{get}x-a : 1\r\n\r\n")),
        ("a zero byte", format!("{get}x-a: 1\0\r\n\r\n")),
        ("a bare CR", format!("{get}x-a: 1\rx-b: 2\r\n\r\n")),
        ("a wrong chunk size", format!("{post}{chunked}\r\nzz\r\n")),
        ("chunks of HTTP/1.0", format!("POST / HTTP/1.0\r\nhost: x\r\n{chunked}\r\n{end}")),
        ("two hosts", format!("{get}host: y\r\n\r\n")),
        (
            "a length and chunks",
            format!(
                "{post}content-length: 5\r\n{chunked}\r\n{end}GET /b HTTP/1.1\r\nhost: x\r\n\r\n"
            ),
        ),
    ]
}

#[tokio::test]
async fn requests_with_two_meanings_are_refused() {
    let mut wrong = Vec::new();
    for (name, bytes) in ambiguous() {
        let (address, echo) = gateway("http").await;
        let answer = send(address, bytes.as_bytes()).await;
        let (found, seen) = (statuses(&answer), echo.0.lock().unwrap().len());
        if found != ["400"] || seen > 0 {
            wrong.push(format!("{name}: {found:?}, {seen} requests reached the function"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn refused_requests_are_counted() {
    let (host, address) = host().await;
    // The body of a call that the API does not have is not read: its fault is not seen.
    let cases: Vec<_> = ambiguous().into_iter().filter(|it| it.0 != "a wrong chunk size").collect();
    for (name, bytes) in &cases {
        assert_eq!(statuses(&send(address, bytes.as_bytes()).await), ["400"], "{name}");
    }
    let [malformed, ambiguous, slow] =
        ["malformed", "ambiguous", "slow"].map(|reason| refused(&host, reason));
    assert_eq!(malformed + ambiguous, cases.len());
    // Two hosts, and a length with chunks.
    assert!(ambiguous >= 2 && slow == 0, "{ambiguous} {slow}");
    host.shutdown().await;
}

fn refused(host: &Host, reason: &str) -> usize {
    let text = lambda_host::metrics::prometheus(&host.metrics());
    let start = format!("faas_http_refused_total{{reason=\"{reason}\"}} ");
    let number = text.lines().find_map(|it| it.strip_prefix(&start)).unwrap();
    number.parse().unwrap()
}

/// Time passes when nothing happens: clients of this test send no more, so that time-outs come at
/// once.
#[tokio::test(start_paused = true)]
async fn heads_and_bodies_that_do_not_come_are_given_up_and_counted() {
    let (host, api) = host().await;
    let (door, echo) = counted_gateway("http", Some(&host)).await;
    for (number, address) in [api, door].into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-a").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(refused(&host, "slow"), 2 * number + 1, "{rest:?}");

        let mut stream = TcpStream::connect(address).await.unwrap();
        let path = "/2015-03-31/functions/f/invocations";
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert_eq!(statuses(&answer), ["408"], "{answer}");
        assert_eq!(refused(&host, "slow"), 2 * number + 2);
    }
    assert!(echo.0.lock().unwrap().is_empty());
    assert_eq!(statuses(&send(door, b"GET / HTTP/1.1\r\nhost : x\r\n\r\n").await), ["400"]);
    assert_eq!(refused(&host, "malformed"), 1, "of the gateway");
    host.shutdown().await;
}

#[tokio::test]
async fn bare_line_feeds_end_lines_once() {
    let (address, echo) = gateway("http").await;
    let bytes = "GET / HTTP/1.1\nhost: x\nx-a: 1\nconnection: close\n\n";
    let found = send(address, bytes.as_bytes()).await;
    assert_eq!(statuses(&found), ["200"]);
    let events = echo.0.lock().unwrap();
    assert_eq!((events.len(), &events[0]["headers"]["x-a"]), (1, &json!("1")));
}

#[tokio::test]
async fn large_and_many_headers_are_refused() {
    let (address, echo) = gateway("http").await;
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20));
    assert_eq!(statuses(&send(address, huge.as_bytes()).await), ["431"]);
    let many = "x-a: 1\r\n".repeat(2000);
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    assert_eq!(statuses(&send(address, many.as_bytes()).await), ["431"]);
    assert!(echo.0.lock().unwrap().is_empty());
    let fine = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(statuses(&send(address, fine.as_bytes()).await), ["200"]);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let (address, echo) = gateway("rest").await;
    let head =
        "POST /prod/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10485761\r\nconnection: close\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    bytes.resize(bytes.len() + 10_485_761, b'a');
    let answer = send(address, &bytes).await;
    assert_eq!(statuses(&answer), ["413"]);
    assert!(answer.contains("Request Too Long"), "{answer}");
    assert!(echo.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn headers_keep_the_clients_letters_on_a_connection_that_is_kept() {
    let (address, echo) = gateway("rest").await;
    let first =
        "POST /prod/a HTTP/1.1\r\nHost: x\r\nX-oNE: 1\r\nContent-Length: 9\r\n\r\nX-tWO: 2\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut part = [0; 8192];
    for bytes in [first, "GET /prod/b HTTP/1.1\r\nHost: x\r\nx-TWO: 2\r\nX-one: é\r\n\r\n"] {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        assert!(stream.read(&mut part).await.unwrap() > 0);
    }
    let events = echo.0.lock().unwrap();
    assert_eq!(events[0]["headers"]["X-oNE"], "1");
    assert_eq!(events[0]["body"], "X-tWO: 2\n");
    assert_eq!(events[1]["headers"]["x-TWO"], "2");
    assert_eq!(events[1]["headers"]["X-one"], "\u{c3}\u{a9}");
}

#[tokio::test]
async fn a_client_that_goes_away_harms_nobody() {
    let (address, _) = gateway("http").await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
            .await
            .unwrap();
    }
    let fine = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(statuses(&send(address, fine.as_bytes()).await), ["200"]);
}

async fn host() -> (Host, SocketAddr) {
    let answer = |_: &_| FakeAnswer::success(r#"{"statusCode":201,"body":"hello"}"#);
    let backend = FakeBackend::new().with_handler("f", answer);
    let host = Host::builder(Arc::new(backend)).start().await.unwrap();
    let config = FunctionConfig::new("f", "provided", "x").unwrap();
    let zip = lambda_host_zip();
    host.deploy(config, zip.into()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::api(host.clone()).with_url_path("/urls");
    drop(tokio::spawn(server.serve(listener, std::future::pending())));
    (host, address)
}

/// An archive with an empty `bootstrap`.
fn lambda_host_zip() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bootstrap", zip::write::SimpleFileOptions::default().unix_permissions(0o755))
        .unwrap();
    zip.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_function_url_is_served_by_host_and_by_path_once_its_policy_allows_everybody() {
    let (host, address) = host().await;
    let mut change = UrlChange::default();
    change.authenticated = Some(false);
    change.cors = Some(json!({ "AllowOrigins": ["https://a"], "MaxAge": 7 }));
    let url = host.create_url("f", change).await.unwrap();
    let ask = async |method: &str, name: &str, path: &str, more: &str| {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {name}\r\n{more}connection: close\r\n\r\n");
        send(address, head.as_bytes()).await
    };
    let name = format!("{}.lambda-url.us-east-1.localhost", url.id);
    let refused = ask("GET", &name, "/", "").await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("urls-auth.html"), "{refused}");

    let statement = |_: &str| {
        Ok(json!({ "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
            "Condition": { "StringEquals": { "lambda:FunctionUrlAuthType": "NONE" } } }))
    };
    host.add_permission("f", "url", None, statement).await.unwrap();
    let found = ask("GET", &name, "/", "origin: https://a\r\n").await;
    assert!(found.starts_with("HTTP/1.1 201") && found.ends_with("hello"), "{found}");
    assert!(found.contains("access-control-allow-origin: https://a"), "{found}");
    let by_path = ask("GET", "x", &format!("/urls/{}/a", url.id), "").await;
    assert!(by_path.starts_with("HTTP/1.1 201"), "{by_path}");
    let preflight = "origin: https://a\r\naccess-control-request-method: PUT\r\n";
    let preflight = ask("OPTIONS", &name, "/", preflight).await;
    assert!(
        preflight.starts_with("HTTP/1.1 200") && preflight.contains("max-age: 7"),
        "{preflight}"
    );

    let mut change = UrlChange::default();
    change.authenticated = Some(true);
    host.update_url("f", change).await.unwrap();
    let refused = ask("GET", &name, "/", "").await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("AWS_IAM"), "{refused}");

    host.remove_url("f").await.unwrap();
    let gone = ask("GET", &name, "/", "").await;
    assert!(gone.starts_with("HTTP/1.1 403") && gone.ends_with("{\"Message\":null}"), "{gone}");
    host.shutdown().await;
}
