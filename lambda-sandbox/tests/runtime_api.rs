//! The Runtime API and Extensions API as seen by a client: status codes, headers and bodies.

#![cfg(feature = "runtime-api")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::runtime_api::{Ready, Session, SessionSettings, serve};
use lambda_sandbox::{Answer, Invocation, ShutdownReason, StreamPart};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

struct Api {
    session: Arc<Session>,
    address: std::net::SocketAddr,
}

async fn api() -> Api {
    let session = Arc::new(Session::new(SessionSettings {
        function: "f".into(),
        handler: "app.handler".into(),
        payload_bytes_max: 1000,
        stream_bytes_max: 100_000,
        stream_bytes_per_second: None,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(Arc::clone(&session), listener));
    Api { session, address }
}

impl Api {
    /// Sends one request unchanged and returns the whole answer.
    async fn raw(&self, request: String) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        String::from_utf8(answer).expect("text")
    }

    async fn send(&self, line: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        self.raw(format!("{head}{headers}content-length: {length}\r\n\r\n{body}")).await
    }

    async fn next(&self) -> String {
        self.send("GET /2018-06-01/runtime/invocation/next", "", "").await
    }

    async fn answer(&self, id: &str, body: &str) -> String {
        let line = format!("POST /2018-06-01/runtime/invocation/{id}/response");
        self.send(&line, "", body).await
    }

    /// Lets a runtime ask for an invocation, and hands it the one with this id.
    async fn hand_over(&self, id: &str) -> String {
        let invocation = Invocation::new(id, "{}", Duration::from_secs(3));
        let (next, ()) = tokio::join!(self.next(), async {
            self.session.settled().await;
            self.session.hand_over(invocation);
        });
        next
    }
}

fn check(answer: &str, status: u16, wanted: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(wanted), "{wanted} not in {answer}");
}

