//! TLS and HTTP/2 on a real socket, with clients that are good, slow or rude.
#![cfg(feature = "tls")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use lambda_gateway::{Answer, Call, Definition, Functions, Gateway, Invoking};
use lambda_host::Host;
use lambda_host::http::{Server, Tls, TlsError};
use lambda_sandbox::fake::FakeBackend;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A function that answers with its event. At `/together` it waits until `together` invocations
/// run at once; at `/never` it does not answer.
#[derive(Clone, Debug)]
struct Echo {
    running: Arc<AtomicUsize>,
    together: usize,
}

impl Functions for Echo {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event: Value = serde_json::from_slice(&call.payload).unwrap();
        Box::pin(async move {
            let path = event["rawPath"].as_str().unwrap_or_default().to_owned();
            if path == "/never" {
                std::future::pending::<()>().await;
            }
            if path == "/together" {
                self.running.fetch_add(1, Ordering::SeqCst);
                while self.running.load(Ordering::SeqCst) < self.together {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            let answer = json!({ "statusCode": 200, "body": event.to_string() });
            Ok(Answer::new(answer.to_string(), false))
        })
    }
}

/// A certificate of `localhost`, and how clients come to trust it.
struct Certified {
    tls: Tls,
    trusted: CertificateDer<'static>,
}

fn certified() -> Certified {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let tls = Tls::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    Certified { tls, trusted: made.cert.der().clone() }
}

async fn serve(server: Server) -> (SocketAddr, CertificateDer<'static>) {
    let Certified { tls, trusted } = certified();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(server.with_tls(tls).serve(listener, std::future::pending())));
    (address, trusted)
}

async fn gateway(kind: &str, together: usize) -> (SocketAddr, CertificateDer<'static>) {
    let route = if kind == "rest" { "ANY /{proxy+}" } else { "$default" };
    let file =
        json!({ "apis": [{ "kind": kind, "routes": [{ "route": route, "function": "f" }] }] });
    let definition = Definition::from_json(&file.to_string()).unwrap();
    let echo = Echo { running: Arc::default(), together };
    serve(Server::gateway(Arc::new(Gateway::new(definition, Arc::new(echo))))).await
}

