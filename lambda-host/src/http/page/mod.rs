//! The operator's page at `/_faas`: what the host does, as a page and as JSON below `/_faas/api`.
//!
//! The page is three files of this crate. It loads nothing from elsewhere, and its content security
//! policy lets a browser load nothing else.

mod activity;
mod functions;
mod logs;
mod query;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};

use self::query::Query;
use super::api::Api;
use super::body::{Bodies, drain};
use super::operator::Denied;
use crate::error::Error;

/// Tells whether a path is one of the page.
pub(super) fn serves(path: &str) -> bool {
    path == ROOT || path.strip_prefix(ROOT).is_some_and(|rest| rest.starts_with('/'))
}

/// Answers a request to the page.
pub(super) async fn answer(
    api: &Api,
    bodies: &Bodies,
    parts: &Parts,
    body: Incoming,
) -> Response<Full<Bytes>> {
    let path = &parts.uri.path()[ROOT.len()..];
    if let Some((content_type, text)) = asset(path) {
        drain(body).await;
        return match parts.method {
            Method::GET => response(StatusCode::OK, content_type, text),
            _ => refusal(&Refused::Method),
        };
    }
    let answered = match api.operator.allow(api.is_locked(), parts) {
        Ok(()) => operate(api, path, bodies, parts, body).await,
        Err(denied) => {
            drain(body).await;
            Err(Refused::Denied(denied))
        }
    };
    match answered {
        Ok(value) => response(StatusCode::OK, JSON, value.to_string()),
        Err(refused) => refusal(&refused),
    }
}

async fn operate(
    api: &Api,
    path: &str,
    bodies: &Bodies,
    parts: &Parts,
    body: Incoming,
) -> Result<Value, Refused> {
    let (host, changes) = (&api.host, api.operator.has_key());
    let Some(path) = path.strip_prefix("/api/") else {
        drain(body).await;
        return Err(Refused::NotFound);
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let mut segments = path.split('/').map(query::decoded);
    let segments = (segments.next(), segments.next(), segments.next(), segments.next());
    let (first, second, third) = match &segments {
        (Some(first), second, third, None) => (first.as_str(), second.as_deref(), third.as_deref()),
        _ => return Err(Refused::NotFound),
    };
    if parts.method == Method::GET {
        drain(body).await;
        return match (first, second, third) {
            ("overview", None, None) => Ok(activity::overview(host, changes)),
            ("functions", None, None) => Ok(functions::page(host, &query)),
            ("functions", Some(name), None) => functions::one(host, name),
            ("sandboxes", None, None) => Ok(activity::sandboxes(host, &query)),
            ("invocations", None, None) => Ok(activity::invocations(host, &query)),
            ("invocations", Some(number), None) => activity::invocation(host, number),
            ("logs", Some(function), None) => logs::recent(host, function, &query).await,
            _ => Err(Refused::NotFound),
        };
    }
    let body = bodies.read(body, PAYLOAD_BYTES_MAX).await.map_err(|_| Refused::Body)?;
    match (&parts.method, first, second, third) {
        (&Method::POST, "functions", Some(name), Some("invoke")) => {
            functions::invoke(host, name, body.bytes.clone()).await
        }
        (&Method::DELETE, "functions", Some(name), None) => functions::delete(host, name).await,
        _ => Err(Refused::Method),
    }
}

/// Why a request is refused.
#[derive(Debug)]
enum Refused {
    NotFound,
    Method,
    /// The body is too large, too slow or broken.
    Body,
    Denied(Denied),
    Host(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

fn refusal(refused: &Refused) -> Response<Full<Bytes>> {
    let (status, words) = match refused {
        Refused::NotFound => (StatusCode::NOT_FOUND, "not found"),
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "this method is not for this path"),
        Refused::Body => (StatusCode::BAD_REQUEST, "the body is too large, too slow or broken"),
        Refused::Denied(denied) => return denied.response(),
        Refused::Host(error) => {
            let status = match error {
                Error::FunctionNotFound { .. } => StatusCode::NOT_FOUND,
                Error::Throttled { .. } | Error::NoCapacity { .. } => StatusCode::TOO_MANY_REQUESTS,
                Error::Io { .. } | Error::Registry { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                Error::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            let text = json!({ "error": error.to_string() }).to_string();
            return response(status, JSON, text);
        }
    };
    response(status, JSON, json!({ "error": words }).to_string())
}

impl Denied {
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let (status, words) = match self {
            Self::HostName => (StatusCode::MISDIRECTED_REQUEST, NOT_ITS_NAME),
            Self::OtherSite => (StatusCode::FORBIDDEN, "another site may not ask this"),
            Self::Key => (StatusCode::UNAUTHORIZED, "this needs the operator's key"),
            Self::NoKey => (StatusCode::FORBIDDEN, NO_KEY),
        };
        let mut response = response(status, JSON, json!({ "error": words }).to_string());
        if self == Self::Key {
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", content_type),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns the content type and the text of a file of the page.
fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "" | "/" => Some(("text/html; charset=utf-8", include_str!("assets/page.html"))),
        "/page.js" => Some(("text/javascript; charset=utf-8", include_str!("assets/page.js"))),
        "/icon.svg" => Some(("image/svg+xml", include_str!("assets/icon.svg"))),
        "/page.css" => Some(("text/css; charset=utf-8", include_str!("assets/page.css"))),
        _ => None,
    }
}

const ROOT: &str = "/_faas";
const JSON: &str = "application/json";
/// Own files only, no inline code or style, no frames, and no HTML that code makes of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const NO_KEY: &str = "this needs the operator's key, and none is set on this host";
const NOT_ITS_NAME: &str =
    "this is served under addresses, localhost and the host names that are set for it";
/// The largest event of a test from the page.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_page_name_no_other_site_and_have_no_inline_code() {
        for path in ["", "/page.js", "/page.css"] {
            let (_, text) = asset(path).unwrap();
            for foreign in
                ["http://", "https://", "@import", "//cdn", "innerHTML", "outerHTML", "eval("]
            {
                assert!(!text.contains(foreign), "{path}: {foreign}");
            }
        }
        let html = asset("/").unwrap().1;
        assert!(!html.contains("style=") && !html.contains("<style") && !html.contains(" on"));
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains("<script src=\"/_faas/page.js\" defer></script>"));
    }

    #[test]
    fn the_page_serves_its_own_paths() {
        for path in ["/_faas", "/_faas/", "/_faas/api/overview"] {
            assert!(serves(path), "{path}");
        }
        for path in ["/_faasx", "/", "/_fa"] {
            assert!(!serves(path), "{path}");
        }
    }
}
