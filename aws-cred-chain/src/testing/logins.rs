//! The state of logins at the fake services.

use std::collections::VecDeque;

use crate::credentials::Secret;

/// Registered clients, pending device logins and authorization codes.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// The ids and secrets of registered clients.
    pub(super) clients: Vec<(String, Secret)>,
    /// The errors that answer the next polls for a device's token, before the person has logged in.
    pub(super) polls: VecDeque<String>,
    pub(super) device_code: Option<Secret>,
    /// The authorization codes that browsers were given. Each can be redeemed once.
    pub(super) codes: Vec<Authorized>,
}

/// An authorization code that a browser was given.
#[derive(Debug)]
pub(super) struct Authorized {
    pub(super) code: Secret,
    pub(super) challenge: String,
    pub(super) redirect_uri: String,
}
