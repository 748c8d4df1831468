//! One connection: HTTP/1.1 on plain TCP; with TLS, HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(feature = "tls")]
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::answer::{answer, span};
use super::client::Client;
use super::connections::Place;
use super::resets::Resets;
use super::shared::Shared;
use super::spelling::Recorded;
use super::streamed::{self, Reply};
#[cfg(feature = "tls")]
use super::tls::{Tls, is_http2};

/// A connection that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    client: Client,
    place: Arc<Place>,
    resets: Arc<Resets>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, client: Client, place: Arc<Place>) -> Self {
        Self { shared, client, place, resets: Arc::new(Resets::new(Instant::now())) }
    }

    /// Serves HTTP/1.1 on a stream until the connection ends.
    pub(super) async fn http1<S>(self, stream: S, stopping: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        // A client may shut down its sending side and still wait for the answer.
        builder.half_close(true);
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let stream = TokioIo::new(Recorded::new(stream, self.client.heads.clone()));
        let connection = builder.serve_connection(stream, self.clone()).with_upgrades();
        self.ended(until_stop(connection, stopping, |it| it.graceful_shutdown())).await;
    }

    /// Agrees on keys and a protocol, and serves it until the connection ends.
    #[cfg(feature = "tls")]
    pub(super) async fn tls(self, stream: TcpStream, tls: Tls, mut stopping: watch::Receiver<()>) {
        let agreed = tokio::select! {
            agreed = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => agreed,
            () = self.place.asked_to_close() => return,
            _ = stopping.changed() => return,
        };
        let stream = match agreed {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
            Err(_) => return self.shared.count_slow(),
        };
        if is_http2(&stream) {
            self.http2(stream, stopping).await;
        } else {
            self.http1(stream, stopping).await;
        }
    }

    #[cfg(feature = "tls")]
    async fn http2<S>(self, stream: S, stopping: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let executor = hyper_util::rt::TokioExecutor::new();
        let mut builder = hyper::server::conn::http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), self.clone());
        let connection = until_stop(connection, stopping, |it| it.graceful_shutdown());
        let place = Arc::clone(&self.place);
        tokio::select! {
            () = self.ended(connection) => {}
            // HTTP/1.1 has the time of a head for this.
            () = place.idle_for(IDLE_TIMEOUT) => tracing::debug!("an idle connection is closed"),
        }
    }

    /// Waits for the end of a connection, or until it is asked to close.
    async fn ended(&self, connection: impl Future<Output = hyper::Result<()>>) {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
                self.shared.count_broken(&error);
            },
            () = self.place.asked_to_close() => tracing::debug!("a connection is closed"),
        }
    }
}

/// Serves a connection until it ends. When the server stops, lets `shut_down` end it after the
/// requests in progress.
async fn until_stop<C>(
    connection: C,
    mut stopping: watch::Receiver<()>,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stopping.changed() => shut_down(connection.as_mut()),
    }
    connection.await
}

impl Service<Request<Incoming>> for Connection {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (own, busy) = (self.clone(), self.place.busy());
        Box::pin(async move {
            let mut unanswered = Unanswered { connection: &own, waits: true };
            let span = span(&own.shared, &request);
            let answered = answer(&own.shared, &own.client, request).instrument(span.clone());
            #[cfg_attr(
                not(feature = "websocket"),
                expect(unused_mut, reason = "a handshake is taken from it")
            )]
            let mut response = answered.await;
            unanswered.waits = false;
            span.record("http.response.status_code", response.status().as_u16());
            #[cfg(feature = "websocket")]
            if let Some(opened) = super::websocket::opened(&mut response) {
                // What comes from now on is no head, and not recorded.
                drop(tokio::spawn(opened.serve(own.client.clone(), busy)));
                return Ok(response.map(http_body_util::Either::Left));
            }
            own.client.heads.answered();
            Ok(streamed::reply(response, busy))
        })
    }
}

/// A request that is being answered. If it is dropped before, the client took it back.
struct Unanswered<'a> {
    connection: &'a Connection,
    waits: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Connection { shared, place, resets, .. } = self.connection;
        if self.waits && resets.count(Instant::now()) {
            shared.count_reset();
            place.close();
        }
    }
}

/// How long the head of a request may take, and a connection of HTTP/1.1 be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long agreeing on keys may take.
#[cfg(feature = "tls")]
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/2 may be without a request.
#[cfg(feature = "tls")]
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// After this time without a frame, a client of HTTP/2 is asked for one.
#[cfg(feature = "tls")]
const PING_INTERVAL: Duration = Duration::from_secs(20);
#[cfg(feature = "tls")]
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on a connection of HTTP/2.
#[cfg(feature = "tls")]
const STREAMS_MAX: u32 = 100;
#[cfg(feature = "tls")]
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// How much of a body may arrive before it is read.
#[cfg(feature = "tls")]
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
#[cfg(feature = "tls")]
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// How much of an answer waits for a client that reads slowly.
#[cfg(feature = "tls")]
const SEND_BUFFER_BYTES: usize = 128 << 10;
