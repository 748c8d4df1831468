//! The HTTP side: routes, headers, status codes and error bodies.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;

use super::channel::Accept;
use super::session::{ExtensionEvent, Refusal, Session, success};
use super::subscription::{Api, Subscription};
use crate::budget::Budget;
use crate::{Answer, FunctionError, STREAM_BYTES_FREE, StreamPart};

/// The most connections of one sandbox: a runtime, ten extensions, and room for clients that open
/// several.
const CONNECTIONS_MAX: usize = 64;
/// The most bytes of a reported error and of other small bodies.
const SMALL_BODY_BYTES_MAX: usize = 256 * 1024;
/// The host's estimated time for accepting a connection, for answering a request, and for reading a
/// KiB of a body. Builds without optimisation take longer.
const CONNECTION_TIME: Duration =
    Duration::from_micros(if cfg!(debug_assertions) { 100 } else { 25 });
const REQUEST_TIME: Duration = Duration::from_micros(15);
const KIB_TIME_NS: u32 = if cfg!(debug_assertions) { 3_000 } else { 300 };

const REQUEST_ID: &str = "lambda-runtime-aws-request-id";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";
const EXTENSION_ID: &str = "lambda-extension-identifier";

/// Serves `session` over `connections`, such as a [`tokio::net::TcpListener`], until the future is
/// dropped.
pub async fn serve(session: Arc<Session>, connections: impl Accept) {
    let connections = Arc::new(Mutex::new(Box::new(connections) as Box<dyn Accept>));
    serve_within(session, connections, Arc::new(Budget::unlimited())).await;
}

/// As [`serve`]. While the budget is exceeded, connections wait, and so do requests that are no
/// part of an invocation. Another server can follow with the same `accept`.
pub(crate) async fn serve_within(
    session: Arc<Session>,
    accept: Arc<Mutex<Box<dyn Accept>>>,
    budget: Arc<Budget>,
) {
    let mut accept = accept.lock().await;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        budget.wait().await;
        let Ok(stream) = accept.accept().await else {
            // For lack of descriptors, for example. The pause keeps the host from a busy loop.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        budget.charge(CONNECTION_TIME);
        let (session, budget) = (Arc::clone(&session), Arc::clone(&budget));
        tasks.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let (session, budget) = (Arc::clone(&session), Arc::clone(&budget));
                async move { Ok::<_, Infallible>(answer(&session, &budget, request).await) }
            });
            // A broken connection is not an error of the host. The runtime's end is detected
            // elsewhere.
            drop(
                // There is no timeout: the runtime's connection is silent while its function works,
                // for up to 900 s. Idle connections only use up the sandbox's own limit of
                // connections.
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
            drop(permit);
        });
    }
}

type Reply = Response<Full<Bytes>>;

/// Answers a request. A successful request that belongs to an invocation is not charged to the
/// budget, and neither is its connection.
async fn answer(session: &Session, budget: &Budget, request: Request<Incoming>) -> Reply {
    let wanted = request.method() == Method::POST || request.uri().path().ends_with("/next");
    // A body without a length counts as a large one.
    let bytes = request.body().size_hint().exact().unwrap_or(1 << 20);
    let reply = route(session, request).await;
    if wanted && reply.status().is_success() {
        budget.refund(CONNECTION_TIME);
    } else {
        let body = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_mul(KIB_TIME_NS);
        budget.charge(REQUEST_TIME + Duration::from_nanos(body.into()));
        budget.wait().await;
    }
    reply
}

async fn route(session: &Session, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["2018-06-01", "ping"]) => plain(StatusCode::OK, "pong"),
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => next(session).await,
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            response(session, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            invocation_error(session, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            match reported(request, ERROR_TYPE).await {
                Ok(error) => accepted(session.init_error(error)),
                Err(reply) => reply,
            }
        }
        (&Method::GET, ["2018-06-01", "runtime", "restore", "next"]) => {
            match session.restore_next().await {
                Ok(()) => plain(StatusCode::OK, ""),
                Err(refusal) => refused(refusal),
            }
        }
        (&Method::POST, ["2018-06-01", "runtime", "restore", "error"]) => {
            match reported(request, ERROR_TYPE).await {
                Ok(error) => accepted(session.restore_error(error)),
                Err(reply) => reply,
            }
        }
        (&Method::POST, ["2020-01-01", "extension", "register"]) => {
            register(session, request).await
        }
        (&Method::GET, ["2020-01-01", "extension", "event", "next"]) => {
            extension_next(session, &request).await
        }
        (&Method::POST, ["2020-01-01", "extension", "init" | "exit", "error"]) => {
            let id = header(request.headers(), EXTENSION_ID).unwrap_or_default();
            match reported(request, "lambda-extension-function-error-type").await {
                Ok(error) => accepted(session.extension_error(&id, error)),
                Err(reply) => reply,
            }
        }
        (&Method::PUT, ["2022-07-01", "telemetry"]) => {
            subscribe(session, Api::Telemetry, request).await
        }
        (&Method::PUT, ["2020-08-15", "logs"]) => subscribe(session, Api::Logs, request).await,
        (_, path) => {
            let known = is_known(path);
            drain(request.into_body()).await;
            match known {
                true => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
                false => plain(StatusCode::NOT_FOUND, "404 page not found"),
            }
        }
    }
}

