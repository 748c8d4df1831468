//! Connections to WebSocket APIs: the stream that a handshake leaves is served by a task.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use lambda_gateway::{AccessLog, Arrival, Gateway, Request, Session, SessionHost};

use super::client::{self, Client};
use super::connections::Busy;

/// What a response that accepts a handshake carries on its way to the server.
#[derive(Clone, Debug)]
struct Attached(Arc<Mutex<Option<Opened>>>);

/// A connection whose handshake is accepted.
#[derive(Debug)]
pub(super) struct Opened {
    session: Session,
    upgrade: OnUpgrade,
}

/// Answers a handshake.
pub(super) async fn open(
    gateway: &Arc<Gateway>,
    request: &Request,
    arrival: &Arrival,
    parts: &Parts,
) -> Response<Full<Bytes>> {
    // Who knows the identifier can send to the client.
    let id = uuid::Uuid::new_v4().simple().to_string();
    let opened = gateway.open(request, arrival, &id).await;
    if let Some(line) = opened.handled.log {
        client::log(line);
    }
    let mut response = client::sent(opened.handled.response, arrival);
    if let (Some(session), Some(upgrade)) = (opened.session, parts.extensions.get::<OnUpgrade>()) {
        let opened = Opened { session, upgrade: upgrade.clone() };
        response.extensions_mut().insert(Attached(Arc::new(Mutex::new(Some(opened)))));
    }
    response
}

/// Returns the connection that a response accepts.
pub(super) fn opened(response: &mut Response<Full<Bytes>>) -> Option<Opened> {
    let attached = response.extensions_mut().remove::<Attached>()?;
    attached.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Opened {
    /// Serves the connection until it ends. It is busy as long.
    pub(super) async fn serve(self, client: Client, _busy: Busy) {
        match self.upgrade.await {
            Ok(stream) => self.session.run(TokioIo::new(stream), &client).await,
            Err(error) => {
                tracing::debug!(%error, "a client has gone after its handshake");
                self.session.lost(&client).await;
            }
        }
    }
}

impl SessionHost for Client {
    fn arrival(&self) -> Arrival {
        client::arrival(self)
    }

    fn log(&self, log: AccessLog) {
        client::log(log);
    }
}
