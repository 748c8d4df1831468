//! The AWS Lambda API over HTTP, as the AWS command line and SDKs speak it.
//!
//! Requests are not authenticated: signatures are taken and not checked. Serve on loopback, or behind
//! something that checks callers.

mod archives;
mod body;
mod connections;
mod lambda;
mod serve;

pub use serve::serve;