/// Tells whether a path has a method, which a request for it may not have used.
fn is_known(path: &[&str]) -> bool {
    match path {
        ["2018-06-01", "ping"] | ["2022-07-01", "telemetry"] | ["2020-08-15", "logs"] => true,
        ["2018-06-01", "runtime", rest @ ..] => matches!(
            rest,
            ["invocation" | "restore", "next"]
                | ["invocation", _, "response" | "error"]
                | ["init" | "restore", "error"]
        ),
        ["2020-01-01", "extension", rest @ ..] => {
            matches!(rest, ["register"] | ["event", "next"] | ["init" | "exit", "error"])
        }
        _ => false,
    }
}

async fn next(session: &Session) -> Reply {
    let invocation = match session.next().await {
        Ok(invocation) => invocation,
        Err(refusal) => return refused(refusal),
    };
    let mut reply = Response::new(Full::new(invocation.payload));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let deadline = unix_ms(invocation.deadline);
    let given = [
        (REQUEST_ID, Some(invocation.request_id)),
        ("lambda-runtime-deadline-ms", Some(deadline.to_string())),
        ("lambda-runtime-invoked-function-arn", Some(invocation.invoked_function_arn)),
        ("lambda-runtime-trace-id", invocation.trace_id),
        ("lambda-runtime-client-context", invocation.client_context),
        ("lambda-runtime-cognito-identity", invocation.cognito_identity),
    ];
    for (name, value) in given {
        // The host's caller gave a value that no header can contain. It is left out.
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    reply
}

async fn response(session: &Session, id: &str, request: Request<Incoming>) -> Reply {
    let stream = match session.begin_answer(id) {
        Ok(stream) => stream,
        Err(refusal) => return refused_unread(refusal, request).await,
    };
    // The invocation must get an answer even if this connection breaks.
    let mut ending = Ending { session, answer: Some(truncated()) };
    let streamed = header(request.headers(), RESPONSE_MODE)
        .is_some_and(|mode| mode.eq_ignore_ascii_case("streaming"));
    let content_type = header(request.headers(), "content-type");
    let settings = session.settings();
    let (max, stream) = match (streamed, stream) {
        (true, Some(stream)) => (settings.stream_bytes_max, Some(stream)),
        _ => (settings.payload_bytes_max, None),
    };
    if let Some(stream) = &stream {
        let begin = StreamPart::Begin { content_type: content_type.clone() };
        // If the caller has gone, the function is not told.
        drop(stream.send(begin).await);
    }
    let pace = Pace::new(settings.stream_bytes_per_second);
    match read(request.into_body(), max, stream.map(|stream| (stream, pace))).await {
        Ok((_, Some(error))) => {
            ending.answer = Some(Answer::FunctionError(error));
            status_ok()
        }
        Ok((body, None)) => {
            ending.answer = Some(success(body, content_type, streamed));
            status_ok()
        }
        Err(Unread::TooLarge) => {
            ending.answer = Some(Answer::FunctionError(FunctionError {
                error_type: "Function.ResponseSizeTooLarge".into(),
                body: json!({
                    "errorMessage": format!(
                        "Response payload size exceeded maximum allowed payload size ({max} bytes)."
                    ),
                    "errorType": "Function.ResponseSizeTooLarge",
                })
                .to_string()
                .into(),
            }));
            failure(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                &format!("Exceeded maximum allowed payload size ({max} bytes)."),
            )
        }
        Err(Unread::Broken) => failure(
            StatusCode::BAD_REQUEST,
            "Runtime.TruncatedResponse",
            "the response ended before it was whole",
        ),
    }
}

/// Ends the answer on drop, even if the connection's task is dropped in the middle of a body.
struct Ending<'a> {
    session: &'a Session,
    answer: Option<Answer>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.session.end_answer(answer);
        }
    }
}

fn truncated() -> Answer {
    Answer::FunctionError(FunctionError {
        error_type: "Runtime.TruncatedResponse".into(),
        body: Bytes::from_static(
            br#"{"errorMessage":"the response ended before it was whole","errorType":"Runtime.TruncatedResponse"}"#,
        ),
    })
}

