//! The HTTP server: accepts connections and answers their requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper_util::server::graceful::GracefulShutdown;
use lambda_gateway::Gateway;
use tokio::net::TcpListener;

use super::api::Api;
use super::archives::Archives;
use super::body::{Bodies, Refusal, drain};
use super::connection::Connection;
use super::connections::Connections;
use super::doors::{self, Client};
use super::lambda::error::ApiError;
use super::lambda::operations::Operation;
use super::operator::Operator;
use super::page;
#[cfg(feature = "keys")]
use super::signature::{KeyRing, Keys};
use super::spelling::Heads;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::urls::Urls;
use super::{logs, metrics};
use crate::code::CodeDigest;
use crate::host::Host;
use crate::metrics::Registry;

/// Serves the API, and function URLs by their host names, on `listener` until `stop` resolves. Then
/// answers the requests in progress, and returns. [`Server`] has more settings.
pub async fn serve(host: Host, listener: TcpListener, stop: impl Future<Output = ()>) {
    Server::api(host).serve(listener, stop).await;
}

/// As [`serve`], for holders of these keys alone ([`Server::with_keys`]).
#[cfg(feature = "keys")]
pub async fn serve_with_keys(
    host: Host,
    keys: Keys,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) {
    Server::api(host).with_keys(keys).serve(listener, stop).await;
}

/// What is served on a listener: the API of a host with its function URLs, or a gateway.
#[derive(Debug)]
#[must_use = "a server runs when it is served"]
pub struct Server {
    front: Front,
    /// The host in whose metrics requests are counted.
    counts: Option<Host>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Front {
    Api(Box<Api>),
    Gateway(Arc<Gateway>),
}

impl Server {
    /// Returns a server of the AWS Lambda API and of function URLs. A request with the host name
    /// `ID.lambda-url.…` is to a URL, whatever follows; any other is to the API.
    pub fn api(host: Host) -> Self {
        let api = Api {
            host,
            urls: Urls::default(),
            archives: Archives::new(),
            operator: Operator::new(),
            page: false,
            metrics: false,
            scrapes: tokio::sync::Mutex::default(),
            #[cfg(feature = "keys")]
            keys: None,
        };
        Self { counts: Some(api.host.clone()), ..Self::of(Front::Api(Box::new(api))) }
    }

    fn of(front: Front) -> Self {
        Self {
            front,
            counts: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Serves TLS alone, with HTTP/2 and HTTP/1.1. Clients must agree on keys within 10 s. A
    /// connection of HTTP/2 has at most 100 requests at once, heads of at most 64 KiB, and is
    /// closed after 60 s without a request, or when its client has taken back more than 100
    /// requests at once or 10 a second.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        if let Front::Api(api) = &mut self.front {
            (api.urls.is_secure, api.archives.is_secure) = (true, true);
        }
        self.tls = Some(tls);
        self
    }

