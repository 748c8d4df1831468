//! What a server of the API has at hand for each request.

use super::archives::Archives;
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
    #[cfg(feature = "keys")]
    pub(super) keys: Option<KeyRing>,
}