enum Unread {
    TooLarge,
    Broken,
}

/// Reads a body of at most `max` bytes into memory or into `stream`, and the error in its trailers.
async fn read(
    mut body: Incoming,
    max: usize,
    mut stream: Option<(mpsc::Sender<StreamPart>, Pace)>,
) -> Result<(Bytes, Option<FunctionError>), Unread> {
    let mut whole = BytesMut::new();
    let mut seen = 0_usize;
    let mut error = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken| Unread::Broken)?;
        match frame.into_data() {
            Ok(data) => {
                seen = seen.saturating_add(data.len());
                if seen > max {
                    drain(body).await;
                    return Err(Unread::TooLarge);
                }
                match &mut stream {
                    // If the caller has gone, the part is dropped, so that the function does not
                    // wait.
                    Some((stream, pace)) => {
                        let length = data.len();
                        if stream.send(StreamPart::Data(data)).await.is_ok() {
                            pace.wait(seen, length).await;
                        }
                    }
                    None => whole.extend_from_slice(&data),
                }
            }
            Err(frame) => error = frame.trailers_ref().and_then(error_in_trailers),
        }
    }
    Ok((whole.freeze(), error))
}

/// The bandwidth of a streamed body.
#[derive(Debug)]
struct Pace {
    bytes_per_second: Option<u64>,
    /// When the bytes so far have had their time.
    until: Instant,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, until: Instant::now() }
    }

    /// Waits for the time of the last `length` bytes of `seen`. The first bytes are free.
    async fn wait(&mut self, seen: usize, length: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let charged = length.min(seen.saturating_sub(STREAM_BYTES_FREE));
        if charged == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a part has far less than 2^52 bytes")]
        let time = Duration::from_secs_f64(charged as f64 / rate as f64);
        self.until = self.until.max(Instant::now()) + time;
        tokio::time::sleep_until(self.until).await;
    }
}

/// Reads and drops the rest of an unwanted body, up to a limit. Otherwise a runtime that still
/// writes would see a broken connection instead of the reply, and would end. The invocation's
/// timeout ends one that writes slowly.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        match frame.data_ref().map(Bytes::len).and_then(|length| left.checked_sub(length)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

const DRAIN_BYTES_MAX: usize = 256 << 20;

/// Returns the error that a streaming runtime reports in trailers. Its body is base64.
fn error_in_trailers(trailers: &HeaderMap) -> Option<FunctionError> {
    let error_type = header(trailers, ERROR_TYPE)?;
    let body = header(trailers, ERROR_BODY).unwrap_or_default();
    let body = base64::engine::general_purpose::STANDARD
        .decode(&body)
        .unwrap_or_else(|_not_base64| body.into_bytes());
    Some(FunctionError { error_type, body: body.into() })
}

async fn invocation_error(session: &Session, id: &str, request: Request<Incoming>) -> Reply {
    if let Err(refusal) = session.begin_answer(id) {
        return refused_unread(refusal, request).await;
    }
    let mut ending = Ending { session, answer: Some(truncated()) };
    match reported(request, ERROR_TYPE).await {
        Ok(error) => {
            ending.answer = Some(Answer::FunctionError(error));
            status_ok()
        }
        Err(reply) => reply,
    }
}

async fn reported(
    request: Request<Incoming>,
    type_header: &'static str,
) -> Result<FunctionError, Reply> {
    let error_type = header(request.headers(), type_header);
    let body = small_body(request).await?;
    let error_type = error_type.unwrap_or_else(|| "Unhandled".into());
    Ok(FunctionError { error_type, body })
}

async fn small_body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    match read(request.into_body(), SMALL_BODY_BYTES_MAX, None).await {
        Ok((body, _)) => Ok(body),
        Err(Unread::TooLarge) => Err(failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            &format!("Exceeded maximum allowed payload size ({SMALL_BODY_BYTES_MAX} bytes)."),
        )),
        Err(Unread::Broken) => Err(failure(
            StatusCode::BAD_REQUEST,
            "InvalidRequest",
            "the body ended before it was whole",
        )),
    }
}

async fn subscribe(session: &Session, api: Api, request: Request<Incoming>) -> Reply {
    let Some(id) = header(request.headers(), EXTENSION_ID) else {
        return refused_unread(Refusal::ExtensionIdentifier, request).await;
    };
    let body = match small_body(request).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    if let Err(refusal) = session.extension_name(&id) {
        return refused(refusal);
    }
    let asked = match Subscription::parse(api, &body) {
        Ok(asked) => asked,
        Err(reason) => return failure(StatusCode::BAD_REQUEST, "ValidationError", &reason),
    };
    match session.subscribe(&id, asked) {
        Ok(true) => plain(StatusCode::OK, "OK"),
        // The answer of AWS's emulator, which extensions take as "not here".
        Ok(false) => failure(
            StatusCode::ACCEPTED,
            "Telemetry.NotSupported",
            "Telemetry API is not supported",
        ),
        Err(refusal) => refused(refusal),
    }
}

