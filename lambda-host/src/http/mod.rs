//! The AWS Lambda API over HTTP, for the AWS command line and SDKs.
//!
//! Without keys (`serve_with_keys`, feature `keys`) requests are not authenticated: signatures are
//! accepted and not checked. Serve on loopback then, or behind a proxy that authenticates callers.

mod archives;
mod body;
mod connections;
mod lambda;
mod logs;
mod serve;
#[cfg(feature = "keys")]
mod signature;

pub use serve::serve;
#[cfg(feature = "keys")]
pub use serve::serve_with_keys;
#[cfg(feature = "keys")]
pub use signature::Keys;
