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
use tokio::net::TcpListener;

use super::archives::Archives;
use super::body::{Bodies, Refusal, drain};
use super::connections::Connections;
use super::lambda::error::ApiError;
use super::lambda::operations::Operation;
use super::logs;
#[cfg(feature = "keys")]
use super::signature::Keys;
use crate::code::CodeDigest;
use crate::host::Host;

/// Serves the API on `listener` until `stop` resolves. Then answers the requests in progress, and
/// returns.
///
/// Limits: at most 1,024 open connections; beyond that the one that has been idle for the longest
/// time is closed. The head of a request must arrive within 30 s, its body within 20 s plus a
/// second for each 64 KiB that has arrived. All bodies together may take 512 MiB for uploads of
/// code, and as much for other requests. A body that gets no memory for 5 s is refused.
pub async fn serve(host: Host, listener: TcpListener, stop: impl Future<Output = ()>) {
    let shared = Shared::new();
    run(host, shared, listener, stop).await;
}

/// As [`serve`], for holders of these keys alone: every request must bear a good signature, in its headers or its query.
///
/// Links to archives (`Code.Location`) and the paths `/_health` and `/_ready` need none.
#[cfg(feature = "keys")]
pub async fn serve_with_keys(
    host: Host,
    keys: Keys,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) {
    let shared = Shared { keys: Some(keys), ..Shared::new() };
    run(host, shared, listener, stop).await;
}

async fn run(host: Host, shared: Shared, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections = Connections::new(CONNECTIONS_MAX);
    let shared = Arc::new(shared);
    let graceful = GracefulShutdown::new();
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
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
        let (host, shared, its_place) = (host.clone(), Arc::clone(&shared), Arc::clone(&place));
        let service = service_fn(move |request| {
            let (host, shared, busy) = (host.clone(), Arc::clone(&shared), its_place.busy());
            async move {
                let response = answer(&host, &shared, request).await;
                drop(busy);
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        // A client may shut down its sending side and still wait for the answer.
        builder.half_close(true);
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        drop(tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                () = place.asked_to_close() => tracing::debug!("an idle connection gives way"),
            }
        }));
    }
    graceful.shutdown().await;
}

/// What the connections of a server share.
#[derive(Debug)]
struct Shared {
    bodies: Bodies,
    archives: Archives,
    #[cfg(feature = "keys")]
    keys: Option<Keys>,
}

impl Shared {
    fn new() -> Self {
        Self {
            bodies: Bodies::new(),
            archives: Archives::new(),
            #[cfg(feature = "keys")]
            keys: None,
        }
    }
}

async fn answer(host: &Host, shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = match operate(host, shared, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
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
    host: &Host,
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (parts, body) = request.into_parts();
    if Archives::is_link(parts.uri.path()) && parts.method == http::Method::GET {
        return archive(host, shared, &parts).await;
    }
    if matches!(parts.uri.path(), "/_health" | "/_ready") && parts.method == http::Method::GET {
        return Ok(Response::new(Full::new(Bytes::from_static(b"ok\n"))));
    }
    #[cfg(feature = "keys")]
    let signed = match &shared.keys {
        Some(keys) => Some(keys.check(&parts, std::time::SystemTime::now())?),
        None => None,
    };
    let call = Call::of(&parts)?;
    let bytes_max = call.body_bytes_max();
    let too_large = || ApiError::too_large(call.name(), bytes_max);
    if body.size_hint().lower() > bytes_max as u64 {
        drain(body).await;
        return Err(too_large());
    }
    let body = shared.bodies.read(body, bytes_max).await.map_err(|refusal| match refusal {
        Refusal::TooLarge => too_large(),
        Refusal::TooSlow => ApiError::timeout("The request's body did not come in time."),
        Refusal::NoRoom => ApiError::busy("Too many request bodies are being read; try again."),
        Refusal::Broken(error) => ApiError::content(format!("request body: {error}")),
    })?;
    #[cfg(feature = "keys")]
    if let Some(signed) = signed {
        signed.check(&body.bytes)?;
    }
    // The body's memory stays charged until the request is answered.
    match call {
        Call::Lambda(operation) => {
            operation.run(host, &shared.archives, &parts, body.bytes.clone()).await
        }
        Call::Logs(action) => Ok(logs::answer(host, action, &body.bytes).await),
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
    shared: &Shared,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let query = request.uri.query().unwrap_or_default();
    let digest = shared.archives.digest(request.uri.path(), query);
    let digest = digest.and_then(CodeDigest::from_hex).ok_or_else(|| {
        let message = "The link was not signed by this host, or its time is over.";
        ApiError::new(http::StatusCode::FORBIDDEN, "AccessDenied", message)
    })?;
    let zip = host.archive(&digest).await?;
    let mut response = Response::new(Full::new(zip));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/zip"));
    Ok(response)
}

const REQUEST_ID: &str = "x-amzn-requestid";
const CONNECTIONS_MAX: usize = 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