async fn register(session: &Session, request: Request<Incoming>) -> Reply {
    let name = header(request.headers(), "lambda-extension-name").unwrap_or_default();
    let body = match small_body(request).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let events = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| Some(body.get("events")?.as_array()?.clone()));
    let wants = |events: &[Value], name: &str| events.iter().any(|event| event == name);
    let known = |event: &Value| event == "INVOKE" || event == "SHUTDOWN";
    let Some(events) = events.filter(|events| events.iter().all(known)) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "InvalidRequestFormat",
            "a JSON object with a list of events is due",
        );
    };
    match session.register(name, wants(&events, "INVOKE"), wants(&events, "SHUTDOWN")) {
        Ok(id) => {
            let mut reply = json_reply(
                StatusCode::OK,
                &json!({
                    "functionName": session.settings().function,
                    "functionVersion": "$LATEST",
                    "handler": session.settings().handler,
                }),
            );
            if let Ok(id) = HeaderValue::try_from(id) {
                reply.headers_mut().insert(EXTENSION_ID, id);
            }
            reply
        }
        Err(refusal) => refused(refusal),
    }
}

async fn extension_next(session: &Session, request: &Request<Incoming>) -> Reply {
    let Some(id) = header(request.headers(), EXTENSION_ID) else {
        return refused(Refusal::ExtensionIdentifier);
    };
    let event = match session.extension_next(&id).await {
        Ok(event) => event,
        Err(refusal) => return refused(refusal),
    };
    let (identifier, body) = match event {
        ExtensionEvent::Invoke { request_id, arn, trace_id, deadline } => (
            request_id.clone(),
            json!({
                "eventType": "INVOKE",
                "deadlineMs": unix_ms(deadline),
                "requestId": request_id,
                "invokedFunctionArn": arn,
                "tracing": {"type": "X-Amzn-Trace-Id", "value": trace_id.unwrap_or_default()},
            }),
        ),
        ExtensionEvent::Shutdown { reason, deadline } => (
            reason.as_str().to_owned(),
            json!({
                "eventType": "SHUTDOWN",
                "shutdownReason": reason.as_str(),
                "deadlineMs": unix_ms(deadline),
            }),
        ),
    };
    let mut reply = json_reply(StatusCode::OK, &body);
    if let Ok(identifier) = HeaderValue::try_from(identifier) {
        reply.headers_mut().insert("lambda-extension-event-identifier", identifier);
    }
    reply
}

fn accepted(result: Result<(), Refusal>) -> Reply {
    match result {
        Ok(()) => status_ok(),
        Err(refusal) => refused(refusal),
    }
}

/// Refuses a request after dropping its body.
async fn refused_unread(refusal: Refusal, request: Request<Incoming>) -> Reply {
    drain(request.into_body()).await;
    refused(refusal)
}

fn refused(refusal: Refusal) -> Reply {
    let (status, error_type) = match refusal {
        Refusal::RequestId => (StatusCode::BAD_REQUEST, "InvalidRequestID"),
        Refusal::Transition => (StatusCode::FORBIDDEN, "InvalidStateTransition"),
        Refusal::TooManyExtensions => (StatusCode::FORBIDDEN, "Extension.TooManyExtensions"),
        Refusal::ExtensionIdentifier => {
            (StatusCode::FORBIDDEN, "Extension.UnknownExtensionIdentifier")
        }
    };
    failure(status, error_type, &refusal.to_string())
}

fn status_ok() -> Reply {
    json_reply(StatusCode::ACCEPTED, &json!({"status": "OK"}))
}

fn failure(status: StatusCode, error_type: &str, message: &str) -> Reply {
    json_reply(status, &json!({"errorMessage": message, "errorType": error_type}))
}

fn json_reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn plain(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *reply.status_mut() = status;
    reply
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn unix_ms(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_its_bandwidth_after_its_first_bytes() {
        let (mut pace, began) = (Pace::new(Some(1 << 20)), Instant::now());
        let (mut seen, part) = (0, 256 << 10);
        while seen < STREAM_BYTES_FREE {
            seen += part;
            pace.wait(seen, part).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..8 {
            seen += part;
            pace.wait(seen, part).await;
        }
        let elapsed = began.elapsed();
        assert!((1990..2020).contains(&elapsed.as_millis()), "{elapsed:?}");
        let mut free = Pace::new(None);
        free.wait(usize::MAX, part).await;
        assert_eq!(began.elapsed(), elapsed);
    }
}
