//! What a server of the API has at hand for each request.

use super::archives::Archives;
use super::page::Page;
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
    pub(super) page: Option<Page>,
    /// Whether `/metrics` is served.
    pub(super) metrics: bool,
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
