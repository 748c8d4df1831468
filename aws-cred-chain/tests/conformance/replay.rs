//! Replays recorded HTTP traffic in order, and compares the requests with the recording.

use std::sync::{Arc, Mutex};

use aws_cred_chain::{BoxFuture, HttpError, SendHttp};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use bytes::Bytes;
use serde_json::Value;

#[derive(Debug, Default)]
struct Exchange {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    answer: Option<Result<(u16, Vec<u8>), String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Replay(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    exchanges: Vec<Exchange>,
    next: usize,
    problems: Vec<String>,
}

impl Replay {
    pub(crate) fn new(traffic: &Value) -> Self {
        let mut exchanges: Vec<(u64, Exchange)> = Vec::new();
        for event in traffic["events"].as_array().into_iter().flatten() {
            let id = event["connection_id"].as_u64().unwrap();
            let action = &event["action"];
            if let Some(request) = action.get("Request").map(|request| &request["request"]) {
                let mut exchange = Exchange {
                    method: request["method"].as_str().unwrap().to_owned(),
                    uri: request["uri"].as_str().unwrap().to_owned(),
                    ..Exchange::default()
                };
                for (name, values) in request["headers"].as_object().into_iter().flatten() {
                    let value = values[0].as_str().unwrap_or_default();
                    exchange.headers.push((name.to_ascii_lowercase(), value.to_owned()));
                }
                exchanges.push((id, exchange));
                continue;
            }
            let exchange = &mut exchanges.iter_mut().rfind(|(of, _)| *of == id).unwrap().1;
            if let Some(response) = action.get("Response").map(|response| &response["response"]) {
                exchange.answer = Some(match response["Ok"]["status"].as_u64() {
                    Some(status) => Ok((u16::try_from(status).unwrap(), Vec::new())),
                    None => Err(response["Err"].to_string()),
                });
            } else if let Some(data) = action.get("Data") {
                let bytes = recorded_bytes(&data["data"]);
                if data["direction"] == "Request" {
                    exchange.body.get_or_insert_default().extend(bytes);
                } else if let Some(Ok((_, body))) = &mut exchange.answer {
                    body.extend(bytes);
                }
            }
        }
        let exchanges = exchanges.into_iter().map(|(_, exchange)| exchange).collect();
        Self(Arc::new(Mutex::new(State { exchanges, next: 0, problems: Vec::new() })))
    }

    /// Returns the recording SDK's number of attempts, if the recording ends in a failure that
    /// could be retried. The number of retries is not compared.
    pub(crate) fn attempts_max(&self) -> Option<u32> {
        let state = self.0.lock().unwrap();
        let last = state.exchanges.last()?;
        match &last.answer {
            Some(Ok((status, _))) if *status != 429 && *status < 500 => return None,
            _ => {}
        }
        let same = |other: &&Exchange| other.method == last.method && other.uri == last.uri;
        let count = state.exchanges.iter().rev().take_while(same).count();
        Some(u32::try_from(count).unwrap())
    }

    /// Returns the differences from the recording, including requests that never came.
    pub(crate) fn problems(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let mut problems = state.problems.clone();
        for exchange in &state.exchanges[state.next..] {
            problems.push(format!("never sent: {} {}", exchange.method, exchange.uri));
        }
        problems
    }
}

/// Returns the bytes of a recorded body, which is text or in base 64.
fn recorded_bytes(data: &Value) -> Vec<u8> {
    if let Some(text) = data["Utf8"].as_str() {
        return text.as_bytes().to_vec();
    }
    STANDARD.decode(data["Base64"].as_str().unwrap()).unwrap()
}

/// Returns a URI with the pairs of its query sorted and without a slash at its end.
fn normal(uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    let root = path.matches('/').count() == 3 && path.ends_with('/');
    let path = if root { path.trim_end_matches('/') } else { path };
    format!("{path}?{}", pairs.join("&"))
}

impl SendHttp for Replay {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let mut state = self.0.lock().unwrap();
        let State { exchanges, next, problems } = &mut *state;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let Some(exchange) = exchanges.get(*next) else {
            problems.push(format!("not recorded: {} {}", request.method(), request.uri()));
            let reason = "no more traffic was recorded".to_owned();
            return Box::pin(std::future::ready(Err(HttpError::Connect { host, reason })));
        };
        *next += 1;
        let uri = request.uri().to_string();
        if request.method().as_str() != exchange.method || normal(&uri) != normal(&exchange.uri) {
            problems.push(format!(
                "{} {uri}, not {} {}",
                request.method(),
                exchange.method,
                exchange.uri
            ));
        }
        // Agents, dates, signatures and lengths differ between SDKs. Media types and tokens must be
        // the same.
        let compared = ["content-type", "accept", "authorization-token"];
        for (name, value) in &exchange.headers {
            let token = name.starts_with("x-aws-ec2-metadata-token")
                || name == "x-amz-sso_bearer_token"
                || name == "authorization" && !value.starts_with("AWS4-");
            if compared.contains(&name.as_str()) || token {
                let sent =
                    request.headers().get(name).map(|sent| sent.to_str().unwrap().to_owned());
                if sent.as_ref() != Some(value) {
                    problems.push(format!("{uri}: header {name} is {sent:?}, not {value}"));
                }
            }
        }
        if let Some(body) = exchange.body.as_ref().filter(|body| body.starts_with(b"Action=")) {
            // The other fields hold session names and tokens of the time of the recording.
            let action = |body: &[u8]| {
                body.split(|byte| *byte == b'&').take(2).map(<[u8]>::to_vec).collect::<Vec<_>>()
            };
            if action(body) != action(request.body()) {
                problems.push(format!("{uri}: the body is another action's"));
            }
        }
        let answer = match &exchange.answer {
            Some(Ok((status, body))) => {
                let mut response = http::Response::new(Bytes::from(body.clone()));
                *response.status_mut() = http::StatusCode::from_u16(*status).unwrap();
                Ok(response)
            }
            other => Err(HttpError::Broken { host, reason: format!("recorded: {other:?}") }),
        };
        Box::pin(std::future::ready(answer))
    }
}
