#![no_main]
//! A raw request, its event, and the function's answer: no input makes a front door panic.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};

use lambda_gateway::{
    Answer, Arrival, Call, Definition, Document, Documents, Fetching, Functions, Gateway, Invoking,
    Request,
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug)]
struct Fixed(Vec<u8>);

impl Functions for Fixed {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event: serde_json::Value = serde_json::from_slice(&call.payload).unwrap();
        assert!(event.is_object());
        Box::pin(std::future::ready(Ok(Answer::new(self.0.clone(), false))))
    }
}

const FILE: &str = r#"{"apis": [
    {"kind": "rest", "base_path": "/r", "binary_media_types": ["image/*"], "routes": [{"route": "ANY /{proxy+}", "function": "f"}]},
    {"kind": "http", "base_path": "/h", "cors": {"allow_origins": ["https://*"]}, "routes": [
        {"route": "$default", "function": "f"}, {"route": "GET /a/{b}", "function": "f", "payload": "1.0"}]},
    {"kind": "http", "base_path": "/t", "authorizers": {"login": {"kind": "jwt", "issuer": "https://i", "audience": ["a"]}},
        "routes": [{"route": "$default", "function": "f", "authorizer": "login", "scopes": ["s"]}]},
    {"kind": "websocket", "base_path": "/w", "routes": [{"route": "$connect", "function": "f"}, {"route": "$default", "function": "f"}]},
    {"kind": "url", "routes": [{"route": "$default", "function": "f"}]}
]}"#;

static DEFINITION: LazyLock<Definition> =
    LazyLock::new(|| Definition::from_json(FILE).unwrap());

/// An issuer of tokens, whose keys are a part of the input.
#[derive(Debug)]
struct Issuer(Vec<u8>);

impl Documents for Issuer {
    fn fetch(&self, document: Document) -> Fetching<'_> {
        let discovery = br#"{"issuer": "https://i", "jwks_uri": "https://i/keys"}"#;
        let found = match document.url.as_str() {
            "https://i/keys" => self.0.clone(),
            _ => discovery.to_vec(),
        };
        Box::pin(std::future::ready(Ok(found.into())))
    }
}

// The input: a head of lines, an empty line, the body, a zero byte, the answer. The body is
// also the document of the keys of an issuer.
fuzz_target!(|data: &[u8]| {
    let (request, answer) = match data.iter().position(|it| *it == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[..0]),
    };
    let end = request.windows(2).position(|it| it == b"\n\n");
    let (head, body) = end.map_or((request, &[][..]), |at| (&request[..at], &request[at + 2..]));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().splitn(2, ' ');
    let (method, target) = (first.next().unwrap_or("GET"), first.next().unwrap_or("/"));
    let mut request = Request::new(method, target).with_body(body.to_vec());
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        request = request.with_header(name, value);
    }
    let gateway = Gateway::new(DEFINITION.clone(), Arc::new(Fixed(answer.to_vec())));
    let gateway = Arc::new(gateway.with_documents(Arc::new(Issuer(body.to_vec()))));
    let arrival = Arrival::new(0, [127, 0, 0, 1].into(), "an-id");
    let answer = async {
        match gateway.opens(&request) {
            true => gateway.open(&request, &arrival, "a-connection").await.handled.response.into_http(),
            false => gateway.handle(&request, &arrival).await.response.into_http(),
        }
    };
    let mut future = pin!(answer);
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
});
