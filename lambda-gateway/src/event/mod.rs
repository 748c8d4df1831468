//! The event that a function gets for a request.

pub(crate) mod seen;
pub(crate) mod v1;
pub(crate) mod v2;
pub(crate) mod websocket;

use serde_json::Value;

use crate::kind::Payload;
use seen::Seen;

/// Returns the event in the route's format.
pub(crate) fn event(seen: &Seen<'_>) -> Value {
    match seen.matched.route.payload {
        Payload::V1 => v1::event(seen),
        Payload::V2 => v2::event(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Api, Route};
    use crate::kind::Kind;
    use crate::request::{Arrival, Request};
    use crate::route;

    fn event(trusts: bool, request: &Request) -> Value {
        let route = Route::new("$default", "f", Payload::V2).unwrap();
        let mut api = Api::new(Kind::Http, "a").with_routes(vec![route]);
        api.trusts_forwarded = trusts;
        let arrival = Arrival::new(0, [192, 0, 2, 1].into(), "id");
        let matched = route::route(&api, &request.method, &request.path).unwrap();
        let seen = Seen {
            api: &api,
            matched: &matched,
            request,
            arrival: &arrival,
            authorizer: None,
            connection: None,
        };
        super::event(&seen)
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
