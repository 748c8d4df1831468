//! The event that a function gets for a request.

pub(crate) mod v1;
pub(crate) mod v2;

use serde_json::{Map, Value};

use crate::api::{Api, Payload};
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
    pub(crate) authorizer: Option<Map<String, Value>>,
}

impl Seen<'_> {
    /// Returns the event in the route's format.
    pub(crate) fn event(&self) -> Value {
        match self.matched.route.payload {
            Payload::V1 => v1::event(self),
            Payload::V2 => v2::event(self),
        }
    }

    /// Returns the host name that the client used.
    pub(crate) fn domain(&self) -> String {
        self.request.header("host").or(self.api.domain.as_deref()).unwrap_or("").to_owned()
    }

    /// Returns the first label of the host name.
    pub(crate) fn domain_prefix(&self) -> String {
        let domain = self.domain();
        domain.split(['.', ':']).next().unwrap_or_default().to_owned()
    }

    /// Returns the path of the request's context: with the stage or the base path.
    pub(crate) fn context_path(&self) -> &str {
        &self.request.path
    }

    /// Returns the headers that a front door adds: their canonical names and values.
    pub(crate) fn added_headers(&self) -> Vec<(&'static str, String)> {
        let (request, arrival) = (self.request, self.arrival);
        let mut forwarded: Vec<&str> = request.header_values("x-forwarded-for").collect();
        let ip = arrival.source_ip.to_string();
        forwarded.push(&ip);
        let mut added = vec![
            ("X-Forwarded-For", forwarded.join(", ")),
            ("X-Forwarded-Port", arrival.port.to_string()),
            ("X-Forwarded-Proto", arrival.scheme.to_owned()),
        ];
        added.extend(arrival.trace_header(request).map(|it| ("X-Amzn-Trace-Id", it)));
        added
    }
}

/// Tells whether a front door sets a header itself, so that the client's values do not stand beside it.
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
