//! The event that a function gets for a request.

pub(crate) mod v1;
pub(crate) mod v2;

use std::net::IpAddr;

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

    /// Returns the first label of the host name. Without a domain of its own, an API is called by its identifier, also when
    /// the client uses an address.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, Route};
    use crate::route;

    fn event(trusts: bool, request: &Request) -> Value {
        let route = Route::new("$default", "f", Payload::V2).unwrap();
        let mut api = Api::new(Kind::Http, "a").with_routes(vec![route]);
        api.trusts_forwarded = trusts;
        let arrival = Arrival::new(0, [192, 0, 2, 1].into(), "id");
        let matched = route::route(&api, &request.method, &request.path).unwrap();
        Seen { api: &api, matched: &matched, request, arrival: &arrival, authorizer: None }.event()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let request = Request::new("GET", "/").with_header("X-Forwarded-For", "10.0.0.1, 10.0.0.2");
        let request = request.with_header("X-Forwarded-Proto", "https");
        let check = |trusts: bool, forwarded: &str, proto: &str, ip: &str| {
            let event = event(trusts, &request);
            assert_eq!(event["headers"]["x-forwarded-for"], forwarded);
            assert_eq!(event["headers"]["x-forwarded-proto"], proto);
            assert_eq!(event["requestContext"]["http"]["sourceIp"], ip);
        };
        check(false, "10.0.0.1, 10.0.0.2, 192.0.2.1", "http", "192.0.2.1");
        check(true, "10.0.0.1, 10.0.0.2", "https", "10.0.0.2");
        let direct = event(true, &Request::new("GET", "/"));
        assert_eq!(direct["headers"]["x-forwarded-for"], "192.0.2.1");
    }

    #[test]
    fn values_of_one_name_are_joined_and_cookies_stand_apart() {
        let request = Request::new("GET", "/a?x=1&y=%2F&x=2")
            .with_header("X-A", "1")
            .with_header("cookie", "a=1; b=2")
            .with_header("x-a", "2")
            .with_header("Cookie", "c=3")
            .with_header("Connection", "close");
        let event = event(false, &request);
        assert_eq!(event["headers"]["x-a"], "1,2");
        assert_eq!(event["headers"].get("cookie"), None);
        assert_eq!(event["headers"].get("connection"), None);
        assert_eq!(event["cookies"], serde_json::json!(["a=1", "b=2", "c=3"]));
        assert_eq!(event["queryStringParameters"], serde_json::json!({ "x": "1,2", "y": "/" }));
        assert_eq!(event.get("body"), None);
    }
}
