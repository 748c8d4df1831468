//! An open connection: its messages invoke functions, and what functions send reaches the client.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::connections::{Close, Entry, GOING_AWAY, Outgoing};
use super::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, routes};
use crate::access_log::AccessLog;
use crate::event::seen::{Authorized, Connection, Seen};
use crate::event::websocket;
use crate::gateway::{Gateway, log};
use crate::request::{Arrival, Request};
use crate::response::{Refusal, Response};

/// What a session needs of its server.
pub trait SessionHost: Send + Sync {
    /// Returns the present as an arrival: the time, the client's address, and an identifier that no
    /// other arrival has.
    fn arrival(&self) -> Arrival;

    /// Takes the line of a message for the access log.
    fn log(&self, log: AccessLog);
}

/// An open connection to a WebSocket API. Dropping it closes the connection without the event of
/// `$disconnect`.
#[must_use = "a session is served by `run`"]
pub struct Session {
    gateway: Arc<Gateway>,
    origin: Origin,
    entry: Entry,
}

/// What a connection was opened with.
pub(super) struct Origin {
    /// The front door's number.
    pub(super) number: usize,
    /// The stage's number.
    pub(super) stage: usize,
    /// The handshake's request.
    pub(super) request: Request,
    pub(super) authorizer: Option<Authorized>,
    pub(super) connection: Connection,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The identifier lets whoever knows it send to the client, and the request may hold a key.
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What ended a connection, as the event of `$disconnect` tells it.
#[derive(Debug)]
struct End {
    status: u16,
    reason: String,
}

impl End {
    fn new(status: u16, reason: &str) -> Self {
        Self { status, reason: reason.to_owned() }
    }
}

impl Session {
    pub(super) fn new(gateway: Arc<Gateway>, origin: Origin, entry: Entry) -> Self {
        Self { gateway, origin, entry }
    }

    /// Serves the connection on the stream that the handshake left, until it ends. Then invokes the
    /// function of `$disconnect`, if there is one.
    ///
    /// Messages of one client may be with functions at the same time, at most four; then no more
    /// are read. A connection ends after 10 minutes in which nothing was sent or came, and after
    /// two hours. It ends too when a message for the client cannot be written for 10 s.
    pub async fn run<S>(self, stream: S, host: &dyn SessionHost)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BYTES_MAX);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let Self { gateway, origin, mut entry } = self;
        let caller = Caller { gateway: &gateway, origin: &origin, host };
        let mut calls = FuturesUnordered::new();
        let end = serve(&mut socket, &mut entry, &caller, &mut calls).await;
        drop(socket);
        let _slot = entry.leave();
        // Messages that came before the end are still handled.
        let rest = async { while calls.next().await.is_some() {} };
        join(rest, caller.disconnect(&end)).await;
    }

    /// Ends a connection whose stream was lost before it could be served.
    pub async fn lost(self, host: &dyn SessionHost) {
        let Self { gateway, origin, entry } = self;
        let _slot = entry.leave();
        let caller = Caller { gateway: &gateway, origin: &origin, host };
        caller.disconnect(&End::new(ABNORMAL, "Connection closed abnormally")).await;
    }
}

/// Texts for the client, from invocations that have ended.
type Calls<'a> = FuturesUnordered<BoxFuture<'a, Option<String>>>;

/// Serves a connection until it ends.
async fn serve<'a, S>(
    socket: &mut WebSocketStream<S>,
    entry: &mut Entry,
    caller: &'a Caller<'a>,
    calls: &mut Calls<'a>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let mut active = began;
    loop {
        let until = (active + IDLE_TIMEOUT).min(began + LIFE);
        let mut expired = pin!(sleep_until(until));
        let out = tokio::select! {
            came = socket.next(), if calls.len() < CALLS_MAX => match came {
                Some(Ok(Message::Text(text))) => {
                    calls.push(Box::pin(caller.message(text)));
                    None
                }
                Some(Ok(Message::Binary(_))) => return close(socket, NOT_TEXT).await,
                Some(Ok(Message::Close(frame))) => {
                    // The answer to it is written with the next read.
                    drop(timeout(WRITE_TIMEOUT, socket.next()).await);
                    return frame.map_or_else(
                        || End::new(NO_STATUS, "Client-side close frame status not set"),
                        |it| End::new(it.code.into(), it.reason.as_str()),
                    );
                }
                Some(Ok(_)) => None,
                Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                    return close(socket, TOO_LONG).await;
                }
                Some(Err(SocketError::Utf8(_))) => return close(socket, NO_UTF8).await,
                Some(Err(SocketError::Protocol(error)))
                    if error != ProtocolError::ResetWithoutClosingHandshake =>
                {
                    return close(socket, PROTOCOL).await;
                }
                Some(Err(_)) | None => {
                    return End::new(ABNORMAL, "Connection closed abnormally");
                }
            },
            Some(text) = calls.next(), if !calls.is_empty() => match text {
                Some(text) => Some((text, None)),
                None => continue,
            },
            Some(Outgoing { text, room }) = entry.outgoing.recv() => Some((text, Some(room))),
            Ok(()) = entry.close.changed() => {
                let asked = entry.close.borrow_and_update().unwrap_or(GOING_AWAY);
                return close(socket, asked).await;
            }
            () = &mut expired => return close(socket, GOING_AWAY).await,
        };
        active = Instant::now();
        entry.active(caller.host.arrival().unix_ms);
        if let Some((text, _room)) = out {
            let message = Message::Text(Utf8Bytes::from(text));
            match timeout(WRITE_TIMEOUT, socket.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::new(ABNORMAL, "Connection closed abnormally"),
                Err(_) => return End::new(GOING_AWAY.status, "The client reads too slowly"),
            }
        }
    }
}

