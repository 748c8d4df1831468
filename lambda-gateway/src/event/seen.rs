//! What an event is made of.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::api::Api;
use crate::request::{Arrival, Request};
use crate::route::Matched;

/// All that an event is made of.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) api: &'a Api,
    pub(crate) matched: &'a Matched<'a>,
    pub(crate) request: &'a Request,
    pub(crate) arrival: &'a Arrival,
    /// What the authorizer adds to the request's context.
    pub(crate) authorizer: Option<Authorized>,
    /// The connection of a WebSocket API.
    pub(crate) connection: Option<&'a Connection>,
}

/// A connection of a WebSocket API.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) id: String,
    pub(crate) connected_unix_ms: u64,
}

/// What an authorizer that let the request pass adds to its context.
#[derive(Clone, Debug)]
pub(crate) enum Authorized {
    /// The context that a function gave.
    Lambda(Map<String, Value>),
    /// `claims` and `scopes` of a token.
    Jwt(Map<String, Value>),
}

impl Authorized {
    /// Returns the members that payload 1.0 and access logs show.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        match self {
            Self::Lambda(members) | Self::Jwt(members) => members,
        }
    }
}

impl Seen<'_> {
    /// Returns the host name that the client used.
    pub(crate) fn domain(&self) -> String {
        self.request.header("host").or(self.api.domain.as_deref()).unwrap_or("").to_owned()
    }

    /// Returns the first label of the host name. Without a domain of its own, an API is called by
    /// its identifier, also when the client uses an address.
    pub(crate) fn domain_prefix(&self) -> String {
        if self.api.domain.is_none() {
            return self.api.id.clone();
        }
        let domain = self.domain();
        domain.split(['.', ':']).next().unwrap_or_default().to_owned()
    }

    /// Returns the client's address: that of the connection, or the one that a trusted proxy saw.
    pub(crate) fn source_ip(&self) -> IpAddr {
        let forwarded = self.request.header_values("x-forwarded-for").last();
        let seen = forwarded.and_then(|it| it.rsplit(',').next()?.trim().parse().ok());
        seen.filter(|_| self.api.trusts_forwarded).unwrap_or(self.arrival.source_ip)
    }

    /// Returns the path of the request's context: with the stage or the base path.
    pub(crate) fn context_path(&self) -> &str {
        &self.request.path
    }

    /// Returns the headers that a front door adds: their canonical names and values.
    pub(crate) fn added_headers(&self) -> Vec<(&'static str, String)> {
        let (request, arrival) = (self.request, self.arrival);
        let sent = |name: &str| request.header_values(name).collect::<Vec<_>>().join(", ");
        let ip = arrival.source_ip.to_string();
        let own = [
            ("X-Forwarded-For", ip.clone()),
            ("X-Forwarded-Port", arrival.port.to_string()),
            ("X-Forwarded-Proto", arrival.scheme.to_owned()),
        ];
        let added = own.map(|(name, own)| match sent(name) {
            sent if sent.is_empty() => (name, own),
            sent if self.api.trusts_forwarded => (name, sent),
            sent if name == "X-Forwarded-For" => (name, format!("{sent}, {ip}")),
            _ => (name, own),
        });
        let trace = arrival.trace_header(request).map(|it| ("X-Amzn-Trace-Id", it));
        added.into_iter().chain(trace).collect()
    }
}

/// Tells whether a front door sets a header itself, so that the client's values do not stand beside
/// it.
pub(crate) fn is_added(name: &str) -> bool {
    let added = ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-amzn-trace-id"];
    added.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Returns an object of texts, or `null` for an empty one.
pub(crate) fn texts<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    let map: Map<_, _> =
        pairs.into_iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}
