//! A call over a connection, which waits for its end within limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Fault;
use super::link::Link;
use super::message::{Reply, Request};

/// Sends a request and waits for its reply. Waits for `limit`, if there is one, and the patience of
/// the connection. After a kill it waits for the patience alone.
///
/// Dropping the future ends the connection.
///
/// # Errors
///
/// Why the connection has ended.
pub(super) async fn call(
    link: &Arc<Link>,
    request: &Request,
    body: Bytes,
    limit: Option<Duration>,
) -> Result<(Reply, Bytes), Fault> {
    let (sender, receiver) = oneshot::channel();
    {
        let mut state = link.state();
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        state.call = Some(sender);
    }
    link.send(request, body);
    let ending = Ending(link);
    let patience = link.patience;
    let silence = async {
        let mut killed = link.killed.subscribe();
        let killed = async {
            // The sender lives as long as the link.
            drop(killed.wait_for(|killed| *killed).await);
            tokio::time::sleep(patience).await;
        };
        match limit {
            None => killed.await,
            Some(limit) => tokio::select! {
                () = killed => {}
                () = tokio::time::sleep(limit.saturating_add(patience)) => {}
            },
        }
    };
    let reply = tokio::select! {
        biased;
        reply = receiver => reply.map_err(|_gone| link.fault()),
        () = silence => {
            link.end(Fault::Silent(limit.unwrap_or_default().saturating_add(patience)));
            Err(link.fault())
        }
    };
    std::mem::forget(ending);
    reply
}

/// Ends the connection when a call is dropped before its end.
struct Ending<'a>(&'a Link);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(Fault::Closed);
    }
}
