//! Answers one request: a front door, a link to an archive, the operator's page, or the API.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use super::api::Api;
use super::archives::Archives;
use super::body::{Refusal, drain};
use super::client::Client;
use super::doors;
use super::lambda::error::ApiError;
use super::lambda::operations::Operation;
use super::page;
use super::shared::{Front, Shared};
use super::{logs, metrics};
use crate::code::CodeDigest;
use crate::host::Host;

/// Returns the span of a request. The query stays out of it: it may hold a signature.
pub(super) fn span(shared: &Shared, request: &Request<Incoming>) -> tracing::Span {
    let door = match &shared.front {
        Front::Api(_) => "api",
        Front::Gateway(_) => "gateway",
    };
    tracing::info_span!(
        "request",
        "otel.kind" = "server",
        "http.request.method" = request.method().as_str(),
        "url.path" = request.uri().path(),
        "http.response.status_code" = tracing::field::Empty,
        door,
    )
}

/// Answers a request.
pub(super) async fn answer(
    shared: &Shared,
    client: &Client,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let named_once = name_host(&mut parts);
    if !named_once || client.heads.has_two_lengths(&parts.headers) {
        shared.metrics().inspect(|it| it.http_ambiguous());
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
        return response;
    }
    let api = match &shared.front {
        Front::Gateway(gateway) => {
            return doors::gateway(gateway, shared, client, &parts, body).await;
        }
        Front::Api(api) => api,
    };
    let mut body = Some(body);
    let by_url = doors::function_url(api, shared, client, &parts, &mut body).await;
    let mut response = match (by_url, body) {
        (Some(response), _) => return response,
        (None, Some(body)) => {
            let operated = operate(api, shared, &parts, body).await;
            operated.unwrap_or_else(ApiError::into_response)
        }
        (None, None) => Response::new(Full::default()),
    };
    let headers = response.headers_mut();
    if !headers.contains_key(REQUEST_ID) {
        let id = uuid::Uuid::new_v4().to_string();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
    }
    response
}

async fn operate(
    api: &Api,
    shared: &Shared,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let Api { host, urls, archives, .. } = api;
    let bodies = &shared.bodies;
    #[cfg(feature = "keys")]
    let mut its_account = None;
    let path = parts.uri.path();
    if Archives::is_link(path) && parts.method == http::Method::GET {
        return archive(host, archives, parts).await;
    }
    if matches!(path, "/_health" | "/_ready") && parts.method == http::Method::GET {
        return Ok(Response::new(Full::new(Bytes::from_static(b"ok\n"))));
    }
    if api.metrics && path == metrics::PATH && parts.method == http::Method::GET {
        return Ok(metrics::answer(api, parts).await);
    }
    if api.page && page::serves(path) {
        return Ok(page::answer(api, bodies, parts, body).await);
    }
    #[cfg(feature = "keys")]
    let signed = match &api.keys {
        Some(keys) => {
            let (caller, signed) = keys.current().check(parts, std::time::SystemTime::now())?;
            its_account = Some(caller.host(host)?);
            Some(signed)
        }
        None => None,
    };
    #[cfg(feature = "keys")]
    let host = its_account.as_ref().unwrap_or(host);
    let call = Call::of(parts)?;
    let bytes_max = call.body_bytes_max();
    let too_large = || ApiError::too_large(call.name(), bytes_max);
    if body.size_hint().lower() > bytes_max as u64 {
        drain(body).await;
        return Err(too_large());
    }
    let body = bodies.read(body, bytes_max).await.map_err(|refusal| match refusal {
        Refusal::TooLarge => too_large(),
        Refusal::TooSlow => {
            shared.count_slow();
            ApiError::timeout("The request's body did not come in time.")
        }
        Refusal::NoRoom => ApiError::busy("Too many request bodies are being read; try again."),
        Refusal::Broken(error) => ApiError::content(format!("request body: {error}")),
    })?;
    #[cfg(feature = "keys")]
    let sent = match signed {
        Some(signed) => signed.check(body.bytes.clone())?,
        None => body.bytes.clone(),
    };
    #[cfg(not(feature = "keys"))]
    let sent = body.bytes.clone();
    // The body's memory stays charged until the request is answered.
    match call {
        Call::Lambda(operation) => operation.run(host, archives, urls, parts, sent).await,
        Call::Logs(action) => Ok(logs::answer(host, action, &sent).await),
    }
}

/// What a request asks for.
#[derive(Debug)]
enum Call {
    Lambda(Operation),
    Logs(logs::Action),
}

impl Call {
    fn of(request: &Parts) -> Result<Self, ApiError> {
        match logs::Action::of(request) {
            Some(action) => Ok(Self::Logs(action)),
            None => Operation::of(request).map(Self::Lambda),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Lambda(operation) => operation.name(),
            Self::Logs(_) => "Logs",
        }
    }

    fn body_bytes_max(&self) -> usize {
        match self {
            Self::Lambda(operation) => operation.body_bytes_max(),
            Self::Logs(_) => logs::BODY_BYTES_MAX,
        }
    }
}

/// Gives the archive that a link names.
async fn archive(
    host: &Host,
    archives: &Archives,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let query = request.uri.query().unwrap_or_default();
    let digest = archives.digest(request.uri.path(), query);
    let digest = digest.and_then(CodeDigest::from_hex).ok_or_else(|| {
        let message = "The link was not signed by this host, or its time is over.";
        ApiError::new(http::StatusCode::FORBIDDEN, "AccessDenied", message)
    })?;
    let zip = host.catalog().archive(&digest).await?;
    let mut response = Response::new(Full::new(zip));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/zip"));
    Ok(response)
}

/// Gives a request of HTTP/2 the header `host`, which there is a part of the address. Tells whether
/// a request names no more than one host.
fn name_host(parts: &mut Parts) -> bool {
    let mut hosts = parts.headers.get_all("host").iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return false;
    }
    let authority = parts.uri.authority().filter(|_| parts.version == http::Version::HTTP_2);
    let Some(authority) = authority else { return true };
    if let Some(host) = host {
        return host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    }
    match HeaderValue::from_str(authority.as_str()) {
        Ok(host) => drop(parts.headers.insert("host", host)),
        Err(_) => return false,
    }
    true
}

const REQUEST_ID: &str = "x-amzn-requestid";