    /// Takes only requests that bear a good signature of one of these keys, in their headers or
    /// their query. Links to archives (`Code.Location`), function URLs, and the paths `/_health`
    /// and `/_ready` need none. Does nothing for a gateway.
    #[cfg(feature = "keys")]
    pub fn with_keys(mut self, keys: impl Into<KeyRing>) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.keys = Some(keys.into());
        }
        self
    }

    /// Serves the operator's page at `/_faas`: functions, sandboxes, invocations and logs of the
    /// host. It loads nothing from elsewhere. [`Server::with_operator`] says who may see it and
    /// change something. Does nothing for a gateway.
    pub fn with_page(mut self) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.page = true;
        }
        self
    }

    /// Serves the host's metrics at `/metrics`, in the text format of Prometheus, to those who may
    /// read the page ([`Server::with_operator`]): they name functions. Does nothing for a gateway.
    pub fn with_metrics(mut self) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.metrics = true;
        }
        self
    }

    /// Sets the operator's key, and the host names under which the page and the metrics are served.
    /// Does nothing for a gateway.
    pub fn with_operator(mut self, operator: Operator) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.operator = operator;
        }
        self
    }

    /// Serves function URLs below a path too, such as `/urls`: `/urls/ID/path`. The API then
    /// announces them there, with the host name that the request for it has, so that they can be
    /// reached without a name service. Does nothing for a gateway.
    pub fn with_url_path(mut self, path: &str) -> Self {
        if let Front::Api(api) = &mut self.front {
            let is_secure = api.urls.is_secure;
            api.urls = Urls::new(path);
            api.urls.is_secure = is_secure;
        }
        self
    }

    /// Returns a server of a gateway's front doors. Lines of access logs are events of `tracing`
    /// with the target `lambda_host::access`.
    pub fn gateway(gateway: Arc<Gateway>) -> Self {
        Self::of(Front::Gateway(gateway))
    }

    /// Counts the requests that a gateway's server refuses before they reach a front door in the
    /// metrics of a host. Those to the API are counted in the metrics of its own host.
    pub fn with_counts(mut self, host: &Host) -> Self {
        self.counts = Some(host.clone());
        self
    }

    /// Serves on `listener` until `stop` resolves. Then answers the requests in progress, and
    /// returns.
    ///
    /// Limits: at most 1,024 open connections; beyond that the one that has been idle for the
    /// longest time is closed. The head of a request must arrive within 30 s, its body within 20 s
    /// plus a second for each 64 KiB that has arrived. All bodies together may take 512 MiB for
    /// uploads of code and bodies over 8 MiB, and as much for other requests. A body that gets no
    /// memory for 5 s is refused.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let connections = Connections::new(CONNECTIONS_MAX);
        let shared =
            Arc::new(Shared { bodies: Bodies::new(), counts: self.counts, front: self.front });
        let graceful = GracefulShutdown::new();
        let local_port = listener.local_addr().map_or(0, |it| it.port());
        #[cfg(feature = "tls")]
        let (stop_handshakes, stopping) = tokio::sync::watch::channel(());
        #[cfg(feature = "tls")]
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        #[cfg(not(feature = "tls"))]
        let scheme = "http";
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                let accepted = listener.accept().await;
                (connections.place().await, accepted)
            };
            let (place, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, or a client that closed at once: neither must end the
                    // server.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            let client = Client { peer, local_port, scheme, heads: Heads::default() };
            let connection = Connection::new(Arc::clone(&shared), client, place);
            let watcher = graceful.watcher();
            #[cfg(feature = "tls")]
            if let Some(tls) = self.tls.clone() {
                drop(tokio::spawn(connection.tls(stream, tls, stopping.clone(), watcher)));
                continue;
            }
            drop(tokio::spawn(connection.http1(stream, watcher)));
        }
        #[cfg(feature = "tls")]
        drop(stop_handshakes);
        graceful.shutdown().await;
    }
}

/// What the connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bodies: Bodies,
    counts: Option<Host>,
    front: Front,
}

impl Shared {
    /// Returns the metrics in which requests are counted. A gateway may be of no host.
    fn metrics(&self) -> Option<&Registry> {
        self.counts.as_ref()?.observer().counted()
    }

    /// Counts the request that ended a connection.
    pub(super) fn count_broken(&self, error: &hyper::Error) {
        let Some(metrics) = self.metrics() else { return };
        if error.is_parse() || error.is_parse_too_large() {
            metrics.http_malformed();
        } else if error.is_timeout() {
            metrics.http_slow();
        }
        #[cfg(feature = "tls")]
        count_broken_http2(metrics, error);
    }

    /// Counts a client whose body did not come in time, or that did not agree on keys in time.
    pub(super) fn count_slow(&self) {
        self.metrics().inspect(|it| it.http_slow());
    }

    /// Counts a connection that is closed because its client takes back too many requests.
    pub(super) fn count_reset(&self) {
        tracing::debug!("a client takes back too many requests");
        self.metrics().inspect(|it| it.http_reset());
    }
}

/// Counts what this server found wrong with a client's frames of HTTP/2.
#[cfg(feature = "tls")]
fn count_broken_http2(metrics: &Registry, error: &hyper::Error) {
    let cause = std::error::Error::source(error).and_then(|it| it.downcast_ref::<h2::Error>());
    match cause {
        Some(error) if error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) => {
            metrics.http_reset()
        }
        Some(error) if error.is_library() => metrics.http_malformed(),
        _ => {}
    }
}

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
const CONNECTIONS_MAX: usize = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
