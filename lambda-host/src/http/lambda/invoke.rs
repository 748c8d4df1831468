//! `Invoke`: runs a function and gives its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::answer::empty;
use super::error::ApiError;
use super::input::Input;
use crate::function::target::LATEST;
use crate::host::Host;
use crate::invocation::{Answer, Request};

pub(super) async fn invoke(
    host: &Host,
    input: &Input,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let target = input.target()?;
    let mut invocation =
        Request::new(if body.is_empty() { Bytes::from_static(b"{}") } else { body });
    if let Some(context) = input.text("ClientContext") {
        invocation = invocation.with_client_context(client_context(context)?);
    }
    if let Some(trace) = headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok()) {
        invocation = invocation.with_trace_id(trace);
    }
    match input.text("InvocationType").unwrap_or("RequestResponse") {
        "DryRun" => {
            host.function(target)?;
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        "Event" => {
            return Err(ApiError::parameter("InvocationType Event is not supported by this host"));
        }
        // The model has no other.
        _ => {}
    }
    let tail = input.text("LogType") == Some("Tail");
    let answer = host.invoke(target, invocation).await?;
    Ok(answered(&answer, tail))
}

fn answered(answer: &Answer, tail: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.payload.clone()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-amz-executed-version", HeaderValue::from_static(LATEST));
    if answer.function_error {
        headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
    }
    if let Ok(id) = HeaderValue::from_str(&answer.request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    if tail && let Ok(log) = HeaderValue::from_str(&BASE64.encode(&answer.log_tail)) {
        headers.insert("x-amz-log-result", log);
    }
    response
}

/// Decodes the client context: base64 of a JSON object.
fn client_context(base64: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::content("Client context must be a valid Base64-encoded JSON object.");
    let bytes = BASE64.decode(base64).map_err(|_| wrong())?;
    let object: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    // Again as JSON, since a header takes neither line breaks nor other scripts.
    if object.is_object() { Ok(ascii_json(&object)) } else { Err(wrong()) }
}

/// Renders JSON with all that is not ASCII escaped.
fn ascii_json(value: &serde_json::Value) -> String {
    let mut ascii = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}
