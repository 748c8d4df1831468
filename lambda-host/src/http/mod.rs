//! The AWS Lambda API over HTTP, for the AWS command line and SDKs; function URLs; a gateway's
//! front doors.
//!
//! Without keys (`serve_with_keys`, feature `keys`) requests are not authenticated: signatures are
//! accepted and not checked. Serve on loopback then, or behind a proxy that authenticates callers.

mod answer;
mod api;
mod archives;
mod body;
#[cfg(feature = "keys")]
mod chunked;
mod client;
mod connection;
mod connections;
mod doors;
mod functions;
mod lambda;
mod logs;
mod metrics;
mod operator;
mod page;
mod resets;
mod serve;
mod shared;
#[cfg(feature = "keys")]
mod signature;
mod spelling;
mod streamed;
#[cfg(feature = "tls")]
mod tls;
mod url_stream;
mod urls;
#[cfg(feature = "websocket")]
mod websocket;

pub use functions::HostFunctions;
pub use operator::Operator;
#[cfg(feature = "keys")]
pub use serve::serve_with_keys;
pub use serve::{Server, serve};
#[cfg(feature = "keys")]
pub use signature::{KeyRing, Keys};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
