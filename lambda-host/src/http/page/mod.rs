//! The operator's page at `/_faas`: what the host does, as a page and as JSON below `/_faas/api`.
//!
//! The page is three files of this crate. It loads nothing from elsewhere, and its content security policy lets a browser
//! load nothing else.

mod access;
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

use self::access::OperatorKey;
use self::query::Query;
use super::body::{Bodies, drain};
use crate::error::Error;
use crate::host::Host;
use crate::metrics::prometheus;

/// The operator's page: functions, sandboxes, invocations and logs of a host.
///
/// Everybody who reaches the listener may read it, as long as the API takes requests without signatures; if the API needs
/// signatures, reading needs the operator's key. Invoking and deleting functions always need it. A request whose `Host` is
/// neither an address nor `localhost` is refused, so that no foreign web site reads the page through a browser
/// ([`Page::with_host_name`]).
#[derive(Clone, Debug, Default)]
#[must_use = "a page is served by a server"]
pub struct Page {
    key: Option<OperatorKey>,
    host_names: Vec<String>,
}

impl Page {
    /// Returns a page that only reads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the operator's key, which the page asks for where it is needed. Use at least 16 random characters; an empty
    /// key is none.
    pub fn with_operator_key(mut self, key: &str) -> Self {
        self.key = (!key.is_empty()).then(|| OperatorKey::new(key));
        self
    }

    /// Serves the page also under this host name.
    pub fn with_host_name(mut self, name: impl Into<String>) -> Self {
        self.host_names.push(name.into());
        self
    }

    pub(super) fn serves(path: &str) -> bool {
        path == ROOT || path.strip_prefix(ROOT).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Answers a request to the page. `locked` tells whether the API needs signatures.
    pub(super) async fn answer(
        &self,
        host: &Host,
        locked: bool,
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
        let answered = match self.allow(locked, parts) {
            Ok(()) => self.operate(host, path, bodies, parts, body).await,
            Err(refused) => {
                drain(body).await;
                Err(refused)
            }
        };
        match answered {
            Ok(value) => response(StatusCode::OK, JSON, value.to_string()),
            Err(refused) => refusal(&refused),
        }
    }

    async fn operate(
        &self,
        host: &Host,
        path: &str,
        bodies: &Bodies,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Value, Refused> {
        let Some(path) = path.strip_prefix("/api/") else {
            drain(body).await;
            return Err(Refused::NotFound);
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let mut segments = path.split('/').map(query::decoded);
        let segments = (segments.next(), segments.next(), segments.next(), segments.next());
        let (first, second, third) = match &segments {
            (Some(first), second, third, None) => {
                (first.as_str(), second.as_deref(), third.as_deref())
            }
            _ => return Err(Refused::NotFound),
        };
        if parts.method == Method::GET {
            drain(body).await;
            return match (first, second, third) {
                ("overview", None, None) => Ok(activity::overview(host, self.key.is_some())),
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
}

/// Returns the host's metrics as text.
pub(super) fn metrics(host: &Host) -> Response<Full<Bytes>> {
    response(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        prometheus(&host.metrics()),
    )
}

/// Why a request is refused.
#[derive(Debug)]
enum Refused {
    NotFound,
    Method,
    /// The body is too large, too slow or broken.
    Body,
    /// The host name is not one of the page's.
    HostName,
    /// A page of another site asks.
    OtherSite,
    /// The operator's key is missing or wrong.
    Key,
    /// No operator's key is set.
    NoKey,
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
        Refused::HostName => (StatusCode::MISDIRECTED_REQUEST, NOT_ITS_NAME),
        Refused::OtherSite => (StatusCode::FORBIDDEN, "another site may not ask this"),
        Refused::Key => (StatusCode::UNAUTHORIZED, "this needs the operator's key"),
        Refused::NoKey => (StatusCode::FORBIDDEN, NO_KEY),
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
    let mut response = response(status, JSON, json!({ "error": words }).to_string());
    if matches!(refused, Refused::Key) {
        response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    response
}

fn response(
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
    "the page is served under addresses, localhost and the host names that are set";
/// The largest event of a test from the page.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_page_name_no_other_site_and_have_no_inline_code() {
        for path in ["", "/page.js", "/page.css"] {
            let (_, text) = asset(path).unwrap();
            for foreign in ["http://", "https://", "//cdn", "innerHTML", "outerHTML", "eval("] {
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
        let serves = ["/_faas", "/_faas/", "/_faas/api/overview"].map(Page::serves);
        assert_eq!(serves, [true; 3]);
        assert_eq!(["/_faasx", "/", "/_fa"].map(Page::serves), [false; 3]);
    }
}
