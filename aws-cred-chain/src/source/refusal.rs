//! Errors of services: their codes, and whether a retry may succeed.
//!
//! The retryable codes are those of the AWS CLI's standard retry mode.

use bytes::Bytes;
use serde_json::Value;

use super::text::{short, text};
use super::xml;
use crate::error::Error;

/// Codes by which a service asks the client to slow down.
const THROTTLED: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Codes of failures within the service. `IDPCommunicationError`: STS could not reach the identity
/// provider.
const TRANSIENT: [&str; 4] =
    ["IDPCommunicationError", "InternalFailure", "RequestTimeout", "RequestTimeoutException"];

/// An error that a service returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refusal {
    /// Parses the error of any protocol: from a header, JSON members or XML elements.
    pub(crate) fn of(response: &http::Response<Bytes>) -> Self {
        let status = response.status().as_u16();
        let header = response.headers().get("x-amzn-errortype").and_then(|it| it.to_str().ok());
        let body = text(response);
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let member =
            |keys: &[&str]| keys.iter().find_map(|key| json.get(key)?.as_str()).map(str::to_owned);
        let code = header
            .map(str::to_owned)
            .or_else(|| member(&["__type", "code", "Code", "error"]))
            .or_else(|| xml::text(&body, "Code"))
            .unwrap_or_default();
        let message = member(&["message", "Message", "error_description"])
            .or_else(|| xml::text(&body, "Message"))
            .unwrap_or_default();
        // Some protocols send `name#Code:http://..`.
        let code = code.split(':').next().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        Self { status, code: short(code), message: short(&message) }
    }

    /// Returns whether the same request may succeed a little later.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self.status, 429 | 500 | 502 | 503 | 504 | 509)
            || THROTTLED.contains(&self.code.as_str())
            || TRANSIENT.contains(&self.code.as_str())
    }

    /// Converts the error of a response to [`Error`]. `hint` says how to resolve a refusal.
    pub(crate) fn error(
        self,
        service: &'static str,
        operation: &'static str,
        hint: Option<String>,
    ) -> Error {
        let code = match self.code.is_empty() {
            true => format!("HTTP {}", self.status),
            false => self.code.clone(),
        };
        if self.is_retryable() {
            let mut what = format!("HTTP {}", self.status);
            for part in [&self.code, &self.message] {
                if !part.is_empty() {
                    what.push_str(": ");
                    what.push_str(part);
                }
            }
            let error = Error::unexpected(format!("{service} {operation}"), what);
            return match THROTTLED.contains(&self.code.as_str()) || self.status == 429 {
                true => error.with_hint("the service asks to be called less often"),
                false => error,
            };
        }
        Error::Denied { service, operation, code, message: self.message, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_protocol() {
        let check = |status: u16, header: &str, body: &str, code: &str, retryable: bool| {
            let mut response = http::Response::new(Bytes::from(body.to_owned()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            if !header.is_empty() {
                response.headers_mut().insert("x-amzn-errortype", header.parse().unwrap());
            }
            let refusal = Refusal::of(&response);
            assert_eq!(
                (refusal.code.as_str(), refusal.is_retryable()),
                (code, retryable),
                "{body}"
            );
        };
        check(400, "", "<E><Code>Throttling</Code></E>", "Throttling", true);
        check(400, "", r#"{"__type": "a.b#SlowDown"}"#, "SlowDown", true);
        check(400, "TooManyRequestsException:x", "", "TooManyRequestsException", true);
        check(403, "ForbiddenException", r#"{"message": "no"}"#, "ForbiddenException", false);
        check(429, "", "", "", true);
        check(501, "", "", "", false);
        check(503, "", "<html>", "", true);
        check(400, "", r#"{"error": "invalid_grant"}"#, "invalid_grant", false);
    }
}
