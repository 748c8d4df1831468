//! Errors as Amazon CloudWatch Logs says them: a type and a message in a JSON body.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::error::{Error, with_causes};

/// An error on its way to a client.
#[derive(Debug)]
pub(super) struct LogsError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl LogsError {
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        let (status, kind) = (StatusCode::BAD_REQUEST, "InvalidParameterException");
        Self { status, kind, message: message.into() }
    }

    pub(super) fn not_found(what: &str) -> Self {
        let message = format!("The specified log {what} does not exist.");
        Self { status: StatusCode::BAD_REQUEST, kind: "ResourceNotFoundException", message }
    }

    pub(super) fn unknown_action(name: &str) -> Self {
        let message = format!("{name} is not supported by this host");
        Self { status: StatusCode::BAD_REQUEST, kind: "UnknownOperationException", message }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = json!({ "__type": self.kind, "message": self.message });
        respond(self.status, &body)
    }
}

impl From<Error> for LogsError {
    fn from(error: Error) -> Self {
        let message = with_causes(&error);
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, kind: "ServiceUnavailableException", message }
    }
}

pub(super) fn respond(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert("content-type", kind);
    response
}
