//! Payload 2.0: function URLs and HTTP APIs.

use serde_json::{Map, Value, json};

use super::seen::{Authorized, Seen, is_added, texts};
use crate::date::clf;
use crate::encoding::{EventBody, is_text, query_pairs};
use crate::headers::is_hop_by_hop;
use crate::kind::Kind;

/// Returns the event.
pub(crate) fn event(seen: &Seen<'_>) -> Value {
    let mut event = parts(seen);
    event.insert("requestContext".to_owned(), context(seen));
    let body = body(seen);
    let is_base64 = body.as_ref().is_some_and(|it| it.is_base64);
    if let Some(body) = body {
        event.insert("body".to_owned(), body.text.into());
    }
    event.insert("isBase64Encoded".to_owned(), is_base64.into());
    Value::Object(event)
}

/// Returns what events for functions and for authorizers have in common.
pub(crate) fn parts(seen: &Seen<'_>) -> Map<String, Value> {
    let (matched, request) = (seen.matched, seen.request);
    let mut event = Map::new();
    event.insert("version".to_owned(), "2.0".into());
    event.insert("routeKey".to_owned(), matched.route.key().into());
    event.insert("rawPath".to_owned(), seen.context_path().into());
    event.insert("rawQueryString".to_owned(), request.query.clone().into());
    let cookies = cookies(seen);
    if !cookies.is_empty() {
        event.insert("cookies".to_owned(), cookies.into());
    }
    event.insert("headers".to_owned(), Value::Object(headers(seen)));
    let mut query = Map::new();
    for (name, value) in query_pairs(&request.query) {
        join(&mut query, name, &value);
    }
    if !query.is_empty() {
        event.insert("queryStringParameters".to_owned(), Value::Object(query));
    }
    for (name, values) in
        [("pathParameters", &matched.parameters), ("stageVariables", &matched.stage.variables)]
    {
        if !values.is_empty() {
            event.insert(name.to_owned(), texts(values));
        }
    }
    event
}

/// Returns the request's context.
pub(crate) fn context(seen: &Seen<'_>) -> Value {
    let (api, matched, request, arrival) = (seen.api, seen.matched, seen.request, seen.arrival);
    let mut context = json!({
        "accountId": api.account_id,
        "apiId": api.id,
        "domainName": seen.domain(),
        "domainPrefix": seen.domain_prefix(),
        "http": {
            "method": request.method,
            "path": seen.context_path(),
            "protocol": request.protocol,
            "sourceIp": seen.source_ip().to_string(),
            "userAgent": request.header("user-agent"),
        },
        "requestId": arrival.request_id,
        "routeKey": matched.route.key(),
        "stage": matched.stage.name,
        "time": clf(arrival.unix_ms),
        "timeEpoch": arrival.unix_ms,
    });
    if let Some(authorizer) = &seen.authorizer {
        context["authorizer"] = match authorizer {
            Authorized::Lambda(context) => json!({ "lambda": context }),
            Authorized::Jwt(token) => json!({ "jwt": token }),
        };
    } else if let Some(caller) = &arrival.caller {
        context["authorizer"] = json!({ "iam": caller });
    }
    context
}

/// Names in lower case, values of one name joined by commas. An HTTP API shows cookies apart; a
/// function URL does both.
fn headers(seen: &Seen<'_>) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in &seen.request.headers {
        let name = name.to_ascii_lowercase();
        let apart = name == "cookie" && seen.api.kind == Kind::Http;
        if !apart && !is_added(&name) && !is_hop_by_hop(&name) {
            join(&mut headers, name, value);
        }
    }
    for (name, value) in seen.added_headers() {
        headers.insert(name.to_ascii_lowercase(), value.into());
    }
    if seen.api.kind == Kind::Http && !headers.contains_key("content-length") {
        let length = seen.request.body.len().to_string();
        headers.insert("content-length".to_owned(), length.into());
    }
    headers
}

fn join(map: &mut Map<String, Value>, name: String, value: &str) {
    match map.get_mut(&name) {
        Some(Value::String(joined)) => {
            joined.push(',');
            joined.push_str(value);
        }
        _ => drop(map.insert(name, value.into())),
    }
}

fn cookies(seen: &Seen<'_>) -> Vec<Value> {
    let lines = seen.request.header_values("cookie");
    let cookies = lines.flat_map(|line| line.split(';')).map(str::trim);
    cookies.filter(|it| !it.is_empty()).map(Value::from).collect()
}

fn body(seen: &Seen<'_>) -> Option<EventBody> {
    let body = &seen.request.body;
    if body.is_empty() {
        return None;
    }
    // A body without a type is text; a compressed one never is.
    let media_type = seen.request.header("content-type").unwrap_or_default();
    let binary = !media_type.is_empty() && !is_text(media_type);
    let compressed = seen.request.header("content-encoding").is_some_and(|it| it != "identity");
    match binary || compressed {
        true => Some(EventBody::base64(body)),
        false => Some(EventBody::text_or_base64(body)),
    }
}
