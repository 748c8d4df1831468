//! No request, answer or definition makes a front door panic, and what it answers can stand in an
//! HTTP message.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lambda_gateway::{
    Answer, Arrival, Call, Definition, Functions, Gateway, Invoking, Pattern, Request,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A function that answers with fixed bytes, and looks whether events are JSON.
#[derive(Debug)]
struct Fixed(Vec<u8>);

impl Functions for Fixed {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event: Value = serde_json::from_slice(&call.payload).expect("an event is JSON");
        assert!(event.is_object());
        Box::pin(std::future::ready(Ok(Answer::new(self.0.clone(), false))))
    }
}

fn definition() -> Definition {
    let authorizer = json!({ "a": { "kind": "request", "function": "f", "cache_seconds": 1,
        "identity_sources": ["$request.header.a", "$request.querystring.a"] } });
    let stages =
        json!([{ "name": "s", "access_log": "$context.path $context.identity.userAgent" }]);
    let file = json!({ "apis": [
        { "kind": "rest", "base_path": "/rest", "stages": stages, "binary_media_types": ["image/*"],
          "routes": [{ "route": "ANY /{proxy+}", "function": "f" }, { "route": "GET /a/{b}", "function": "f" }] },
        { "kind": "http", "base_path": "/http", "authorizers": authorizer, "cors": { "allow_origins": ["https://*"] },
          "routes": [{ "route": "$default", "function": "f" }, { "route": "GET /a/{b}", "function": "f", "payload": "1.0" },
              { "route": "GET /auth", "function": "f", "authorizer": "a" }] },
        { "kind": "url", "routes": [{ "route": "$default", "function": "f" }] },
    ] });
    Definition::from_json(&file.to_string()).expect("the definition is sound")
}

/// Answers that are nearly of some form, so that more than their first check is reached.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!(200)),
        Just(json!("301")),
    ];
    let value = scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z\\-]{1,8}", inner, 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    });
    let names = prop::sample::select(vec![
        "statusCode",
        "headers",
        "multiValueHeaders",
        "cookies",
        "body",
        "isBase64Encoded",
        "isAuthorized",
        "principalId",
        "policyDocument",
        "context",
    ]);
    let object = prop::collection::hash_map(names, value, 0..7).prop_map(|it| {
        let members = it.into_iter().map(|(name, value)| (name.to_owned(), value));
        Value::Object(members.collect()).to_string().into_bytes()
    });
    prop_oneof![4 => object, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #[test]
    fn every_request_has_a_response(
        method in prop::sample::select(vec!["GET", "POST", "OPTIONS", "X"]),
        front in prop::sample::select(vec!["/rest/s", "/rest", "/http", "/http/auth", "/http/a", ""]),
        path in "(/[^ ?\r\n]{0,8}){0,4}",
        query in "[^ \r\n]{0,24}",
        headers in prop::collection::vec(
            (prop::sample::select(vec!["a", "Host", "Cookie", "Content-Type", "Accept", "Origin", "X-Forwarded-For",
                "Access-Control-Request-Method", "Content-Encoding"]), "[^\r\n\0]{0,24}"), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..64),
        answer in answers(),
        unix_ms in any::<u64>(),
    ) {
        let gateway = Gateway::new(definition(), Arc::new(Fixed(answer)));
        let mut request = Request::new(method, &format!("{front}{path}?{query}")).with_body(Bytes::from(body));
        for (name, value) in headers {
            request = request.with_header(name, &value);
        }
        let arrival = Arrival::new(unix_ms / 4, [127, 0, 0, 1].into(), "an-id");
        let mut future = pin!(gateway.handle(&request, &arrival));
        let Poll::Ready(handled) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the functions answer at once");
        };
        let count = handled.response.headers.len();
        prop_assert!((200..600).contains(&handled.response.status));
        if let Some(log) = handled.log {
            prop_assert!(!log.line(unix_ms).contains(['\n', '\r']));
        }
        prop_assert_eq!(handled.response.into_http().headers().len(), count);
    }

    #[test]
    fn every_definition_is_read_or_refused(text in "\\PC{0,64}") {
        drop(Definition::from_json(&text));
        #[cfg(feature = "yaml")]
        drop(Definition::from_yaml(&text));
        drop(Pattern::parse(&text));
    }

    #[test]
    fn a_pattern_covers_the_path_that_is_made_of_it(names in prop::collection::vec("[a-z]{1,6}", 1..5), greedy in any::<bool>()) {
        let mut text = String::new();
        for (at, name) in names.iter().enumerate() {
            text += &if at % 2 == 0 { format!("/{name}") } else { format!("/{{p{at}}}") };
        }
        if greedy {
            text += "/{rest+}";
        }
        let path = format!("/{}{}", names.join("/"), if greedy { "/x/y" } else { "" });
        let pattern = Pattern::parse(&text).expect("the pattern is sound");
        let found = pattern.matches(&path).expect("the path is covered");
        prop_assert_eq!(found.len(), names.len() / 2 + usize::from(greedy));
    }
}
