//! The handshake of a WebSocket (RFC 6455, section 4.2): a function may refuse the connection.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::routes;
use super::session::{Origin, Session};
use crate::api::Route;
use crate::event::seen::{Authorized, Connection, Seen};
use crate::event::websocket;
use crate::gateway::{Doors, Gateway, Handled, log};
use crate::kind::Kind;
use crate::request::{Arrival, Request};
use crate::response::{Refusal, Response};
use crate::route;

/// The answer to a handshake.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The response: 101 if the connection is open.
    pub handled: Handled,
    /// The connection, which waits for [`Session::run`].
    pub session: Option<Session>,
}

impl Gateway {
    /// Tells whether a request asks for a WebSocket of a WebSocket API, so that [`Gateway::open`]
    /// answers it.
    #[must_use]
    pub fn opens(&self, request: &Request) -> bool {
        let upgrades =
            request.header("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
        upgrades && self.api(request).is_some_and(|it| it.kind == Kind::WebSocket)
    }

    /// Opens a connection to a WebSocket API. The route `$connect`, if there is one, may refuse it.
    ///
    /// `id` becomes the connection's identifier. Whoever knows it can use `@connections`, so it
    /// must be unpredictable. It is made of characters that a path can have.
    pub async fn open(self: &Arc<Self>, request: &Request, arrival: &Arrival, id: &str) -> Opened {
        let answered =
            |response| Opened { handled: Handled { response, log: None }, session: None };
        let refused = |refusal: Refusal| answered(refusal.response(Kind::WebSocket));
        let Some((number, api)) = self.numbered(request) else { return refused(Refusal::NoStage) };
        let Some((stage, "/")) = route::stage(api, &request.path) else {
            return refused(Refusal::NoStage);
        };
        let Some(accept) = accept(request) else {
            return answered(Response::new(400, "").with_header("sec-websocket-version", "13"));
        };
        let Some(slot) = self.connections().slot() else { return refused(Refusal::Throttled) };
        let Ok(implicit) = Route::message("$connect", "") else {
            return refused(Refusal::Unavailable);
        };
        let own = routes::route(api, "$connect");
        let matched = routes::matched(stage, own.unwrap_or(&implicit));
        let connection = Connection { id: id.to_owned(), connected_unix_ms: arrival.unix_ms };
        let connection_seen = Some(&connection);
        let mut seen = Seen {
            api,
            matched: &matched,
            request,
            arrival,
            authorizer: None,
            connection: connection_seen,
        };
        let response = match own {
            Some(_) => connect(&self.doors(number), &mut seen).await,
            None => Response::new(200, ""),
        };
        if !(200..300).contains(&response.status) {
            let log = log(&seen, &response, None);
            return Opened { handled: Handled { response, log }, session: None };
        }
        let mut accepted = Response::new(101, "")
            .with_header("connection", "Upgrade")
            .with_header("upgrade", "websocket")
            .with_header("sec-websocket-accept", &accept);
        let protocol = response.header("sec-websocket-protocol");
        if let Some(protocol) = protocol.filter(|it| offers(request, it)) {
            accepted = accepted.with_header("sec-websocket-protocol", protocol);
        }
        let log = log(&seen, &accepted, None);
        let agent = request.header("user-agent").unwrap_or_default().to_owned();
        let client = (seen.source_ip().to_string(), agent);
        let authorizer = seen.authorizer.take();
        let entry = self.connections().add(slot, &connection, (number, stage.name.clone()), client);
        let mut request = request.clone();
        request.body.clear();
        let stage = api.stages.iter().position(|it| it.name == stage.name).unwrap_or_default();
        let origin = Origin { number, stage, request, authorizer, connection };
        let session = Some(Session::new(Arc::clone(self), origin, entry));
        Opened { handled: Handled { response: accepted, log }, session }
    }
}

/// Asks the authorizer and the function of `$connect`.
async fn connect(doors: &Doors<'_>, seen: &mut Seen<'_>) -> Response {
    if let Some(name) = &seen.matched.route.authorizer {
        match doors.authorize(name, seen).await {
            Ok(context) => seen.authorizer = Some(Authorized::Lambda(context)),
            Err(refusal) => return refusal.response(Kind::WebSocket),
        }
    }
    let event = websocket::connect(seen);
    let response = routes::invoke(doors, seen, event).await;
    response.unwrap_or_else(|refusal| refusal.response(Kind::WebSocket))
}

/// Returns the value that accepts a handshake; `None` if the request is none.
fn accept(request: &Request) -> Option<String> {
    let has = |name: &str, wanted: &str| {
        let words = request.header_values(name).flat_map(|it| it.split(','));
        words.map(str::trim).any(|it| it.eq_ignore_ascii_case(wanted))
    };
    let is_handshake = request.method == "GET"
        && request.protocol == "HTTP/1.1"
        && has("connection", "upgrade")
        && has("upgrade", "websocket")
        && request.header("sec-websocket-version") == Some("13");
    let key = request.header("sec-websocket-key").filter(|it| it.len() == KEY_CHARACTERS);
    key.filter(|_| is_handshake).map(|it| derive_accept_key(it.as_bytes()))
}

/// Tells whether a client offers a protocol.
fn offers(request: &Request, protocol: &str) -> bool {
    let offered = request.header_values("sec-websocket-protocol").flat_map(|it| it.split(','));
    offered.map(str::trim).any(|it| it == protocol)
}

/// Sixteen bytes in base64.
const KEY_CHARACTERS: usize = 24;
