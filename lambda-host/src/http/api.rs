//! What a server of the API has at hand for each request.

use super::archives::Archives;
use super::operator::Operator;
#[cfg(feature = "keys")]
use super::signature::KeyRing;
use super::urls::Urls;
use crate::host::Host;

/// The API of a host, with its function URLs.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) host: Host,
    pub(super) urls: Urls,
    pub(super) archives: Archives,
    pub(super) operator: Operator,
    /// Whether the operator's page is served.
    pub(super) page: bool,
    /// Whether `/metrics` is served.
    pub(super) metrics: bool,
    /// Held by the request for metrics that is being answered.
    pub(super) scrapes: tokio::sync::Mutex<()>,
    #[cfg(feature = "keys")]
    pub(super) keys: Option<KeyRing>,
}

impl Api {
    /// Tells whether callers must sign their requests.
    pub(super) fn is_locked(&self) -> bool {
        #[cfg(feature = "keys")]
        let locked = self.keys.is_some();
        #[cfg(not(feature = "keys"))]
        let locked = false;
        locked
    }
}
