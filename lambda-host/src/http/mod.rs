//! The AWS Lambda API over HTTP, for the AWS command line and SDKs.
//!
//! Requests are not authenticated: signatures are accepted and not checked. Serve on loopback, or
//! behind a proxy that authenticates callers.

mod archives;
mod body;
mod connections;
mod lambda;
mod logs;
mod serve;

pub use serve::serve;
