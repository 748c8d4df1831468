//! The AWS Lambda API over HTTP, for the AWS command line and SDKs; function URLs; a gateway's front doors.
//!
//! Requests are not authenticated: signatures are accepted and not checked. Serve on loopback, or
//! behind a proxy that authenticates callers.

mod archives;
mod body;
mod connections;
mod doors;
mod lambda;
mod logs;
mod serve;
mod spelling;
mod urls;

pub use doors::HostFunctions;
pub use serve::{Server, serve};
