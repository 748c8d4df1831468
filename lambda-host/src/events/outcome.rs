//! What became of an event, in the words in which AWS tells a destination.

use bytes::Bytes;
use serde_json::{Value, json};

use super::deliver::Delivery;
use super::store::Event;
use crate::clock::{iso_8601, now_ms};
use crate::function::arn::Arns;
use crate::function::target::LATEST;
use crate::invocation::Answer;

/// Why an event is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Success,
    RetriesExhausted,
    EventAgeExceeded,
    ZeroReservedConcurrency,
}

impl Condition {
    fn text(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
            Self::ZeroReservedConcurrency => "ZeroReservedConcurrency",
        }
    }
}

/// Returns the record for a destination.
pub(super) fn record(
    arns: &Arns,
    event: &Event,
    payload: &Bytes,
    condition: Condition,
    answer: Option<&Answer>,
) -> Value {
    let qualifier = event.qualifier.as_deref().unwrap_or(LATEST);
    let mut record = json!({
        "version": "1.0",
        "timestamp": iso_8601(now_ms()),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": arns.qualified(&event.name, qualifier),
            "condition": condition.text(),
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": json_or_text(payload),
    });
    if let Some(answer) = answer {
        record["responseContext"] =
            json!({ "statusCode": 200, "executedVersion": answer.version.to_string() });
        if answer.function_error {
            record["responseContext"]["functionError"] = "Unhandled".into();
        }
        record["responsePayload"] = json_or_text(&answer.payload);
    }
    record
}

/// Returns the message for a dead-letter target: the event as it came.
pub(super) fn dead_letter(
    target: &str,
    event: &Event,
    payload: &Bytes,
    answer: Option<&Answer>,
) -> Delivery {
    let message = answer.and_then(|answer| {
        let error: Value = serde_json::from_slice(&answer.payload).ok()?;
        error["errorMessage"].as_str().map(str::to_owned)
    });
    // AWS cuts it off at 1 KB.
    let message: String = message.unwrap_or_default().chars().take(1024).collect();
    let attributes = vec![
        ("RequestID".to_owned(), event.request_id.as_str().into()),
        ("ErrorCode".to_owned(), if answer.is_some() { 200.into() } else { 429.into() }),
        ("ErrorMessage".to_owned(), message.into()),
    ];
    let body = String::from_utf8_lossy(payload).into_owned();
    Delivery { target: target.to_owned(), body, attributes, trace_id: event.trace_id.clone() }
}

fn json_or_text(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}
