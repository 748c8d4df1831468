//! What the client gets, and the front doors' own refusals.

use bytes::Bytes;
use serde_json::json;

use crate::kind::Kind;

/// A response to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status, 200 to 599.
    pub status: u16,
    /// Names and values, in order. Each can stand in an HTTP message.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// Returns a response without headers.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the first value of a header, whatever the case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the response in the types of the crate `http`. Blanks around the value of a header
    /// are no part of it (RFC 9110, section 5.5); Django writes one before a cookie.
    #[must_use]
    pub fn into_http(self) -> http::Response<Bytes> {
        let mut response = http::Response::new(self.body);
        let status = http::StatusCode::from_u16(self.status);
        *response.status_mut() = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            let value = http::HeaderValue::from_str(value.trim_matches([' ', '\t']));
            if let (Ok(name), Ok(value)) = (name, value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// Why a front door answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No route has the path and the method.
    NoRoute,
    /// The path names no stage of a REST API.
    NoStage,
    /// No function has this URL.
    NoUrl,
    /// The body is larger than the front door takes.
    TooLarge,
    /// The route's rate is exceeded.
    Throttled,
    /// An identity source of the route's authorizer is missing, the authorizer said
    /// "Unauthorized", or a token does not pass.
    Unauthorized,
    /// The authorizer allows nothing, or a token lacks the route's scopes.
    Forbidden,
    /// The authorizer denies explicitly.
    Denied,
    /// The authorizer failed, or answered in no form of authorizers.
    AuthorizerFailed,
    /// The function failed, or answered in no form that the front door knows.
    FunctionFailed,
    /// The function did not answer in time.
    TimedOut,
    /// The function runs as often as it may at once.
    Busy,
    /// The function cannot be invoked: it is not there, or the host is stopping.
    Unavailable,
}

impl Refusal {
    /// Returns the response that a front door of this kind gives.
    #[must_use]
    pub fn response(self, kind: Kind) -> Response {
        match kind {
            Kind::Rest => self.rest(),
            Kind::Http => self.http(),
            Kind::FunctionUrl => self.url(),
            Kind::WebSocket => self.websocket(),
        }
    }

    fn rest(self) -> Response {
        let (status, message, error) = match self {
            Self::NoRoute => {
                (403, "Missing Authentication Token", "MissingAuthenticationTokenException")
            }
            Self::NoStage | Self::NoUrl => (403, "Forbidden", "ForbiddenException"),
            Self::TooLarge => (413, "Request Too Long", "RequestTooLargeException"),
            Self::Throttled => (429, "Too Many Requests", "TooManyRequestsException"),
            Self::Unauthorized => (401, "Unauthorized", "UnauthorizedException"),
            Self::Forbidden | Self::Denied => {
                let explicit =
                    "User is not authorized to access this resource with an explicit deny";
                let message = match self {
                    Self::Denied => explicit,
                    _ => "User is not authorized to access this resource",
                };
                let body = json!({ "Message": message }).to_string();
                return json_response(403, body, Some("AccessDeniedException"));
            }
            Self::AuthorizerFailed => {
                let error = Some("AuthorizerConfigurationException");
                return json_response(500, json!({ "message": null }).to_string(), error);
            }
            Self::FunctionFailed => (502, "Internal server error", "InternalServerErrorException"),
            Self::TimedOut => (504, "Endpoint request timed out", "GatewayTimeoutException"),
            Self::Busy | Self::Unavailable => {
                (500, "Internal server error", "InternalServerErrorException")
            }
        };
        json_response(status, json!({ "message": message }).to_string(), Some(error))
    }

    fn http(self) -> Response {
        let (status, message) = match self {
            Self::NoRoute | Self::NoStage | Self::NoUrl => (404, "Not Found"),
            Self::TooLarge => (413, "Request Entity Too Large"),
            Self::Throttled => (429, "Too Many Requests"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden | Self::Denied => (403, "Forbidden"),
            Self::AuthorizerFailed | Self::FunctionFailed | Self::Unavailable => {
                (500, "Internal Server Error")
            }
            Self::TimedOut | Self::Busy => (503, "Service Unavailable"),
        };
        json_response(status, json!({ "message": message }).to_string(), None)
    }

    fn websocket(self) -> Response {
        let (status, message) = self.websocket_parts();
        json_response(status, json!({ "message": message }).to_string(), None)
    }

    /// Returns the status with which a WebSocket API refuses a connection, and the text that the
    /// client gets then or for a message.
    pub(crate) fn websocket_parts(self) -> (u16, &'static str) {
        match self {
            Self::NoRoute | Self::NoStage | Self::NoUrl | Self::Forbidden | Self::Denied => {
                (403, "Forbidden")
            }
            Self::TooLarge => (413, "Request Too Long"),
            Self::Throttled => (429, "Too Many Requests"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::FunctionFailed => (502, "Internal server error"),
            Self::TimedOut => (504, "Endpoint request timed out"),
            Self::AuthorizerFailed | Self::Busy | Self::Unavailable => {
                (500, "Internal server error")
            }
        }
    }

    fn url(self) -> Response {
        let (status, message, error) = match self {
            Self::NoRoute | Self::NoStage | Self::NoUrl => {
                let error = Some("AccessDeniedException");
                return json_response(403, json!({ "Message": null }).to_string(), error);
            }
            Self::Unauthorized | Self::Forbidden | Self::Denied => {
                (403, URL_FORBIDDEN, "AccessDeniedException")
            }
            Self::TooLarge => (413, "Request Entity Too Large", "RequestEntityTooLargeException"),
            Self::Throttled | Self::Busy => (429, "Rate Exceeded.", "TooManyRequestsException"),
            Self::Unavailable => (500, "Internal Server Error", "ServiceException"),
            Self::AuthorizerFailed | Self::FunctionFailed | Self::TimedOut => {
                return Response::new(502, "Internal Server Error")
                    .with_header("Content-Type", "text/plain");
            }
        };
        json_response(status, json!({ "Message": message }).to_string(), Some(error))
    }
}

fn json_response(status: u16, body: String, error: Option<&str>) -> Response {
    let response = Response::new(status, body).with_header("Content-Type", "application/json");
    match error {
        Some(error) => response.with_header("x-amzn-ErrorType", error),
        None => response,
    }
}

const URL_FORBIDDEN: &str = "Forbidden. For troubleshooting Function URL authorization issues, see: \
                             https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_a_headers_value_are_no_part_of_it() {
        let response = Response::new(200, "").with_header("set-cookie", " a=b c\t");
        assert_eq!(response.into_http().headers()["set-cookie"], "a=b c");
    }
}
