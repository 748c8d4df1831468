//! The service as a server uses it: routes, CORS, rates, authorizers and access logs before
//! functions of the test.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use lambda_gateway::{
    Answer, Arrival, Call, Definition, Functions, Gateway, Handled, InvokeError, Invoking, Kind,
    Request,
};
use serde_json::{Value, json};

/// Functions that answer from a table, and the events that they got.
#[derive(Debug, Default)]
struct Table {
    answers: BTreeMap<&'static str, Result<Answer, InvokeError>>,
    events: Mutex<Vec<(String, Value)>>,
}

impl Functions for Table {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let event = serde_json::from_slice(&call.payload).unwrap();
        self.events.lock().unwrap().push((call.function.clone(), event));
        let known = self.answers.get(call.function.as_str()).cloned();
        Box::pin(std::future::ready(known.unwrap_or(Err(InvokeError::Unavailable))))
    }
}

fn answers(of: &[(&'static str, Value)]) -> Table {
    let answer = |value: &Value| match value.get("errorMessage") {
        Some(_) => Ok(Answer::new(value.to_string(), true)),
        None => Ok(Answer::new(value.to_string(), false)),
    };
    let answers = of.iter().map(|(name, value)| (*name, answer(value))).collect();
    Table { answers, events: Mutex::default() }
}

fn gateway(table: Table, api: Value) -> (Gateway, Arc<Table>) {
    let table = Arc::new(table);
    let definition = Definition::from_json(&json!({ "apis": [api] }).to_string()).unwrap();
    (Gateway::new(definition, Arc::clone(&table) as Arc<dyn Functions>), table)
}

fn handle(gateway: &Gateway, unix_ms: u64, request: &Request) -> Handled {
    let arrival = Arrival::new(unix_ms, [192, 0, 2, 9].into(), "8d7b7c31-request");
    // The functions of these tests answer at once.
    let mut future = pin!(gateway.handle(request, &arrival));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(handled) => handled,
        Poll::Pending => panic!("the future waits"),
    }
}

fn status(gateway: &Gateway, unix_ms: u64, request: &Request) -> u16 {
    handle(gateway, unix_ms, request).response.status
}

#[test]
fn a_simple_answer_of_an_authorizer_is_kept_and_shown_to_the_function() {
    let table = answers(&[
        ("check", json!({ "isAuthorized": true, "context": { "user": "me" } })),
        ("pets", json!({ "statusCode": 200 })),
    ]);
    let (gateway, table) = gateway(
        table,
        json!({ "kind": "http", "authorizers": { "a": { "kind": "request", "function": "check",
            "identity_sources": ["$request.header.Authorization"], "cache_seconds": 2 } },
            "routes": [{ "route": "GET /pets", "function": "pets", "authorizer": "a" }] }),
    );
    let request = Request::new("GET", "/pets");
    assert_eq!(status(&gateway, 0, &request), 401);
    let request = request.with_header("authorization", "key");
    for at in [0, 1999, 2000] {
        assert_eq!(status(&gateway, at, &request), 200);
    }
    let events = table.events.lock().unwrap();
    let asked: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(asked, ["check", "pets", "pets", "check", "pets"]);
    assert_eq!(events[0].1["identitySource"], json!(["key"]));
    assert_eq!(events[0].1["type"], "REQUEST");
    assert_eq!(events[1].1["requestContext"]["authorizer"], json!({ "lambda": { "user": "me" } }));
}

#[test]
fn a_policy_is_kept_once_and_evaluated_for_each_request() {
    let policy = json!({ "Statement": [
        { "Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "arn:aws:execute-api:us-east-1:123456789012:a/prod/GET/*" },
        { "Effect": "Deny", "Action": "execute-api:Invoke", "Resource": "*/secret" }] });
    let table = answers(&[
        ("check", json!({ "principalId": "me", "policyDocument": policy, "context": { "n": 1 } })),
        ("pets", json!({ "statusCode": 200 })),
    ]);
    let (gateway, table) = gateway(
        table,
        json!({ "kind": "rest", "id": "a",
            "authorizers": { "a": { "kind": "token", "function": "check", "cache_seconds": 300 } },
            "routes": [{ "route": "ANY /{proxy+}", "function": "pets", "authorizer": "a" }] }),
    );
    let ask = |method: &str, path: &str| {
        let request = Request::new(method, path).with_header("Authorization", "token");
        let response = handle(&gateway, 5, &request).response;
        (response.status, String::from_utf8_lossy(&response.body).into_owned())
    };
    assert_eq!(ask("GET", "/prod/x").0, 200);
    let denied =
        "{\"Message\":\"User is not authorized to access this resource with an explicit deny\"}";
    assert_eq!(ask("GET", "/prod/secret"), (403, denied.to_owned()));
    let other = "{\"Message\":\"User is not authorized to access this resource\"}";
    assert_eq!(ask("PUT", "/prod/x"), (403, other.to_owned()));
    let events = table.events.lock().unwrap();
    assert_eq!(events.iter().filter(|(name, _)| name == "check").count(), 1);
    let arn = "arn:aws:execute-api:us-east-1:123456789012:a/prod/GET/x";
    let expected = json!({ "type": "TOKEN", "methodArn": arn, "authorizationToken": "token" });
    assert_eq!(events[0].1, expected);
    let context = &events[1].1["requestContext"]["authorizer"];
    assert_eq!(*context, json!({ "principalId": "me", "n": "1" }));
}

#[test]
fn authorizers_that_fail_let_nobody_pass() {
    for (answer, expected) in [
        (json!({ "errorMessage": "Unauthorized" }), 401),
        (json!({ "errorMessage": "broken" }), 500),
        (json!("yes"), 500),
        (json!({ "isAuthorized": false }), 403),
    ] {
        let table = answers(&[("check", answer), ("f", json!({ "statusCode": 200 }))]);
        let (gateway, table) = gateway(
            table,
            json!({ "kind": "http", "authorizers": { "a": { "kind": "request", "function": "check" } },
                "routes": [{ "route": "$default", "function": "f", "authorizer": "a" }] }),
        );
        assert_eq!(status(&gateway, 0, &Request::new("GET", "/")), expected);
        assert!(table.events.lock().unwrap().iter().all(|(name, _)| name == "check"));
    }
}

#[test]
fn a_route_has_its_rate() {
    let (gateway, _) = gateway(
        answers(&[("f", json!({ "statusCode": 200 }))]),
        json!({ "kind": "http", "stages": [{ "name": "$default", "throttle": { "rate": 1000, "burst": 1000 } }],
            "routes": [{ "route": "GET /slow", "function": "f", "throttle": { "rate": 1, "burst": 2 } },
                { "route": "$default", "function": "f" }] }),
    );
    let slow = Request::new("GET", "/slow");
    let statuses = [0, 0, 0, 999, 1000].map(|at| status(&gateway, at, &slow));
    assert_eq!(statuses, [200, 200, 429, 429, 200]);
    assert_eq!(status(&gateway, 0, &Request::new("GET", "/")), 200);
}

#[test]
fn failures_have_the_form_of_their_front_door() {
    let check = |kind: &str, error: InvokeError, expected: (u16, &str)| {
        let mut table = Table::default();
        table.answers.insert("f", Err(error));
        let (path, route) = if kind == "rest" { ("/prod/x", "GET /x") } else { ("/x", "$default") };
        let api = json!({ "kind": kind, "routes": [{ "route": route, "function": "f" }] });
        let (gateway, _) = gateway(table, api);
        let response = handle(&gateway, 0, &Request::new("GET", path)).response;
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!((response.status, body.as_str()), expected, "{kind} {error}");
    };
    check("rest", InvokeError::TimedOut, (504, "{\"message\":\"Endpoint request timed out\"}"));
    check("http", InvokeError::TimedOut, (503, "{\"message\":\"Service Unavailable\"}"));
    check("url", InvokeError::TimedOut, (502, "Internal Server Error"));
    check("rest", InvokeError::Unavailable, (500, "{\"message\":\"Internal server error\"}"));
    check("http", InvokeError::TooLarge, (413, "{\"message\":\"Request Entity Too Large\"}"));
    check("url", InvokeError::Throttled, (429, "{\"Message\":\"Rate Exceeded.\"}"));
}

#[test]
fn bodies_over_the_limit_reach_no_function() {
    let table = answers(&[("f", json!({ "statusCode": 200 }))]);
    let api = json!({ "kind": "http", "routes": [{ "route": "$default", "function": "f" }] });
    let (gateway, table) = gateway(table, api);
    let request = Request::new("POST", "/");
    assert_eq!(gateway.body_bytes_max(&request), 10 << 20);
    let large = request.with_body(vec![0; (10 << 20) + 1]);
    assert_eq!(status(&gateway, 0, &large), 413);
    assert!(table.events.lock().unwrap().is_empty());
}

#[test]
fn front_doors_are_chosen_by_domain_and_base_path() {
    let route = json!([{ "route": "$default", "function": "f" }]);
    let api = |id: &str, domain: Value, base: &str| json!({ "kind": "http", "id": id, "domain": domain, "base_path": base, "routes": route });
    let file = json!({ "apis": [
        api("any", Value::Null, ""),
        api("base", Value::Null, "/v1"),
        api("named", json!("a.example"), ""),
        api("both", json!("a.example"), "/v1"),
    ] });
    let definition = Definition::from_json(&file.to_string()).unwrap();
    let gateway = Gateway::new(definition, Arc::new(Table::default()));
    let found = |host: &str, path: &str| {
        gateway.api(&Request::new("GET", path).with_header("Host", host)).unwrap().id.clone()
    };
    assert_eq!(found("x", "/"), "any");
    assert_eq!(found("x", "/v1/a"), "base");
    assert_eq!(found("x", "/v10"), "any");
    assert_eq!(found("A.example:8080", "/"), "named");
    assert_eq!(found("a.example", "/v1"), "both");
}

#[test]
fn stage_variables_choose_the_function_and_access_logs_have_their_line() {
    let format = "$context.requestId $context.stage $context.routeKey $context.status $context.responseLength $context.responseLatency";
    let (gateway, table) = gateway(
        answers(&[("f:blue", json!({ "statusCode": 200, "body": "four" }))]),
        json!({ "kind": "http", "stages": [{ "name": "dev", "variables": { "color": "blue" }, "access_log": format }],
            "routes": [{ "route": "GET /a", "function": "f:${stageVariables.color}" }] }),
    );
    let handled = handle(&gateway, 1000, &Request::new("GET", "/dev/a"));
    assert_eq!(handled.response.status, 200);
    assert_eq!(handled.log.unwrap().line(1007), "8d7b7c31-request dev GET /a 200 4 7");
    let event = &table.events.lock().unwrap()[0].1;
    assert_eq!(event["stageVariables"], json!({ "color": "blue" }));
    assert_eq!(event["rawPath"], "/dev/a");
    assert_eq!(status(&gateway, 0, &Request::new("GET", "/a")), 404);
}

#[test]
fn payload_1_0_of_an_http_api() {
    let (gateway, table) = gateway(
        answers(&[("f", json!({ "statusCode": 200, "multiValueHeaders": { "X": ["1", "2"] } }))]),
        json!({ "kind": "http", "routes": [{ "route": "GET /a/{b}", "function": "f", "payload": "1.0" }] }),
    );
    let request = Request::new("GET", "/a/x%20y?q=1&q=2").with_header("X-A", "1");
    let response = handle(&gateway, 0, &request.with_header("X-A", "2")).response;
    assert_eq!(response.headers[..2], [("X".into(), "1".into()), ("X".into(), "2".into())]);
    let event = &table.events.lock().unwrap()[0].1;
    assert_eq!(event["version"], "1.0");
    assert_eq!((&event["path"], &event["resource"]), (&json!("/a/x%20y"), &json!("/a/{b}")));
    assert_eq!(event["pathParameters"], json!({ "b": "x y" }));
    assert_eq!(event["headers"]["X-A"], "2");
    assert_eq!(event["multiValueHeaders"]["X-A"], json!(["1", "2"]));
    assert_eq!(event["multiValueQueryStringParameters"], json!({ "q": ["1", "2"] }));
}

#[test]
fn faults_of_definitions_name_their_place() {
    let check = |api: Value, expected: &str| {
        let text = json!({ "apis": [api] }).to_string();
        let error = Definition::from_json(&text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    let with = |route: Value| json!({ "kind": "rest", "routes": [route] });
    check(
        with(json!({ "route": "GET a", "function": "f" })),
        "apis[0]: routes[0]: a: does not begin",
    );
    check(
        with(json!({ "route": "$default", "function": "f" })),
        "api api0000000: a REST API has no",
    );
    check(with(json!({ "route": "GET /", "function": 1 })), "apis[0].routes[0].function");
    check(
        with(json!({ "route": "GET /", "function": "f", "authorizer": "x" })),
        "api api0000000: route `GET /`",
    );
    check(
        with(json!({ "route": "GET /", "function": "f", "timeout_seconds": 901 })),
        "apis[0]: routes[0]: timeout",
    );
    check(json!({ "kind": "rest", "routes": [], "colour": 1 }), "apis[0].colour");
    assert!(Definition::from_json("{").is_err());
    assert!(Definition::from_openapi("{}", Kind::Http).is_err());
}
