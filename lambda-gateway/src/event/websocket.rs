//! Events of WebSocket APIs: a connection begins, a message comes, a connection has ended.
//!
//! Source: AWS, "Amazon API Gateway WebSocket API mapping template and access logging variables",
//! and events that AWS's documentation shows.

use serde_json::{Map, Value, json};

use super::seen::Seen;
use super::v1;
use crate::date::clf;

/// Returns what the events of a beginning connection and of its authorizer have in common.
pub(crate) fn parts(seen: &Seen<'_>) -> Map<String, Value> {
    let shown = ["headers", "multiValueHeaders"];
    let optional = ["queryStringParameters", "multiValueQueryStringParameters", "stageVariables"];
    let parts = v1::parts(seen).into_iter();
    parts
        .filter(|(name, value)| {
            let name = name.as_str();
            shown.contains(&name) || optional.contains(&name) && !value.is_null()
        })
        .collect()
}

/// Returns what the contexts of all events have in common.
pub(crate) fn context(seen: &Seen<'_>) -> Value {
    let (api, matched, arrival) = (seen.api, seen.matched, seen.arrival);
    let id = arrival.extended_request_id();
    let key = matched.route.key();
    let event_type = match key.as_str() {
        "$connect" => "CONNECT",
        "$disconnect" => "DISCONNECT",
        _ => "MESSAGE",
    };
    let mut context = json!({
        "routeKey": key,
        "eventType": event_type,
        "extendedRequestId": id,
        "requestTime": clf(arrival.unix_ms),
        "messageDirection": "IN",
        "stage": matched.stage.name,
        "requestTimeEpoch": arrival.unix_ms,
        "identity": { "sourceIp": seen.source_ip().to_string() },
        "requestId": id,
        "domainName": seen.domain(),
        "apiId": api.id,
    });
    if let Some(connection) = seen.connection {
        context["connectedAt"] = connection.connected_unix_ms.into();
        context["connectionId"] = connection.id.clone().into();
    }
    if let Some(agent) = seen.request.header("user-agent") {
        context["identity"]["userAgent"] = agent.into();
    }
    if let Some(authorizer) = &seen.authorizer {
        context["authorizer"] = Value::Object(authorizer.members().clone());
    }
    context
}

/// Returns the event of `$connect`.
#[cfg(feature = "websocket")]
pub(crate) fn connect(seen: &Seen<'_>) -> Value {
    let mut event = parts(seen);
    event.insert("requestContext".to_owned(), context(seen));
    event.insert("isBase64Encoded".to_owned(), false.into());
    Value::Object(event)
}

/// Returns the event of a message.
#[cfg(feature = "websocket")]
pub(crate) fn message(seen: &Seen<'_>, text: &str) -> Value {
    let mut context = context(seen);
    context["messageId"] = seen.arrival.message_id().into();
    let mut event = json!({ "requestContext": context, "body": text, "isBase64Encoded": false });
    if !seen.matched.stage.variables.is_empty() {
        event["stageVariables"] = super::seen::texts(&seen.matched.stage.variables);
    }
    event
}

/// Returns the event of `$disconnect`.
#[cfg(feature = "websocket")]
pub(crate) fn disconnect(seen: &Seen<'_>, status: u16, reason: &str) -> Value {
    let mut context = context(seen);
    context["disconnectStatusCode"] = status.into();
    context["disconnectReason"] = reason.into();
    let one = json!({
        "Host": seen.domain(),
        "X-Forwarded-For": seen.source_ip().to_string(),
        "x-api-key": "",
        "x-restapi": "",
    });
    let many: Map<_, _> = one
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), json!([value])))
        .collect();
    json!({ "headers": one, "multiValueHeaders": many, "requestContext": context, "isBase64Encoded": false })
}
