//! A server of the Lambda Runtime API (2018-06-01) and Extensions API (2020-01-01), for runtimes
//! and extensions.
//!
//! [`Session`] is one sandbox's state. [`serve`] is the HTTP server over any byte streams
//! ([`Accept`]). Sources: AWS, "Using the Lambda runtime API for custom runtimes" and "Lambda
//! Extensions API".

mod channel;
mod http;
mod session;
mod subscription;
mod telemetry;

pub use channel::{Accept, Channel, Dial};
pub use http::serve;
#[cfg(unix)]
pub(crate) use http::serve_within;
pub use session::{Ready, Session, SessionSettings};
#[cfg(unix)]
pub(crate) use subscription::Source;
#[cfg(unix)]
pub(crate) use telemetry::{Tee, Telemetry};
