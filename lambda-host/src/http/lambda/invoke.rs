//! `Invoke`: runs a function and gives its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::answer::{empty, json};
use super::call::{Answer as CallAnswer, Call};
use super::error::ApiError;
use crate::http::streamed::attach;
use crate::invocation::{Answer, Request};
use crate::streaming::Streaming;

pub(super) async fn invoke(call: Call<'_>) -> CallAnswer {
    let target = call.target()?;
    let tail = call.input.text("LogType") == Some("Tail");
    let invocation = request(&call, call.body.clone())?;
    match call.input.text("InvocationType").unwrap_or("RequestResponse") {
        "DryRun" => {
            call.host.function(target)?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        "Event" => {
            let id = call.host.invoke_event(target, invocation).await?;
            Ok(accepted(&id))
        }
        // The model has no other.
        _ => Ok(answered(&call.host.invoke(target, invocation).await?, tail)),
    }
}

/// The deprecated form of an event invocation.
pub(super) async fn invoke_async(call: Call<'_>) -> CallAnswer {
    let invocation = request(&call, call.body.clone())?;
    call.host.invoke_event(call.target()?, invocation).await?;
    json(StatusCode::ACCEPTED, &serde_json::json!({ "Status": 202 }))
}

/// Gives the answer as it comes, in the frames of an event stream.
pub(super) async fn stream(call: Call<'_>) -> CallAnswer {
    let target = call.target()?;
    let tail = call.input.text("LogType") == Some("Tail");
    if call.input.text("InvocationType") == Some("DryRun") {
        call.host.function(target)?;
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let invocation = request(&call, call.body.clone())?;
    Ok(streamed(call.host.invoke_streaming(target, invocation).await?, tail))
}

/// An invocation as the request describes it.
fn request(call: &Call<'_>, body: Bytes) -> Result<Request, ApiError> {
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    let mut invocation = Request::new(body);
    if let Some(context) = call.input.text("ClientContext") {
        invocation = invocation.with_client_context(client_context(context)?);
    }
    if let Some(trace) = call.headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok()) {
        invocation = invocation.with_trace_id(trace);
    }
    Ok(invocation)
}

fn accepted(request_id: &str) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::ACCEPTED);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

/// An answer in the frames of an event stream: its parts, and how it ended.
fn streamed(mut answer: Streaming, tail: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/vnd.amazon.eventstream"));
    let content_type = answer.content_type().unwrap_or("application/octet-stream");
    for (name, value) in [
        ("x-amzn-remapped-content-type", content_type),
        ("x-amz-executed-version", &answer.version().to_string()),
        ("x-amzn-requestid", answer.request_id()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    attach(&mut response, move |parts| async move {
        while let Some(part) = answer.next().await {
            for chunk in part.chunks(CHUNK_BYTES) {
                let frame = frame("PayloadChunk", "application/octet-stream", chunk);
                if parts.send(Ok(frame.into())).await.is_err() {
                    return;
                }
            }
        }
        let complete = match answer.end().await {
            Ok(answer) => complete(&answer, tail),
            Err(error) => serde_json::json!({
                "ErrorCode": "ServiceException", "ErrorDetails": error.to_string() }),
        };
        let frame = frame("InvokeComplete", "application/json", complete.to_string().as_bytes());
        // The client may have gone.
        drop(parts.send(Ok(frame.into())).await);
    });
    response
}

/// The last message of an event stream.
fn complete(answer: &Answer, tail: bool) -> serde_json::Value {
    let mut complete = serde_json::json!({});
    if answer.function_error {
        complete["ErrorCode"] = "Unhandled".into();
        complete["ErrorDetails"] = String::from_utf8_lossy(&answer.payload).into();
    }
    if tail {
        complete["LogResult"] = BASE64.encode(&answer.log_tail).into();
    }
    complete
}

/// A message of an event stream.
///
/// Source: AWS, "Event stream encoding" (`application/vnd.amazon.eventstream`).
fn frame(kind: &str, content_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", kind), (":content-type", content_type), (":message-type", "event")]
    {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(TYPE_STRING);
        headers.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(headers.len() + payload.len() + 16);
    frame.extend(length(headers.len() + payload.len() + 16));
    frame.extend(length(headers.len()));
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend_from_slice(payload);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}

fn answered(answer: &Answer, tail: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.payload.clone()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(version) = HeaderValue::from_str(&answer.version.to_string()) {
        headers.insert("x-amz-executed-version", version);
    }
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

/// The type of a header of an event stream that is text.
const TYPE_STRING: u8 = 7;
const CHUNK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_lengths_and_sums() {
        let frame = frame("PayloadChunk", "application/octet-stream", b"abc");
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!(number(0) as usize, frame.len());
        let headers = number(4) as usize;
        assert_eq!(&frame[12 + headers..frame.len() - 4], b"abc");
        assert_eq!(number(8), crc32fast::hash(&frame[..8]));
        assert_eq!(number(frame.len() - 4), crc32fast::hash(&frame[..frame.len() - 4]));
    }
}
