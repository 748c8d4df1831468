//! Recordings of exchanges with real services, without their secrets, and their replay.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::redact::Redaction;
use crate::credentials::Secret;
use crate::error::Error;
use crate::timestamp;
use crate::world::lock;
use crate::world::{BoxFuture, HttpError, SendHttp};

/// The most exchanges of one recording.
const EXCHANGES_MAX: usize = 10_000;
/// Headers that are recorded. Others may be secret, or concern the connection only.
const HEADERS: [&str; 6] = [
    "content-type",
    "retry-after",
    "x-amz-create-session-mode",
    "x-amz-target",
    "x-amzn-errortype",
    "x-aws-ec2-metadata-token-ttl-seconds",
];

/// Sends requests with another client and records each exchange. Clones share the recording.
///
/// Secrets in bodies and queries are replaced, and headers that may hold secrets are left out.
/// Account ids, ARNs and access key ids are kept. Read a recording before you publish it.
///
/// ```
/// use aws_cred_chain::testing::{Recorder, Replay, World};
/// use aws_cred_chain::{Chain, Options, block_on};
///
/// // A world that stands for the real one here.
/// let config = "[default]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = b\n\
///     [profile b]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n";
/// let world = World::new()
///     .user("AKIDBASE", "base-secret", "123456789012")
///     .role("arn:aws:iam::123456789012:role/R")
///     .file("/home/user/.aws/config", config);
/// let recorder = Recorder::new(world.services().clone());
/// let context = world.context().with_http(recorder.clone());
/// let first = block_on(Chain::new(context.clone(), Options::default()).resolve()).expect("a role");
///
/// let text = recorder.recording(context.clock().now());
/// assert!(!text.contains("issued-secret"));
/// let replay = Replay::parse(&text).expect("a recording");
/// let context = context.with_http(replay);
/// let again = block_on(Chain::new(context, Options::default()).resolve()).expect("the same role");
/// assert_eq!(first.credentials.access_key_id, again.credentials.access_key_id);
/// ```
#[derive(Clone)]
pub struct Recorder {
    http: Arc<dyn SendHttp>,
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Default)]
struct Recorded {
    redaction: Redaction,
    exchanges: Vec<Value>,
}

impl Recorder {
    /// Returns a client that sends with `http`.
    pub fn new(http: impl SendHttp + 'static) -> Self {
        Self { http: Arc::new(http), recorded: Arc::default() }
    }

    /// Replaces a secret that the recorder cannot find by its name.
    pub fn hide(&self, secret: &Secret) {
        lock(&self.recorded).redaction.hide(secret.expose());
    }

    /// Returns the recording as JSON. `now` is stored as its time, at which a clock for [`Replay`]
    /// starts.
    #[must_use]
    pub fn recording(&self, now: SystemTime) -> String {
        let recorded = lock(&self.recorded);
        let text = json!({ "recorded_at": timestamp::iso(now), "exchanges": recorded.exchanges });
        // A secret may have been found only after an exchange that contains it.
        recorded.redaction.known(&format!("{text:#}"))
    }

    fn record(&self, request: Value, result: &Result<http::Response<Bytes>, HttpError>) {
        let mut recorded = lock(&self.recorded);
        if recorded.exchanges.len() >= EXCHANGES_MAX {
            return;
        }
        let uri = request["uri"].as_str().unwrap_or_default();
        // The whole body is the metadata service's token.
        let is_token = uri.ends_with("/latest/api/token");
        let answer = match result {
            Ok(response) => {
                let body = String::from_utf8_lossy(response.body());
                let body = match is_token && response.status().is_success() {
                    true => recorded.redaction.hide(&body),
                    false => recorded.redaction.body(&body),
                };
                json!({
                    "status": response.status().as_u16(),
                    "headers": headers(response.headers()),
                    "body": body,
                })
            }
            Err(error) => json!({ "error": kind(error) }),
        };
        recorded.exchanges.push(json!({ "request": request, "answer": answer }));
    }
}

impl fmt::Debug for Recorder {
    /// Shows no exchange.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exchanges = lock(&self.recorded).exchanges.len();
        f.debug_struct("Recorder").field("exchanges", &exchanges).finish_non_exhaustive()
    }
}

impl SendHttp for Recorder {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let described = {
            let redaction = &mut lock(&self.recorded).redaction;
            describe(&request, redaction)
        };
        Box::pin(async move {
            let result = self.http.send(request).await;
            self.record(described, &result);
            result
        })
    }
}

fn describe(request: &http::Request<Bytes>, redaction: &mut Redaction) -> Value {
    json!({
        "method": request.method().as_str(),
        "uri": redaction.uri(&request.uri().to_string()),
        "headers": headers(request.headers()),
        "body": redaction.body(&String::from_utf8_lossy(request.body())),
    })
}

