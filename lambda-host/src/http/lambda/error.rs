//! Errors as AWS Lambda says them: an HTTP status, a type in a header, a JSON body.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::error::{Error, with_causes};

/// An error on its way to an AWS client.
///
/// Source: the "Errors" sections of the [AWS Lambda API reference][reference].
///
/// [reference]: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
#[derive(Debug)]
pub(in crate::http) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    reason: Option<&'static str>,
}

impl ApiError {
    pub(in crate::http) fn new(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, message: message.into(), reason: None }
    }

    /// A parameter that is well formed but cannot be used here.
    pub(in crate::http) fn parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    /// A request whose JSON or base64 cannot be read.
    pub(in crate::http) fn content(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message)
    }

    /// A request body over the limit of its operation.
    pub(in crate::http) fn too_large(operation: &str, bytes_max: usize) -> Self {
        let message =
            format!("Request must be smaller than {bytes_max} bytes for the {operation} operation");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", message)
    }

    /// A path that is none of the API's.
    pub(in crate::http) fn unknown_operation(method: &http::Method, path: &str) -> Self {
        let message = format!("no operation of the Lambda API at {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    pub(in crate::http) fn into_response(self) -> Response<Full<Bytes>> {
        let by_user = self.status.is_client_error();
        let mut body = json!({ "Type": if by_user { "User" } else { "Service" } });
        // The API's own model spells the member both ways, error by error.
        let member = match self.kind {
            "ResourceNotFoundException" | "ServiceException" => "Message",
            _ => "message",
        };
        body[member] = self.message.into();
        if let Some(reason) = self.reason {
            body["Reason"] = reason.into();
        }
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.kind));
        response
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let capital = || {
            let mut chars = message.chars();
            chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
        };
        match &error {
            Error::Validation { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "ValidationException", message)
            }
            Error::InvalidParameter { .. } => Self::parameter(message),
            Error::InvalidCode { .. } => Self::parameter(capital()),
            Error::InvalidPayload { .. } => Self::content(capital()),
            Error::PayloadTooLarge { bytes_max } => Self::too_large("InvokeFunction", *bytes_max),
            Error::FunctionNotFound { .. } => {
                Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", capital())
            }
            Error::FunctionExists { .. } => {
                Self::new(StatusCode::CONFLICT, "ResourceConflictException", capital())
            }
            Error::Throttled { limit } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "TooManyRequestsException",
                message: "Rate Exceeded.".to_owned(),
                reason: Some(limit),
            },
            Error::NoCapacity { .. } | Error::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceException", capital())
            }
            _ => {
                // The causes name files of the host: they go to its log, not to its callers.
                tracing::error!(error = with_causes(&error), "request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "ServiceException",
                    "The host met an internal error; its log names the cause.",
                )
            }
        }
    }
}