async fn connect(
    (address, trusted): &(SocketAddr, CertificateDer<'static>),
    protocol: &str,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    stream
}

/// Returns a connection of HTTP/2, and a task that ends when it does.
async fn http2(
    server: &(SocketAddr, CertificateDer<'static>),
) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = connect(server, "h2").await;
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    (requests, tokio::spawn(connection))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

async fn answer(requests: &SendRequest<Bytes>, request: Request<()>) -> (StatusCode, String) {
    let mut requests = requests.clone().ready().await.unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        text.extend_from_slice(&part);
    }
    (head.status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn requests_of_http_2_reach_functions() {
    let server = gateway("http", 1).await;
    let (requests, _connection) = http2(&server).await;
    let (status, body) = answer(&requests, get("/pets?a=1")).await;
    assert_eq!(status, 200);
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["headers"]["host"], "localhost");
    assert_eq!(event["headers"]["x-forwarded-proto"], "https");
    assert_eq!(event["rawPath"], "/pets");
    assert_eq!(event["requestContext"]["domainName"], "localhost");
    assert_eq!(event["requestContext"]["http"]["protocol"], "HTTP/2.0");
    let mut two = get("/");
    two.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(answer(&requests, two).await.0, 400, "two hosts");
}

#[tokio::test]
async fn requests_of_one_connection_run_at_once() {
    let server = gateway("http", 50).await;
    let (requests, _connection) = http2(&server).await;
    let all = (0..50).map(|_| {
        let requests = requests.clone();
        tokio::spawn(async move { answer(&requests, get("/together")).await.0 })
    });
    for one in all.collect::<Vec<_>>() {
        let status = tokio::time::timeout(Duration::from_secs(20), one).await;
        assert_eq!(status.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn clients_without_http_2_speak_http_1() {
    let server = gateway("rest", 1).await;
    let mut stream = connect(&server, "http/1.1").await;
    let head = "GET /prod/a HTTP/1.1\r\nHost: localhost\r\nX-oDD: 1\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("X-oDD") && text.contains("\"X-Forwarded-Proto\":\"https\""), "{text}");
}

#[tokio::test]
async fn a_client_that_takes_back_all_it_asks_is_closed() {
    let server = gateway("http", 1).await;
    let (mut requests, connection) = http2(&server).await;
    let mut sent = 0;
    // Each is let in before it is taken back, so that the server begins to answer it.
    while !connection.is_finished() && sent < 2000 {
        let Ok(mut ready) = requests.ready().await else { break };
        let Ok((response, mut stream)) = ready.send_request(get("/never"), true) else { break };
        tokio::time::sleep(Duration::from_micros(500)).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        requests = ready;
        sent += 1;
    }
    // The protocol counts those that wait to be let in, up to 20; this server the others.
    assert!((20..1000).contains(&sent), "{sent} requests were taken back");
    let (requests, _connection) = http2(&server).await;
    assert_eq!(answer(&requests, get("/")).await.0, 200, "others are served");
}

#[tokio::test]
async fn floods_of_resets_and_broken_frames_are_counted() {
    let host = Host::builder(Arc::new(FakeBackend::new())).start().await.unwrap();
    let server = serve(Server::api(host).with_metrics()).await;
    let (mut requests, connection) = http2(&server).await;
    for _ in 0..2000 {
        let Ok(mut ready) = requests.ready().await else { break };
        let Ok((_, mut stream)) = ready.send_request(get("/_ready"), true) else { break };
        // In one segment with the request.
        stream.send_reset(h2::Reason::CANCEL);
        requests = ready;
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await.unwrap().unwrap();
    // By a GOAWAY of the protocol's own limit, or by ours, which closes at once.
    ended.unwrap_err();

    let mut broken = connect(&server, "h2").await;
    // A frame of data on stream 1, which is not open.
    let frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01x";
    broken.write_all(frames).await.unwrap();
    let mut rest = Vec::new();
    // It ends, with or without a closing message of TLS.
    drop(
        tokio::time::timeout(Duration::from_secs(10), broken.read_to_end(&mut rest)).await.unwrap(),
    );

    let (requests, _connection) = http2(&server).await;
    let (status, text) = answer(&requests, get("/metrics")).await;
    assert_eq!(status, 200);
    let count = |reason: &str| {
        let name = format!("faas_http_refused_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|it| it.strip_prefix(&name)?.parse::<u32>().ok())
    };
    assert_eq!((count("reset"), count("malformed")), (Some(1), Some(1)), "{text}");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = gateway("http", 1).await;
    let (requests, _connection) = http2(&server).await;
    let mut large = get("/");
    for number in 0..10 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        large.headers_mut().insert(name, "a".repeat(8000).parse().unwrap());
    }
    assert_eq!(answer(&requests, large).await.0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(answer(&requests, get("/")).await.0, 200, "the connection goes on");
}

#[tokio::test]
async fn clients_without_tls_disturb_nobody() {
    let server = gateway("http", 1).await;
    let mut plain = TcpStream::connect(server.0).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(server.0).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), plain.read_to_end(&mut rest)).await;
    read.unwrap().unwrap();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    let (requests, _connection) = http2(&server).await;
    assert_eq!(answer(&requests, get("/")).await.0, 200);
}

#[test]
fn certificates_and_keys_that_do_not_go_together_are_refused() {
    let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    let (certificate, key) = (one.cert.pem(), other.signing_key.serialize_pem());
    let read = |certificate: &str, key: &str| {
        Tls::from_pem(certificate.as_bytes(), key.as_bytes()).map(|_| ())
    };
    assert!(matches!(read(&certificate, &key), Err(TlsError::Unusable(_))));
    assert!(matches!(read(&certificate, "no"), Err(TlsError::NoKey)));
    assert!(matches!(read("no", &key), Err(TlsError::NoCertificate)));
}
