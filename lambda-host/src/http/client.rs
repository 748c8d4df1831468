//! The client of a connection: the arrival of its requests, and what it and the log get of an answer.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::Full;
use lambda_gateway::{AccessLog, Arrival};

use super::spelling::Heads;

/// Where a connection comes from, and what it has sent.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    pub(super) local_port: u16,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) heads: Heads,
}

/// Returns the present as an arrival from a client.
pub(super) fn arrival(client: &Client) -> Arrival {
    let id = uuid::Uuid::new_v4();
    let mut arrival = Arrival::new(unix_ms(), client.peer.ip().to_canonical(), id.to_string());
    arrival.port = client.local_port;
    arrival.scheme = client.scheme;
    // As unlike others as the identifier; randomness of its own would be one more system call.
    let random = id.simple().to_string();
    let seconds = arrival.unix_ms / 1000;
    arrival.trace_id = Some(format!("Root=1-{seconds:08x}-{}", &random[..24]));
    arrival
}

/// Writes the line of a request that has ended.
pub(super) fn log(log: AccessLog) {
    let line = log.line(unix_ms());
    tracing::info!(target: "lambda_host::access", "{line}");
}

/// Returns a front door's response as the server sends it.
pub(super) fn sent(response: lambda_gateway::Response, arrival: &Arrival) -> Response<Full<Bytes>> {
    let mut response = response.into_http();
    if let Ok(id) = HeaderValue::from_str(&arrival.request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response.map(Full::new)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
