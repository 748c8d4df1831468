//! `@connections`: the requests by which functions reach the clients of a WebSocket API.
//!
//! Source: AWS, "Use @connections commands in your backend service".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::MESSAGE_BYTES_MAX;
use super::connections::{Close, Connections, Full};
use crate::api::Api;
use crate::date::iso;
use crate::encoding::decode;
use crate::kind::Kind;
use crate::request::Request;
use crate::response::{Refusal, Response};
use crate::route;

/// Answers a request to a WebSocket API that opens no connection.
pub(crate) fn answer(
    connections: &Arc<Connections>,
    number: usize,
    api: &Api,
    request: &Request,
) -> Response {
    let found = route::stage(api, &request.path);
    let found = found.and_then(|(stage, path)| Some((stage, path.strip_prefix("/@connections/")?)));
    let Some((stage, id)) = found else { return Refusal::NoRoute.response(Kind::WebSocket) };
    let Some(open) = connections.find(number, &stage.name, &decode(id)) else {
        return error(410, "GoneException", "Gone");
    };
    match request.method.as_str() {
        "POST" if request.body.len() > MESSAGE_BYTES_MAX => {
            error(413, "PayloadTooLargeException", "Message too long")
        }
        "POST" => match std::str::from_utf8(&request.body) {
            Ok(text) => match open.send(text.to_owned()) {
                Ok(()) => Response::new(200, ""),
                Err(Full) => error(429, "LimitExceededException", "The client reads too slowly"),
            },
            Err(_) => error(400, "BadRequestException", "The message is not UTF-8"),
        },
        "GET" => {
            let body = json!({
                "connectedAt": iso(open.connected_unix_ms),
                "identity": { "sourceIp": open.source_ip, "userAgent": open.user_agent },
                "lastActiveAt": iso(open.active_unix_ms.load(Ordering::Relaxed)),
            });
            let response = Response::new(200, body.to_string());
            response.with_header("content-type", "application/json")
        }
        "DELETE" => {
            open.close(DELETED);
            Response::new(204, "")
        }
        _ => Refusal::NoRoute.response(Kind::WebSocket),
    }
}

fn error(status: u16, kind: &str, message: &str) -> Response {
    Response::new(status, json!({ "message": message }).to_string())
        .with_header("content-type", "application/json")
        .with_header("x-amzn-ErrorType", kind)
}

const DELETED: Close = Close { status: 1000, reason: "Connection Closed Normally" };
