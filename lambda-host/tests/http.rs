//! The HTTP front end with clients that send wrong requests, hold connections, or go away. Tests
//! with correct clients, the real `aws` command and boto3, are in `examples/faas-host/tests`.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use lambda_host::{Host, http};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn host() -> Host {
    let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
    Host::builder(Arc::new(backend)).start().await.unwrap()
}

async fn serve() -> SocketAddr {
    serve_host(host().await).await
}

async fn serve_host(host: Host) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(http::serve(host, listener, std::future::pending())));
    address
}

/// Sends bytes, closes the sending side, and returns the whole answer.
async fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Writing fails if the server has already answered and closed.
    stream.write_all(bytes).await.unwrap_or_default();
    stream.shutdown().await.unwrap_or_default();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    send(address, format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).await
}

#[tokio::test]
async fn wrong_requests_get_an_answer_that_says_so() {
    let address = serve().await;
    let functions = "/2015-03-31/functions";
    let invoke = format!("{functions}/f/invocations");
    for (method, path, body, status, kind) in [
        ("GET", "/", "", 404, "UnknownOperationException"),
        ("PATCH", functions, "", 404, "UnknownOperationException"),
        ("GET", "/2015-03-31/functions/f/g/h", "", 404, "UnknownOperationException"),
        ("GET", "/2015-03-31/functions/%ff%fe", "", 400, "ValidationException"),
        ("GET", "/2015-03-31/functions/a%2F..%2Fb", "", 400, "ValidationException"),
        ("GET", "/2015-03-31/functions/missing", "", 404, "ResourceNotFoundException"),
        ("GET", "/2015-03-31/functions?MaxItems=x", "", 400, "SerializationException"),
        ("POST", functions, "", 400, "InvalidRequestContentException"),
        ("POST", functions, "{", 400, "InvalidRequestContentException"),
        ("POST", functions, "[]", 400, "InvalidRequestContentException"),
        ("POST", functions, r#"{"FunctionName":7}"#, 400, "InvalidRequestContentException"),
        (
            "POST",
            functions,
            r#"{"FunctionName":"g","Runtime":"provided.al2023","Handler":"x","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"!"}}"#,
            400,
            "InvalidRequestContentException",
        ),
        (
            "POST",
            functions,
            r#"{"FunctionName":"g","Runtime":"provided.al2023","Handler":"x","Role":"arn:aws:iam::123456789012:role/r","Code":{}}"#,
            400,
            "InvalidParameterValueException",
        ),
        ("POST", &invoke, "{}", 404, "ResourceNotFoundException"),
    ] {
        let answer = call(address, method, path, body).await;
        let wanted = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&wanted), "{method} {path} {body}: {answer}");
        assert!(answer.contains(&format!("x-amzn-errortype: {kind}\r\n")), "{path}: {answer}");
        assert!(answer.contains("x-amzn-requestid: "), "{answer}");
    }
}