/// Closes a connection, and waits a moment for the client to do the same.
async fn close<S>(socket: &mut WebSocketStream<S>, close: Close) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code: close.status.into(), reason: close.reason.into() };
    let closing = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    drop(timeout(CLOSE_TIMEOUT, closing).await);
    End::new(close.status, close.reason)
}

/// Invokes the functions of a connection.
struct Caller<'a> {
    gateway: &'a Arc<Gateway>,
    origin: &'a Origin,
    host: &'a dyn SessionHost,
}

impl Caller<'_> {
    /// Handles a message. Returns what the client is told.
    async fn message(&self, text: Utf8Bytes) -> Option<String> {
        let arrival = self.host.arrival();
        let api = self.gateway.at(self.origin.number)?;
        let Some(route) = routes::of_message(api, &text) else {
            return Some(self.error(&arrival, Refusal::NoRoute));
        };
        let matched = routes::matched(api.stages.get(self.origin.stage)?, route);
        let seen = self.seen(api, &matched, &arrival);
        let event = websocket::message(&seen, &text);
        let doors = self.gateway.doors(self.origin.number);
        let answered = routes::invoke(&doors, &seen, event).await;
        let (response, told) = match answered {
            Ok(response) => {
                let body = String::from_utf8(response.body.to_vec()).ok();
                let body = body.filter(|it| route.route_response && !it.is_empty());
                // A longer one than a message may be is not sent.
                (response, body.filter(|it| it.len() <= MESSAGE_BYTES_MAX))
            }
            Err(refusal) => {
                let response = Response::new(refusal.websocket_parts().0, "");
                (response, Some(self.error(&arrival, refusal)))
            }
        };
        if let Some(line) = log(&seen, &response, None) {
            self.host.log(line);
        }
        told
    }

    async fn disconnect(&self, end: &End) {
        let Some(api) = self.gateway.at(self.origin.number) else { return };
        let stage = api.stages.get(self.origin.stage);
        let (Some(route), Some(stage)) = (routes::route(api, "$disconnect"), stage) else { return };
        let (matched, arrival) = (routes::matched(stage, route), self.host.arrival());
        let seen = self.seen(api, &matched, &arrival);
        let event = websocket::disconnect(&seen, end.status, &end.reason);
        let doors = self.gateway.doors(self.origin.number);
        let response = match routes::invoke(&doors, &seen, event).await {
            Ok(response) => response,
            Err(refusal) => Response::new(refusal.websocket_parts().0, ""),
        };
        if let Some(line) = log(&seen, &response, None) {
            self.host.log(line);
        }
    }

    fn seen<'b>(
        &'b self,
        api: &'b crate::api::Api,
        matched: &'b crate::route::Matched<'b>,
        arrival: &'b Arrival,
    ) -> Seen<'b> {
        let Origin { request, authorizer, connection, .. } = self.origin;
        let (authorizer, connection) = (authorizer.clone(), Some(connection));
        Seen { api, matched, request, arrival, authorizer, connection }
    }

    /// Returns what the client is told of a message that no function has handled.
    fn error(&self, arrival: &Arrival, refusal: Refusal) -> String {
        let error = json!({
            "message": refusal.websocket_parts().1,
            "connectionId": self.origin.connection.id,
            "requestId": arrival.extended_request_id(),
        });
        error.to_string()
    }
}

/// Without a message for this time, a connection is closed (AWS: 10 minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest life of a connection (AWS: two hours).
const LIFE: Duration = Duration::from_secs(2 * 3600);
/// How long a client may take to read a message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer the server's close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages of one client that are with functions at once.
const CALLS_MAX: usize = 4;
const BUFFER_BYTES: usize = 8 << 10;
/// Messages and answers to pings that are not written yet.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// Ends without a close frame, and with one that has no status (RFC 6455, section 7.4.1).
const ABNORMAL: u16 = 1006;
const NO_STATUS: u16 = 1005;
/// AWS: "rejects it and disconnects the client with code 1003".
const NOT_TEXT: Close = Close { status: 1003, reason: "Binary frames are not supported" };
const TOO_LONG: Close = Close { status: 1009, reason: "Message too long" };
const NO_UTF8: Close = Close { status: 1007, reason: "Not UTF-8" };
const PROTOCOL: Close = Close { status: 1002, reason: "Protocol error" };