#[tokio::test]
async fn an_invocation_is_answered_once_and_by_its_own_id() {
    let api = api().await;
    check(&api.answer("a", "1").await, 400, "InvalidRequestID");
    let next = api.hand_over("a").await;
    check(&next, 200, "lambda-runtime-aws-request-id: a");
    assert!(next.contains("lambda-runtime-deadline-ms: "), "{next}");
    check(&api.next().await, 403, "InvalidStateTransition");
    check(&api.answer("b", "1").await, 400, "InvalidRequestID");
    check(&api.answer("a", "1").await, 202, r#"{"status":"OK"}"#);
    assert!(matches!(api.session.answered().await, Answer::Success(one) if one.body == "1"));
    check(&api.answer("a", "2").await, 403, "InvalidStateTransition");
    check(&api.send("GET /nowhere", "", "").await, 404, "");
}

#[tokio::test]
async fn too_large_an_answer_is_refused_and_told() {
    let api = api().await;
    api.hand_over("a").await;
    let large = "x".repeat(1001);
    check(&api.answer("a", &large).await, 413, "RequestEntityTooLarge");
    let Answer::FunctionError(error) = api.session.answered().await else {
        panic!("an error is due");
    };
    assert_eq!(error.error_type, "Function.ResponseSizeTooLarge");
}

#[tokio::test]
async fn a_streamed_answer_ends_with_the_error_in_its_trailers() {
    let api = api().await;
    let (stream, mut pieces) = tokio::sync::mpsc::channel(8);
    let mut invocation = Invocation::new("a", "{}", Duration::from_secs(3));
    invocation.stream = Some(stream);
    tokio::join!(api.next(), async {
        api.session.settled().await;
        api.session.hand_over(invocation);
    });
    let head = "POST /2018-06-01/runtime/invocation/a/response HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        lambda-runtime-function-response-mode: streaming\r\ntransfer-encoding: chunked\r\n\
        trailer: lambda-runtime-function-error-type, lambda-runtime-function-error-body\r\n\r\n";
    let body = "3\r\none\r\n3\r\ntwo\r\n0\r\nlambda-runtime-function-error-type: Middle\r\n\
        lambda-runtime-function-error-body: e30=\r\n\r\n";
    check(&api.raw(format!("{head}{body}")).await, 202, "OK");
    let mut seen = Vec::new();
    while let Some(piece) = pieces.recv().await {
        seen.push(piece);
    }
    let data = |text: &'static [u8]| StreamPart::Data(Bytes::from_static(text));
    let begin = StreamPart::Begin { content_type: None };
    assert_eq!(seen, [begin, data(b"one"), data(b"two")]);
    let Answer::FunctionError(error) = api.session.answered().await else {
        panic!("an error is due");
    };
    assert_eq!((error.error_type.as_str(), &error.body[..]), ("Middle", &b"{}"[..]));
}

#[tokio::test]
async fn an_answer_cut_off_is_an_error() {
    let api = api().await;
    api.hand_over("a").await;
    let mut stream = TcpStream::connect(api.address).await.expect("connected");
    let head = "POST /2018-06-01/runtime/invocation/a/response HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhal";
    stream.write_all(head.as_bytes()).await.expect("sent");
    drop(stream);
    let Answer::FunctionError(error) = api.session.answered().await else {
        panic!("an error is due");
    };
    assert_eq!(error.error_type, "Runtime.TruncatedResponse");
}

#[tokio::test]
async fn extensions_hold_init_and_hear_of_invocations_and_the_end() {
    let api = api().await;
    let name = "lambda-extension-name: watch\r\n";
    let line = "POST /2020-01-01/extension/register";
    check(&api.send(line, name, "no json").await, 400, "InvalidRequestFormat");
    let registered = api.send(line, name, r#"{"events":["INVOKE","SHUTDOWN"]}"#).await;
    check(&registered, 200, r#""functionName":"f""#);
    let id = registered
        .lines()
        .find_map(|line| line.strip_prefix("lambda-extension-identifier: "))
        .expect("an identifier");
    let header = format!("lambda-extension-identifier: {id}\r\n");
    let event = || api.send("GET /2020-01-01/extension/event/next", &header, "");
    check(
        &api.send("GET /2020-01-01/extension/event/next", "lambda-extension-identifier: x\r\n", "")
            .await,
        403,
        "UnknownExtensionIdentifier",
    );
    let invocation = Invocation::new("a", "{}", Duration::from_secs(3));
    let (next, event_seen, ()) = tokio::join!(
        api.next(),
        async {
            // Init waits for the late extension.
            let early = tokio::time::timeout(Duration::from_millis(50), api.session.ready()).await;
            assert!(early.is_err());
            event().await
        },
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(api.session.ready().await, Ready::Idle);
            api.session.hand_over(invocation);
        }
    );
    check(&next, 200, "lambda-runtime-aws-request-id: a");
    check(&event_seen, 200, r#""eventType":"INVOKE""#);
    check(&api.answer("a", "1").await, 202, "OK");
    let ((), end) = tokio::join!(
        api.session.shut_down(ShutdownReason::Spindown, Duration::from_millis(200)),
        event()
    );
    check(&end, 200, r#""shutdownReason":"spindown""#);
    check(&api.send(line, name, r#"{"events":[]}"#).await, 403, "InvalidStateTransition");
}

#[tokio::test]
async fn init_errors_are_told_as_they_were_posted() {
    let api = api().await;
    let header = "lambda-runtime-function-error-type: Runtime.ImportModuleError\r\n";
    let body = r#"{"errorMessage":"no module","errorType":"ImportError"}"#;
    let line = "POST /2018-06-01/runtime/init/error";
    check(&api.send(line, header, body).await, 202, "OK");
    let Ready::Failed(error) = api.session.ready().await else {
        panic!("an error is due");
    };
    assert_eq!(error.error_type, "Runtime.ImportModuleError");
    assert_eq!(error.body, body);
}

/// A client that sends its body after its headers, as Python's does, met a closed connection if the
/// call was refused before the body had come. It took that for the end of its sandbox.
#[tokio::test]
async fn a_refused_call_leaves_the_connection_open_though_its_body_comes_late() {
    let api = api().await;
    let mut stream = TcpStream::connect(api.address).await.expect("connected");
    for path in [
        "/2018-06-01/runtime/invocation/none/response",
        "/2018-06-01/runtime/invocation/none/error",
        "/2018-06-01/nothing",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("headers sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(b"body").await.expect("body sent");
        let mut answer = [0_u8; 1024];
        let length = stream.read(&mut answer).await.expect("answered");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer:?}");
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
    }
}

/// A runtime may be silent between its request and its answer for as long as its function runs, up
/// to 900 s.
#[tokio::test]
async fn a_connection_stays_open_for_as_long_as_a_function_works() {
    for seconds in [31, 65, 900] {
        let api = api().await;
        let mut stream = TcpStream::connect(api.address).await.expect("connected");
        for _ in 0..2 {
            let ping = "GET /2018-06-01/ping HTTP/1.1\r\nhost: x\r\n\r\n";
            stream.write_all(ping.as_bytes()).await.expect("sent");
            let mut answer = [0; 512];
            let read = stream.read(&mut answer).await.expect("read");
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(answer.starts_with("HTTP/1.1 200 "), "after {seconds} s: {answer:?}");
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            tokio::task::yield_now().await;
            tokio::time::resume();
            // By then the server has reacted.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
