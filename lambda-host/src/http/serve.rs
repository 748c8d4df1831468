//! The HTTP server: connections, bodies and their bounds.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::lambda::error::ApiError;
use super::lambda::operations::Operation;
use crate::host::Host;

/// Serves the API on `listener` until `stop` resolves; then answers what was begun, and returns.
///
/// At the most 1,024 connections are open at once; further ones wait to be taken. A request's head must
/// arrive within 30 s, its body within 60 s. All bodies together take 1 GiB at the most: a request waits
/// until there is room for its own.
pub async fn serve(host: Host, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, or a client that was gone at once: neither ends the server.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let (host, bodies) = (host.clone(), Arc::clone(&bodies));
        let service = service_fn(move |request| {
            let (host, bodies) = (host.clone(), Arc::clone(&bodies));
            async move { Ok::<_, Infallible>(answer(&host, &bodies, request).await) }
        });
        let mut builder = http1::Builder::new();
        // A client may say that it sends no more, and still wait for its answer.
        builder.half_close(true);
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        }));
    }
    graceful.shutdown().await;
}

async fn answer(
    host: &Host,
    bodies: &Semaphore,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut response = match operate(host, bodies, request).await {
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
    bodies: &Semaphore,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (parts, body) = request.into_parts();
    let operation = Operation::of(&parts)?;
    let bytes_max = operation.body_bytes_max();
    let too_large = || ApiError::too_large(operation.name(), bytes_max);
    if body.size_hint().lower() > bytes_max as u64 {
        drain(body).await;
        return Err(too_large());
    }
    let announced =
        body.size_hint().upper().map_or(bytes_max, |it| usize::try_from(it).unwrap_or(bytes_max));
    let room = u32::try_from(announced.min(bytes_max).div_ceil(1024)).unwrap_or(u32::MAX);
    // Given back when the request is answered. The semaphore is never closed.
    let _room = bodies.acquire_many(room).await;
    let body =
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => return Err(ApiError::content(format!("request body: {error}"))),
            Err(_) => return Err(ApiError::content("request body: not whole within 60 s")),
        };
    operation.run(host, &parts, body).await
}

/// Reads a body that is too large and keeps none of it, up to a bound: a client that is still writing
/// would else meet a reset connection in place of the answer.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = frame.data_ref().map(Bytes::len).and_then(|it| left.checked_sub(it))
            else {
                return;
            };
            left = rest;
        }
    };
    if tokio::time::timeout(BODY_TIMEOUT, reading).await.is_err() {
        tracing::debug!("a request body over the limit did not end");
    }
}

const REQUEST_ID: &str = "x-amzn-requestid";
const CONNECTIONS_MAX: usize = 1024;
const BODIES_KIB_MAX: usize = 1 << 20;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const DRAIN_BYTES_MAX: usize = 256 << 20;