fn headers(headers: &http::HeaderMap) -> BTreeMap<&str, &str> {
    let kept = headers.iter().filter(|(name, _)| HEADERS.contains(&name.as_str()));
    kept.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

fn kind(error: &HttpError) -> &'static str {
    match error {
        HttpError::Unavailable => "unavailable",
        HttpError::Connect { .. } => "connect",
        HttpError::Broken { .. } => "broken",
        HttpError::TooLarge { .. } => "too large",
        HttpError::TimedOut { .. } => "timed out",
    }
}

/// Answers requests from a recording of a [`Recorder`]. Clones share the state of the replay.
///
/// A request gets the answer of the first unused exchange with the same method, URL without query,
/// `x-amz-target` and, for a form, `Action`. If there is none, the request fails to connect.
#[derive(Clone)]
pub struct Replay {
    started_at: SystemTime,
    left: Arc<Mutex<Vec<Exchange>>>,
}

struct Exchange {
    of: Subject,
    answer: Map<String, Value>,
}

/// The parts of a request by which its exchange is found.
#[derive(PartialEq, Eq)]
struct Subject {
    method: String,
    address: String,
    operation: String,
}

impl Subject {
    fn new(method: &str, uri: &str, target: &str, body: &str) -> Self {
        let action = body.split('&').find_map(|pair| pair.strip_prefix("Action="));
        Self {
            method: method.to_owned(),
            address: uri.split('?').next().unwrap_or_default().to_owned(),
            operation: action.unwrap_or(target).to_owned(),
        }
    }
}

impl Replay {
    /// Parses a recording.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the text is not a recording.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error::unexpected("reading a recording", what);
        let mut value: Value =
            serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let started_at = value["recorded_at"].as_str().and_then(timestamp::parse);
        let started_at = started_at.ok_or_else(|| wrong("it has no time"))?;
        let Value::Array(exchanges) = value["exchanges"].take() else {
            return Err(wrong("it has no exchanges"));
        };
        let mut left = Vec::new();
        for exchange in exchanges.into_iter().take(EXCHANGES_MAX) {
            let text = |pointer: &str| {
                exchange.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
            };
            let of = Subject::new(
                text("/request/method"),
                text("/request/uri"),
                text("/request/headers/x-amz-target"),
                text("/request/body"),
            );
            let Some(Value::Object(answer)) = exchange.get("answer") else {
                return Err(wrong("an exchange has no answer"));
            };
            left.push(Exchange { of, answer: answer.clone() });
        }
        Ok(Self { started_at, left: Arc::new(Mutex::new(left)) })
    }

    /// Returns the time of the recording. A clock for the replay should start at it, because the
    /// recorded credentials expire after it.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Returns the number of exchanges that are not used yet.
    #[must_use]
    pub fn left(&self) -> usize {
        lock(&self.left).len()
    }

    fn play(&self, request: &http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let target = request.headers().get("x-amz-target").and_then(|it| it.to_str().ok());
        let of = Subject::new(
            request.method().as_str(),
            &request.uri().to_string(),
            target.unwrap_or_default(),
            &String::from_utf8_lossy(request.body()),
        );
        let mut left = lock(&self.left);
        let Some(at) = left.iter().position(|exchange| exchange.of == of) else {
            return Err(HttpError::Connect { host, reason: "not in the recording".to_owned() });
        };
        let answer = left.remove(at).answer;
        let reason = "recorded".to_owned();
        match answer.get("error").and_then(Value::as_str) {
            None => {}
            Some("unavailable") => return Err(HttpError::Unavailable),
            Some("too large") => {
                let bytes_max = crate::world::HTTP_BODY_BYTES_MAX;
                return Err(HttpError::TooLarge { host, bytes_max });
            }
            Some("timed out") => {
                return Err(HttpError::TimedOut { after: std::time::Duration::ZERO });
            }
            Some("broken") => return Err(HttpError::Broken { host, reason }),
            Some(_) => return Err(HttpError::Connect { host, reason }),
        }
        let body = answer.get("body").and_then(Value::as_str).unwrap_or_default();
        let mut response = http::Response::new(Bytes::from(body.to_owned()));
        let status = answer.get("status").and_then(Value::as_u64).unwrap_or(200);
        *response.status_mut() = u16::try_from(status)
            .ok()
            .and_then(|status| http::StatusCode::from_u16(status).ok())
            .unwrap_or_default();
        for (name, value) in answer.get("headers").and_then(Value::as_object).into_iter().flatten()
        {
            let name = http::HeaderName::try_from(name.as_str());
            let value = http::HeaderValue::try_from(value.as_str().unwrap_or_default());
            if let (Ok(name), Ok(value)) = (name, value) {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("left", &self.left()).finish_non_exhaustive()
    }
}

impl SendHttp for Replay {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        Box::pin(std::future::ready(self.play(&request)))
    }
}
