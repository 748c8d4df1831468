//! The HTTP server: accepts connections and answers their requests.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use lambda_gateway::Gateway;
use tokio::net::TcpListener;
use tracing::Instrument as _;

use super::api::Api;
use super::archives::Archives;
use super::body::{Bodies, Refusal, drain};
use super::connections::Connections;
use super::doors::{self, Client};
use super::lambda::error::ApiError;
use super::lambda::operations::Operation;
use super::operator::Operator;
use super::page;
#[cfg(feature = "keys")]
use super::signature::{KeyRing, Keys};
use super::spelling::{Heads, Recorded};
use super::streamed;
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
        Self { front: Front::Api(Box::new(api)) }
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
            api.urls = Urls::new(path);
        }
        self
    }

    /// Returns a server of a gateway's front doors. Lines of access logs are events of `tracing`
    /// with the target `lambda_host::access`.
    pub fn gateway(gateway: Arc<Gateway>) -> Self {
        Self { front: Front::Gateway(gateway) }
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
        let shared = Arc::new(Shared { bodies: Bodies::new(), front: self.front });
        let graceful = GracefulShutdown::new();
        let local_port = listener.local_addr().map_or(0, |it| it.port());
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
            let client = Client { peer, local_port, heads: Heads::default() };
            let stream = Recorded::new(stream, client.heads.clone());
            let (of_service, its_place) = (Arc::clone(&shared), Arc::clone(&place));
            let service = service_fn(move |request| {
                let (shared, busy) = (Arc::clone(&of_service), its_place.busy());
                let client = client.clone();
                async move {
                    let span = span(&shared.front, &request);
                    let answered = answer(&shared, &client, request).instrument(span.clone());
                    let response = answered.await;
                    span.record("http.response.status_code", response.status().as_u16());
                    client.heads.answered();
                    Ok::<_, Infallible>(streamed::reply(response, busy))
                }
            });
            let mut builder = http1::Builder::new();
            // A client may shut down its sending side and still wait for the answer.
            builder.half_close(true);
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            let shared = Arc::clone(&shared);
            drop(tokio::spawn(async move {
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                        shared.count_broken(&error);
                    },
                    () = place.asked_to_close() => tracing::debug!("an idle connection gives way"),
                }
            }));
        }
        graceful.shutdown().await;
    }
}

/// What the connections of a server share.
#[derive(Debug)]
struct Shared {
    bodies: Bodies,
    front: Front,
}

impl Shared {
    /// Returns the metrics in which requests are counted. A gateway may be of no host: its access
    /// log tells of its requests.
    fn metrics(&self) -> Option<&Registry> {
        match &self.front {
            Front::Api(api) => api.host.observer().counted(),
            Front::Gateway(_) => None,
        }
    }

    /// Counts the request that ended a connection.
    fn count_broken(&self, error: &hyper::Error) {
        let Some(metrics) = self.metrics() else { return };
        if error.is_parse() || error.is_parse_too_large() {
            metrics.http_malformed();
        } else if error.is_timeout() {
            metrics.http_slow();
        }
    }
}

/// Returns the span of a request. The query stays out of it: it may hold a signature.
fn span(front: &Front, request: &Request<Incoming>) -> tracing::Span {
    let door = match front {
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

async fn answer(
    shared: &Shared,
    client: &Client,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let hosts = parts.headers.get_all("host").iter().count();
    if hosts > 1 || client.heads.has_two_lengths(&parts.headers) {
        shared.metrics().inspect(|it| it.http_ambiguous());
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
        return response;
    }
    let bodies = &shared.bodies;
    let api = match &shared.front {
        Front::Gateway(gateway) => {
            return doors::gateway(gateway, bodies, client, &parts, body).await;
        }
        Front::Api(api) => api,
    };
    let mut body = Some(body);
    let by_url = doors::function_url(api, bodies, client, &parts, &mut body).await;
    let mut response = match (by_url, body) {
        (Some(response), _) => return response,
        (None, Some(body)) => {
            let operated = operate(api, bodies, &parts, body).await;
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
    bodies: &Bodies,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let Api { host, urls, archives, .. } = api;
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
        Refusal::TooSlow => ApiError::timeout("The request's body did not come in time."),
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

const REQUEST_ID: &str = "x-amzn-requestid";
const CONNECTIONS_MAX: usize = 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