/// Calls an action of CloudWatch Logs until its answer has `count` lines, for 10 s at most.
async fn logs(
    address: SocketAddr,
    action: &str,
    input: &serde_json::Value,
    count: usize,
) -> serde_json::Value {
    let body = input.to_string();
    let target = format!("x-amz-target: Logs_20140328.{action}\r\ncontent-length: {}", body.len());
    let request =
        format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{target}\r\n\r\n{body}");
    for _ in 0..200 {
        let answer = send(address, request.as_bytes()).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer: serde_json::Value = serde_json::from_str(body).unwrap();
        if answer["events"].as_array().is_some_and(|it| it.len() >= count) || count == 0 {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no {count} lines of {action} {input}");
}

fn messages(answer: &serde_json::Value) -> Vec<&str> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| event["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn logs_are_read_in_pages_as_cloudwatch_has_them() {
    let host = host().await;
    let address = serve_host(host.clone()).await;
    let group = "/aws/lambda/f";
    let missing = logs(address, "FilterLogEvents", &json!({ "logGroupName": group }), 0).await;
    assert_eq!(missing["__type"], "ResourceNotFoundException");
    host.deploy(common::config(), common::zip("1")).await.unwrap();
    for _ in 0..3 {
        let answer = call(address, "POST", "/2015-03-31/functions/f/invocations", "{}").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // The log has one line for the start of the sandbox, and three for each invocation.
    let all = logs(address, "FilterLogEvents", &json!({ "logGroupName": group }), 10).await;
    let lines = messages(&all);
    assert!(lines[0].starts_with("INIT_START "), "{lines:?}");
    for (at, start) in
        ["START RequestId: ", "END RequestId: ", "REPORT RequestId: "].iter().enumerate()
    {
        assert!(lines[1 + at].starts_with(start), "{lines:?}");
    }
    // The message of a log event ends with the line feed that the function wrote, as on AWS.
    assert!(
        lines.iter().all(|it| it.ends_with('\n') && it.matches('\n').count() == 1),
        "{lines:?}"
    );
    let stream = all["events"][0]["logStreamName"].as_str().unwrap();

    // The same lines in pages of four: forwards by both calls, and backwards.
    let mut input = json!({ "logGroupName": group, "limit": 4 });
    let mut paged = Vec::new();
    loop {
        let page = logs(address, "FilterLogEvents", &input, 1).await;
        paged.extend(messages(&page).into_iter().map(str::to_owned));
        let Some(next) = page.get("nextToken") else { break };
        input["nextToken"] = next.clone();
    }
    assert_eq!(paged, lines);
    let mut input = json!({ "logGroupName": group, "logStreamName": stream, "limit": 4, "startFromHead": true });
    let mut paged = Vec::new();
    loop {
        let page = logs(address, "GetLogEvents", &input, 0).await;
        paged.extend(messages(&page).into_iter().map(str::to_owned));
        if input["nextToken"] == page["nextForwardToken"] {
            break;
        }
        input["nextToken"] = page["nextForwardToken"].clone();
    }
    assert_eq!(paged, lines);
    let input = json!({ "logGroupName": group, "logStreamName": stream, "limit": 4 });
    let tail = logs(address, "GetLogEvents", &input, 4).await;
    assert_eq!(messages(&tail), lines[6..]);
    let input = json!({ "logGroupName": group, "logStreamName": stream, "limit": 4, "nextToken": tail["nextBackwardToken"] });
    assert_eq!(messages(&logs(address, "GetLogEvents", &input, 4).await), lines[2..6]);

    let reports = json!({ "logGroupName": group, "filterPattern": "REPORT -INIT_START" });
    assert_eq!(messages(&logs(address, "FilterLogEvents", &reports, 3).await).len(), 3);
    let later = json!({ "logGroupName": group, "startTime": u64::MAX });
    assert!(messages(&logs(address, "FilterLogEvents", &later, 0).await).is_empty());
    let streams = logs(address, "DescribeLogStreams", &json!({ "logGroupName": group }), 0).await;
    assert_eq!(streams["logStreams"][0]["logStreamName"], stream);
    let groups =
        logs(address, "DescribeLogGroups", &json!({ "logGroupNamePrefix": "/aws/" }), 0).await;
    assert_eq!(groups["logGroups"][0]["logGroupName"], group);
}

#[tokio::test]
async fn wrong_calls_of_the_logs_are_refused() {
    let address = serve().await;
    let group = "/aws/lambda/f";
    for (action, input) in [
        ("FilterLogEvents", json!({})),
        ("FilterLogEvents", json!({ "logGroupName": 7 })),
        ("FilterLogEvents", json!({ "logGroupName": group, "limit": 0 })),
        ("FilterLogEvents", json!({ "logGroupName": group, "filterPattern": "{ $.a = 1 }" })),
        ("GetLogEvents", json!({ "logGroupName": group })),
        (
            "GetLogEvents",
            json!({ "logGroupName": group, "logStreamName": "s", "nextToken": "x/1" }),
        ),
        ("DescribeLogStreams", json!({ "logGroupName": group, "orderBy": "size" })),
        ("DescribeLogGroups", json!({ "nextToken": "x" })),
    ] {
        let answer = logs(address, action, &input, 0).await;
        assert_eq!(answer["__type"], "InvalidParameterException", "{action} {input}");
    }
    let other = logs(address, "PutRetentionPolicy", &json!({}), 0).await;
    assert_eq!(other["__type"], "UnknownOperationException");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
    let address = serve().await;
    let path = "/2015-03-31/functions/f/invocations";
    let body = "1".repeat(6 * 1024 * 1024 + 1);
    let announced = call(address, "POST", path, &body).await;
    assert!(announced.starts_with("HTTP/1.1 413 "), "{}", &announced[..200.min(announced.len())]);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = send(address, chunked.as_bytes()).await;
    // A client that is still writing may lose the answer to a reset connection, but never gets
    // another answer.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Connections that announce a large body and do not send it leave room for other requests.
#[tokio::test]
async fn announced_bodies_that_do_not_come_keep_nobody_waiting() {
    let address = serve().await;
    let mut slow = Vec::new();
    for (count, path, length) in [
        (64, "/2015-03-31/functions", 70_000_000),
        (400, "/2015-03-31/functions/f/invocations", 6_000_000),
    ] {
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{{");
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    let body = "1".repeat(1 << 20);
    let invoked = call(address, "POST", "/2015-03-31/functions/f/invocations", &body);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(15), invoked).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

/// A changed function is reported as in progress for the set time. Meanwhile another change is
/// refused, and the function can be invoked.
#[tokio::test]
async fn a_change_is_under_way_for_its_time() {
    const TIME: std::time::Duration = std::time::Duration::from_secs(2);
    let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
    let host = Host::builder(Arc::new(backend)).with_change_time(TIME).start().await.unwrap();
    let address = serve_host(host.clone()).await;
    host.deploy(common::config(), common::zip("1")).await.unwrap();
    let get = async |path: &str| {
        let answer = call(address, "GET", &format!("/2015-03-31/functions/{path}"), "").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    };
    let update = async |body: &str| {
        call(address, "PUT", "/2015-03-31/functions/f/configuration", body).await
    };
    let made = get("f/configuration").await;
    assert_eq!((&made["State"], &made["LastUpdateStatus"]), (&json!("Pending"), &json!(null)));
    let refused = update(r#"{"Timeout":4}"#).await;
    assert!(refused.starts_with("HTTP/1.1 409") && refused.contains("state: Pending"), "{refused}");
    let answer = call(address, "POST", "/2015-03-31/functions/f/invocations", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    tokio::time::sleep(TIME).await;
    assert_eq!(get("f/configuration").await["State"], "Active");
    assert!(update(r#"{"Timeout":5}"#).await.starts_with("HTTP/1.1 200"));
    assert_eq!(get("f/configuration").await["LastUpdateStatus"], "InProgress");
    for refused in [
        update(r#"{"Timeout":6}"#).await,
        call(address, "POST", "/2015-03-31/functions/f/versions", "{}").await,
    ] {
        assert!(refused.starts_with("HTTP/1.1 409"), "{refused}");
        assert!(refused.contains("An update is in progress for resource: arn:"), "{refused}");
    }

    tokio::time::sleep(TIME).await;
    let settled = get("f/configuration").await;
    assert_eq!(
        (&settled["LastUpdateStatus"], &settled["Timeout"]),
        (&json!("Successful"), &json!(5))
    );
    let version = call(address, "POST", "/2015-03-31/functions/f/versions", "{}").await;
    assert!(version.starts_with("HTTP/1.1 201"), "{version}");
    assert_eq!(get("f/configuration?Qualifier=1").await["State"], "Active");
}

/// A runtime that AWS makes no functions of any more is refused, unless the host takes it.
#[tokio::test]
async fn a_deprecated_runtime_is_refused_by_default() {
    let body = json!({
        "FunctionName": "f", "Runtime": "provided", "Handler": "bootstrap",
        "Role": "arn:aws:iam::123456789012:role/r",
        "Code": { "ZipFile": base64(&common::zip("1")) },
    });
    for (taken, status) in [(false, "400"), (true, "201")] {
        let backend = Arc::new(FakeBackend::new());
        let host = Host::builder(backend).with_deprecated_runtimes(taken).start().await.unwrap();
        let address = serve_host(host).await;
        let answer = call(address, "POST", "/2015-03-31/functions", &body.to_string()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{taken}: {answer}");
        assert_eq!(answer.contains("no longer supported"), !taken, "{answer}");
    }
}

/// What lies in services that the host has not is not there: a bucket, a stream, a queue, a
/// network.
#[tokio::test]
async fn what_no_service_has_is_said_to_be_missing() {
    let host = host().await;
    host.deploy(common::config(), common::zip("1")).await.unwrap();
    let address = serve_host(host).await;
    let function = |more: &serde_json::Value| {
        let mut body = json!({
            "FunctionName": "g", "Runtime": "provided.al2023", "Handler": "x",
            "Role": "arn:aws:iam::123456789012:role/r",
            "Code": { "ZipFile": base64(&common::zip("1")) },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let mapping = |arn: &str| {
        let mut body = json!({ "FunctionName": "f", "EventSourceArn": arn });
        if !arn.contains(":sqs:") {
            body["StartingPosition"] = "LATEST".into();
        }
        body
    };
    let (functions, mappings) = ("/2015-03-31/functions", "/2015-03-31/event-source-mappings");
    let network = |groups: &[&str]| {
        function(&json!({ "VpcConfig": { "SubnetIds": ["subnet-1"], "SecurityGroupIds": groups } }))
    };
    for (path, body, says) in [
        (
            functions,
            function(&json!({ "Code": { "S3Bucket": "bucket", "S3Key": "k" } })),
            "NoSuchBucket",
        ),
        (functions, network(&["sg-1"]), "The security group 'sg-1' does not exist"),
        (functions, network(&[]), "SubnetIds and SecurityIds must coexist or be both empty list."),
        (functions, network(&["other"]), "pattern: sg-[0-9a-zA-Z]*]"),
        (
            mappings,
            mapping("arn:aws:kinesis:us-east-1:123456789012:stream/s"),
            "Stream not found: arn",
        ),
        (mappings, mapping("arn:aws:sqs:us-east-1:123456789012:q"), "NonExistentQueue"),
    ] {
        let answer = call(address, "POST", path, &body.to_string()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(says), "{says}: {answer}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// When all connections are taken, idle ones are closed for new ones.
#[tokio::test]
async fn idle_connections_give_way() {
    let address = serve().await;
    let mut idle = Vec::new();
    for _ in 0..1100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let listed = call(address, "GET", "/2015-03-31/functions", "");
    let answer = tokio::time::timeout(std::time::Duration::from_secs(15), listed).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_leave_the_server_answering(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let address = serve().await;
            send(address, &bytes).await;
            call(address, "GET", "/2015-03-31/functions", "").await
        });
        prop_assert!(answer.starts_with("HTTP/1.1 200 "), "{}", answer);
    }
}

/// A runtime or an architecture that AWS has and this machine has not is configuration like any
/// other; the invocation alone is refused.
#[tokio::test]
async fn functions_for_other_machines_are_kept_and_refused_when_invoked() {
    use base64::Engine as _;
    let address = serve().await;
    let functions = "/2015-03-31/functions";
    let zip = base64::engine::general_purpose::STANDARD.encode(common::zip("1"));
    let create = |name: &str, runtime: &str, architecture: &str| {
        json!({
            "FunctionName": name, "Runtime": runtime, "Handler": "x", "Architectures": [architecture],
            "Role": "arn:aws:iam::123456789012:role/r", "Code": { "ZipFile": zip },
        })
        .to_string()
    };
    let here = lambda_host::Architecture::HOST.as_str();
    let other = if here == "arm64" { "x86_64" } else { "arm64" };
    for (name, runtime, architecture, needs) in [
        ("java", "java21", here, "the runtime java21"),
        ("dotnet", "dotnet8", here, "the runtime dotnet8"),
        ("other", "provided.al2023", other, &*format!("the architecture {other}")),
    ] {
        let answer = call(address, "POST", functions, &create(name, runtime, architecture)).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let shown = call(address, "GET", &format!("{functions}/{name}/configuration"), "").await;
        for member in [
            format!(r#""Runtime":"{runtime}""#),
            format!(r#""Architectures":["{architecture}"]"#),
            r#""State":"Active""#.to_owned(),
        ] {
            assert!(shown.contains(&member), "{member}: {shown}");
        }
        for kind in ["RequestResponse", "Event"] {
            let head = format!("x-amz-invocation-type: {kind}\r\nhost: x\r\nconnection: close\r\n");
            let path = format!("{functions}/{name}/invocations");
            let request = format!("POST {path} HTTP/1.1\r\n{head}content-length: 2\r\n\r\n{{}}");
            let answer = send(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{kind}: {answer}");
            assert!(answer.contains("x-amzn-errortype: InvalidRuntimeException\r\n"), "{answer}");
            assert!(answer.contains(needs) && answer.contains(r#""Type":"Service""#), "{answer}");
        }
    }
    // New code can be for other processors; settings stay for those of the code.
    let (code, settings) =
        (format!("{functions}/other/code"), format!("{functions}/other/configuration"));
    let new = json!({ "ZipFile": zip, "Architectures": [here] }).to_string();
    for (method, path, body, expected) in [
        ("PUT", &settings, r#"{"Timeout":9}"#.to_owned(), other),
        ("PUT", &code, json!({ "ZipFile": zip }).to_string(), other),
        ("PUT", &code, new, here),
        ("GET", &settings, String::new(), here),
    ] {
        let answer = call(address, method, path, &body).await;
        let expected = format!(r#""Architectures":["{expected}"]"#);
        assert!(answer.contains(&expected), "{method} {path}: {answer}");
    }
    let unknown = call(address, "POST", functions, &create("g", "cobol85", here)).await;
    assert!(unknown.contains("InvalidParameterValueException"), "{unknown}");
}

/// Throttling as clients expect it: the status, the error, the reason and when to try again. Load
/// balancers ask whether the host is well without a signature.
#[tokio::test]
async fn a_throttled_caller_is_told_when_to_try_again() {
    let host = host().await;
    host.deploy(common::config(), common::zip("1")).await.unwrap();
    host.reserve_concurrency("f", Some(0)).await.unwrap();
    let address = serve_host(host).await;
    let answer = call(address, "POST", "/2015-03-31/functions/f/invocations", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    for expected in [
        "retry-after: 1\r\n",
        "x-amzn-errortype: TooManyRequestsException\r\n",
        r#""Reason":"ReservedFunctionConcurrentInvocationLimitExceeded""#,
        r#""Type":"User""#,
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    for path in ["/_health", "/_ready"] {
        let answer = call(address, "GET", path, "").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
            "{path}: {answer}"
        );
        assert!(call(address, "POST", path, "").await.starts_with("HTTP/1.1 404 "), "{path}");
    }
}
