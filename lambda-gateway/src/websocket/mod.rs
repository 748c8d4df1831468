//! WebSocket APIs: connections whose messages invoke functions, and the requests by which
//! functions reach them.

pub(crate) mod connections;
mod handshake;
pub(crate) mod management;
mod routes;
mod session;

pub use handshake::Opened;
pub use session::{Session, SessionHost};

/// The longest message in bytes, in either direction (AWS: 128 KB).
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// The longest frame of a client, in bytes (AWS: 32 KB).
const FRAME_BYTES_MAX: usize = 32 << 10;
