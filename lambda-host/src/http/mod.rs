//! The AWS Lambda API over HTTP, as the AWS command line and SDKs speak it.
//!
//! Without keys (`serve_with_keys`, feature `keys`) requests are not authenticated: signatures are taken and not checked.
//! Serve on loopback then, or behind something that checks callers.

mod archives;
mod body;
mod connections;
mod lambda;
mod serve;
#[cfg(feature = "keys")]
mod signature;

pub use serve::serve;
#[cfg(feature = "keys")]
pub use serve::serve_with_keys;
#[cfg(feature = "keys")]
pub use signature::Keys;
