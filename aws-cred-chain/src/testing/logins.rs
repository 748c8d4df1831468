//! The state of the fake services' logins.

use std::collections::VecDeque;

use crate::credentials::Secret;

/// The clients, codes and polls of logins.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// Registered clients: their secrets by their ids.
    pub(super) clients: Vec<(String, Secret)>,
    /// The errors that polls for a device's token are answered with before the person is done.
    pub(super) polls: VecDeque<String>,
    pub(super) device_code: Option<Secret>,
    /// The codes that browsers were given, each good for one exchange.
    pub(super) codes: Vec<Authorized>,
}

/// A code that a browser was given.
#[derive(Debug)]
pub(super) struct Authorized {
    pub(super) code: Secret,
    pub(super) challenge: String,
    pub(super) redirect_uri: String,
}
