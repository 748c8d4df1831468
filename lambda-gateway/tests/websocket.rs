//! WebSocket APIs as a server uses them: handshakes, messages, `@connections`, and ends.
#![cfg(feature = "websocket")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_gateway::{
    AccessLog, Answer, Arrival, Call, Definition, Functions, Gateway, InvokeError, Invoking,
    Request, SessionHost,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Functions that answer from a table after a time, and the events that they got.
#[derive(Debug, Default)]
struct Table {
    answers: BTreeMap<&'static str, (Value, Duration)>,
    events: Mutex<Vec<(String, Value)>>,
}

impl Functions for Table {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event = serde_json::from_slice(&call.payload).unwrap();
        self.events.lock().unwrap().push((call.function.clone(), event));
        let known = self.answers.get(call.function.as_str()).cloned();
        Box::pin(async move {
            let (answer, after) = known.ok_or(InvokeError::Unavailable)?;
            tokio::time::sleep(after).await;
            Ok(Answer::new(answer.to_string(), answer.get("errorMessage").is_some()))
        })
    }
}

/// The server's side: each arrival is a second after the one before.
#[derive(Debug, Default)]
struct Host {
    last: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl SessionHost for Host {
    fn arrival(&self) -> Arrival {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number:08}-request-{number:08}");
        Arrival::new(number * 1000, [192, 0, 2, 9].into(), id)
    }

    fn log(&self, log: AccessLog) {
        self.lines.lock().unwrap().push(log.line(0));
    }
}

type Client = WebSocketStream<DuplexStream>;

struct Bed {
    gateway: Arc<Gateway>,
    table: Arc<Table>,
    host: Arc<Host>,
}

