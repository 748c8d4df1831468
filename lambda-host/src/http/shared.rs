//! What the connections of a server share, and where they count refused requests.

use std::sync::Arc;

use lambda_gateway::Gateway;

use super::api::Api;
use super::body::Bodies;
use crate::host::Host;
use crate::metrics::Registry;

/// What a server serves.
#[derive(Debug)]
pub(super) enum Front {
    Api(Box<Api>),
    Gateway(Arc<Gateway>),
}

/// What the connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bodies: Bodies,
    pub(super) counts: Option<Host>,
    pub(super) front: Front,
}

impl Shared {
    /// Returns the metrics in which requests are counted. A gateway may be of no host.
    pub(super) fn metrics(&self) -> Option<&Registry> {
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