impl Bed {
    fn new(answers: &[(&'static str, Value, u64)], routes: &[(&str, Value)], more: Value) -> Self {
        let answers = answers.iter();
        let answers = answers
            .map(|(name, answer, ms)| (*name, (answer.clone(), Duration::from_millis(*ms))))
            .collect();
        let table = Arc::new(Table { answers, events: Mutex::default() });
        let routes: Vec<_> = routes
            .iter()
            .map(|(route, more)| {
                let mut own = json!({ "route": route, "function": route.trim_start_matches('$') });
                own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                own
            })
            .collect();
        let mut api = json!({ "kind": "websocket", "id": "sockets", "routes": routes });
        api.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let definition = Definition::from_json(&json!({ "apis": [api] }).to_string()).unwrap();
        let functions = Arc::clone(&table) as Arc<dyn Functions>;
        let gateway = Arc::new(Gateway::new(definition, functions));
        Self { gateway, table, host: Arc::default() }
    }

    /// Opens a connection; the status of a refusal otherwise.
    async fn open(&self, id: &str, more: &[(&str, &str)]) -> Result<Client, u16> {
        let mut request = handshake("/prod?key=1");
        for (name, value) in more {
            request = request.with_header(name, value);
        }
        let opened = self.gateway.open(&request, &self.host.arrival(), id).await;
        let Some(session) = opened.session else { return Err(opened.handled.response.status) };
        assert_eq!(opened.handled.response.status, 101);
        let (own, other) = tokio::io::duplex(4096);
        let host = Arc::clone(&self.host);
        drop(tokio::spawn(async move { session.run(own, &*host).await }));
        Ok(WebSocketStream::from_raw_socket(other, Role::Client, None).await)
    }

    async fn manage(&self, method: &str, id: &str, body: &[u8]) -> (u16, Value) {
        let path = format!("/prod/@connections/{id}");
        let request = Request::new(method, &path).with_body(body.to_vec());
        let handled = self.gateway.handle(&request, &self.host.arrival()).await;
        let body = serde_json::from_slice(&handled.response.body).unwrap_or(Value::Null);
        (handled.response.status, body)
    }

    fn events(&self, function: &str) -> Vec<Value> {
        let events = self.table.events.lock().unwrap();
        events.iter().filter(|(name, _)| name == function).map(|(_, it)| it.clone()).collect()
    }

    /// Waits for the event of `$disconnect`.
    async fn disconnected(&self) -> Value {
        loop {
            if let Some(event) = self.events("disconnect").pop() {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn handshake(target: &str) -> Request {
    Request::new("GET", target)
        .with_header("Host", "sockets.example")
        .with_header("Connection", "keep-alive, Upgrade")
        .with_header("Upgrade", "websocket")
        .with_header("Sec-WebSocket-Version", "13")
        .with_header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn none() -> Value {
    json!({})
}

async fn text(client: &mut Client) -> String {
    match client.next().await.unwrap().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Returns the status with which the server closes.
async fn closed(client: &mut Client) -> u16 {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code.into(),
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn ok() -> Value {
    json!({ "statusCode": 200 })
}

#[tokio::test(start_paused = true)]
async fn a_connection_begins_has_messages_and_ends() {
    let answer = json!({ "statusCode": 200, "body": "heard" });
    let bed = Bed::new(
        &[("connect", ok(), 0), ("say", answer, 0), ("default", ok(), 0), ("disconnect", ok(), 0)],
        &[
            ("$connect", none()),
            ("$disconnect", none()),
            ("$default", none()),
            ("say", json!({ "route_response": true })),
        ],
        json!({ "stages": [{ "name": "prod", "variables": { "v": "1" },
            "access_log": "$context.routeKey $context.eventType $context.status" }] }),
    );
    let mut client = bed.open("one", &[("X-Own", "yes")]).await.unwrap();
    client.send(Message::text(r#"{"action":"say","n":1}"#)).await.unwrap();
    assert_eq!(text(&mut client).await, "heard");
    client.send(Message::text("no JSON")).await.unwrap();
    client.send(Message::text(r#"{"action":"$disconnect"}"#)).await.unwrap();
    client.close(None).await.unwrap();
    let end = bed.disconnected().await;

    let begin = bed.events("connect").pop().unwrap();
    assert_eq!(begin["headers"]["X-Own"], "yes");
    assert_eq!(begin["multiValueHeaders"]["Host"], json!(["sockets.example"]));
    assert_eq!(begin["queryStringParameters"], json!({ "key": "1" }));
    assert_eq!((&begin["isBase64Encoded"], begin.get("body")), (&json!(false), None));
    let context = &begin["requestContext"];
    let expected = json!({ "routeKey": "$connect", "eventType": "CONNECT", "stage": "prod",
        "messageDirection": "IN", "connectionId": "one", "apiId": "sockets",
        "domainName": "sockets.example", "identity": { "sourceIp": "192.0.2.9" } });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&context[name], value, "{name}");
    }
    let said = bed.events("say").pop().unwrap();
    assert_eq!(said["body"], r#"{"action":"say","n":1}"#);
    assert_eq!((said.get("headers"), &said["stageVariables"]["v"]), (None, &json!("1")));
    let own = &said["requestContext"];
    assert_eq!((&own["routeKey"], &own["eventType"]), (&json!("say"), &json!("MESSAGE")));
    assert_eq!((&own["connectionId"], &own["connectedAt"]), (&json!("one"), &json!(0)));
    assert_ne!(own["messageId"], own["requestId"]);
    assert_eq!(bed.events("default").len(), 2);
    let context = &end["requestContext"];
    assert_eq!(
        (&context["routeKey"], &context["disconnectStatusCode"]),
        (&json!("$disconnect"), &json!(1005))
    );
    assert_eq!(context["disconnectReason"], "Client-side close frame status not set");
    assert_eq!(bed.events("disconnect").len(), 1);
    assert_eq!(bed.manage("GET", "one", b"").await.0, 410);
    let mut lines = bed.host.lines.lock().unwrap().clone();
    lines.sort();
    let expected = [
        "$default MESSAGE 200",
        "$default MESSAGE 200",
        "$disconnect DISCONNECT 200",
        "say MESSAGE 200",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test(start_paused = true)]
async fn a_function_or_an_authorizer_may_refuse_a_connection() {
    let refusing = [("connect", json!({ "statusCode": 403 }), 0)];
    let bed = Bed::new(&refusing, &[("$connect", none())], none());
    assert_eq!(bed.open("a", &[]).await.unwrap_err(), 403);
    let bed = Bed::new(
        &[("connect", json!({ "errorMessage": "no" }), 0)],
        &[("$connect", none())],
        none(),
    );
    assert_eq!(bed.open("a", &[]).await.unwrap_err(), 502);
    assert_eq!(bed.manage("POST", "a", b"x").await.0, 410);

    let policy = |effect: &str| {
        json!({ "principalId": "me", "context": { "n": 1 }, "policyDocument": { "Statement": [
        { "Effect": effect, "Action": "execute-api:Invoke",
          "Resource": "arn:aws:execute-api:us-east-1:123456789012:sockets/prod/$connect" }] } })
    };
    for (effect, expected) in [("Allow", Ok(())), ("Deny", Err(403))] {
        let bed = Bed::new(
            &[("check", policy(effect), 0), ("connect", ok(), 0)],
            &[("$connect", json!({ "authorizer": "a" }))],
            json!({ "authorizers": { "a": { "kind": "request", "function": "check",
                "identity_sources": ["$request.querystring.key"] } } }),
        );
        assert_eq!(bed.open("a", &[]).await.map(drop), expected);
        let asked = bed.events("check").pop().unwrap();
        assert_eq!(asked["type"], "REQUEST");
        assert!(
            asked["methodArn"].as_str().unwrap().ends_with(":sockets/prod/$connect"),
            "{asked}"
        );
        if expected.is_ok() {
            let begin = bed.events("connect").pop().unwrap();
            let shown = &begin["requestContext"]["authorizer"];
            assert_eq!(shown, &json!({ "principalId": "me", "n": "1" }));
        }
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let bed = Bed::new(&[], &[("$default", none())], none());
    let (mut post, mut http2) = (handshake("/prod"), handshake("/prod"));
    post.method = "POST".to_owned();
    http2.protocol = "HTTP/2.0".to_owned();
    for (request, expected) in [
        (handshake("/prod/more"), 403),
        (handshake("/dev"), 403),
        (post, 400),
        (http2, 400),
        (Request::new("GET", "/prod").with_header("upgrade", "websocket"), 400),
    ] {
        assert!(bed.gateway.opens(&request), "{request:?}");
        let opened = bed.gateway.open(&request, &bed.host.arrival(), "a").await;
        assert_eq!(opened.handled.response.status, expected, "{request:?}");
        assert!(opened.session.is_none());
    }
    let plain = Request::new("GET", "/prod");
    assert!(!bed.gateway.opens(&plain));
    assert_eq!(bed.gateway.handle(&plain, &bed.host.arrival()).await.response.status, 403);
    let opened = bed.gateway.open(&handshake("/prod"), &bed.host.arrival(), "a").await;
    // The sample of RFC 6455, section 1.3.
    let accept = opened.handled.response.header("sec-websocket-accept").unwrap().to_owned();
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test(start_paused = true)]
async fn functions_reach_clients_by_the_connections_identifier() {
    let answers = [("disconnect", ok(), 0)];
    let bed = Bed::new(&answers, &[("$disconnect", none())], none());
    let offered = [("User-Agent", "tests"), ("Sec-WebSocket-Protocol", "a, b")];
    let mut client = bed.open("one", &offered).await.unwrap();
    assert_eq!(bed.manage("POST", "one", "é".as_bytes()).await.0, 200);
    assert_eq!(text(&mut client).await, "é");
    let (status, seen) = bed.manage("GET", "one", b"").await;
    assert_eq!(status, 200);
    assert_eq!(seen["identity"], json!({ "sourceIp": "192.0.2.9", "userAgent": "tests" }));
    assert_eq!(seen["connectedAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(bed.manage("POST", "one", &[0xff]).await.0, 400);
    assert_eq!(bed.manage("POST", "one", &vec![b'x'; (128 << 10) + 1]).await.0, 413);
    assert_eq!(bed.manage("POST", "other", b"x").await.0, 410);
    assert_eq!(bed.manage("PUT", "one", b"x").await.0, 403);
    // No route takes a message.
    client.send(Message::text("x")).await.unwrap();
    let told: Value = serde_json::from_str(&text(&mut client).await).unwrap();
    assert_eq!((&told["message"], &told["connectionId"]), (&json!("Forbidden"), &json!("one")));
    assert_eq!(bed.manage("DELETE", "one", b"").await.0, 204);
    assert_eq!(closed(&mut client).await, 1000);
    assert_eq!(bed.disconnected().await["requestContext"]["disconnectStatusCode"], 1000);
}

#[tokio::test(start_paused = true)]
async fn limits_end_a_connection() {
    let answers = [("disconnect", ok(), 0), ("default", ok(), 0)];
    let bed = || Bed::new(&answers, &[("$disconnect", none()), ("$default", none())], none());
    for (message, status) in
        [(Message::binary(vec![1, 2]), 1003), (Message::text("x".repeat((32 << 10) + 1)), 1009)]
    {
        let bed = bed();
        let mut client = bed.open("one", &[]).await.unwrap();
        // The server may close before all is written.
        drop(client.send(message).await);
        assert_eq!(bed.disconnected().await["requestContext"]["disconnectStatusCode"], status);
    }
    let bed = bed();
    let mut client = bed.open("one", &[]).await.unwrap();
    client.send(Message::text("x".repeat(32 << 10))).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(closed(&mut client).await, 1001);
    assert_eq!(start.elapsed().as_secs(), 600);
    let event = bed.disconnected().await;
    assert_eq!(event["requestContext"]["disconnectReason"], "Going away");
    assert_eq!(bed.events("default").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hours_end_a_busy_connection() {
    let bed = Bed::new(&[("disconnect", ok(), 0)], &[("$disconnect", none())], none());
    let client = bed.open("one", &[]).await.unwrap();
    let (mut sink, mut stream) = client.split();
    let pings = tokio::spawn(async move {
        while sink.send(Message::Ping(Default::default())).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(300)).await;
        }
    });
    let start = tokio::time::Instant::now();
    while let Some(Ok(Message::Pong(_))) = stream.next().await {}
    assert_eq!(start.elapsed().as_secs(), 7200);
    drop(stream);
    assert_eq!(bed.disconnected().await["requestContext"]["disconnectStatusCode"], 1001);
    pings.abort();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_refused_messages_and_closed() {
    let bed = Bed::new(&[("disconnect", ok(), 0)], &[("$disconnect", none())], none());
    let client = bed.open("one", &[]).await.unwrap();
    let message = vec![b'x'; 60 << 10];
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(bed.manage("POST", "one", &message).await.0);
        tokio::task::yield_now().await;
    }
    assert_eq!((statuses[0], *statuses.last().unwrap()), (200, 429), "{statuses:?}");
    let start = tokio::time::Instant::now();
    let event = bed.disconnected().await;
    assert_eq!(event["requestContext"]["disconnectReason"], "The client reads too slowly");
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn four_messages_of_a_client_are_with_functions_at_once() {
    let answers = [("default", json!({ "statusCode": 200, "body": "done" }), 1000)];
    let bed = Bed::new(&answers, &[("$default", json!({ "route_response": true }))], none());
    let mut client = bed.open("one", &[]).await.unwrap();
    for _ in 0..6 {
        client.send(Message::text("x")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bed.events("default").len(), 4);
    for _ in 0..6 {
        assert_eq!(text(&mut client).await, "done");
    }
    // Messages that came before the end are handled.
    client.send(Message::text("x")).await.unwrap();
    client.close(None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bed.events("default").len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_broken_frame_and_a_lost_client_end_a_connection() {
    for (bytes, status) in [(&b"\xff\x80\0\0\0\0"[..], 1002), (b"", 1006)] {
        let bed = Bed::new(&[("disconnect", ok(), 0)], &[("$disconnect", none())], none());
        let client = bed.open("one", &[]).await.unwrap();
        let mut stream = client.into_inner();
        stream.write_all(bytes).await.unwrap();
        if !bytes.is_empty() {
            let mut first = [0; 4];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!((first[0], u16::from_be_bytes([first[2], first[3]])), (0x88, status));
        }
        drop(stream);
        assert_eq!(bed.disconnected().await["requestContext"]["disconnectStatusCode"], status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_ends_its_connections() {
    let bed = Bed::new(&[("disconnect", ok(), 100)], &[("$disconnect", none())], none());
    let mut client = bed.open("one", &[]).await.unwrap();
    let ending = tokio::spawn({
        let gateway = Arc::clone(&bed.gateway);
        async move { gateway.end_connections().await }
    });
    assert_eq!(closed(&mut client).await, 1001);
    drop(client.next().await);
    ending.await.unwrap();
    assert_eq!(bed.events("disconnect").len(), 1, "told before the end");
    assert_eq!(bed.open("two", &[]).await.unwrap_err(), 429);
}

#[test]
fn definitions_that_mean_nothing_are_refused() {
    let check = |api: Value, expected: &str| {
        let mut own =
            json!({ "kind": "websocket", "routes": [{ "route": "$default", "function": "f" }] });
        own.as_object_mut().unwrap().extend(api.as_object().unwrap().clone());
        let error = Definition::from_json(&json!({ "apis": [own] }).to_string()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(json!({ "route_selection": "$request.header.x" }), "is not supported");
    check(json!({ "routes": [{ "route": "$other", "function": "f" }] }), "is no key");
    let two = json!({ "route": "a", "function": "f" });
    check(json!({ "routes": [two, two] }), "two routes are `a`");
    check(json!({ "stages": [{ "name": "$default" }] }), "is no name of a stage");
    check(json!({ "cors": {} }), "CORS of a WebSocket API");
    let asks = json!({ "route": "a", "function": "f", "authorizer": "x" });
    check(
        json!({ "routes": [asks], "authorizers": { "x": { "kind": "request", "function": "f" } } }),
        "which only `$connect` may",
    );
    check(
        json!({ "authorizers": { "x": { "kind": "jwt", "issuer": "https://i", "audience": ["a"] } } }),
        "is not supported",
    );
    check(json!({ "kind": "http", "route_selection": "$request.body.a" }), "only a WebSocket API");
}
