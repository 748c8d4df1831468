//! A backend behind a byte stream: [`serve`] offers any [`Backend`](crate::Backend) to a peer, and
//! [`RemoteBackend`] is a backend whose sandboxes are the peer's. The stream may be vsock, a socket
//! or memory.
//!
//! # Protocol
//!
//! Each connection serves one sandbox, a description of the backend, or a sweep. Both sides send a
//! hello with the protocol's version, and accept no other version. A frame has the length of a
//! header and of a body (`u32`, little-endian), the header of at most [`HEADER_BYTES_MAX`] bytes
//! and the body of at most [`BODY_BYTES_MAX`] bytes. Frames without a header carry the first parts
//! of a longer body.
//!
//! A sandbox that has ended its init can be parked: it outlives its connection, frozen, and another
//! connection adopts it. In between, the machine of the server may be saved, and any number of
//! machines restored from that, each of which then has the sandbox. An adopting client sends a seed
//! and the time, which the server applies before anything else ([`guest::Wake`]).
//!
//! # Contract
//!
//! 1. The end of a connection ends its sandbox: the server drops the driver. A parked one ends with
//!    the [`Server`].
//! 2. Dropping a sandbox of the client, or the future of any of its methods, ends the connection.
//! 3. Neither side keeps more than a fixed amount for a peer that does not read, nor more than the
//!    specification's limits for one that writes. Output that a slow connection holds up makes the
//!    program wait.
//! 4. A client waits at most [`RemoteBackend::with_patience`] longer than the specification's time
//!    limits allow, so that a peer cannot hold it. [`Sandbox::run`](crate::Sandbox::run) without a
//!    time limit waits until the program has ended or was killed.
//! 5. Input that breaks the protocol ends the connection with a [`Fault`], on either side.
//!
//! The server trusts its client with the backend. The client does not trust the server with
//! anything but the answers of its own sandboxes.
//!
//! What does not cross: options of the Linux backend
//! ([`SandboxSpec`](crate::SandboxSpec)`::linux`), which are refused. Paths of the root, the
//! interface of the network and numbers of processors are those of the server's machine.
//! [`Sandbox::pressure`](crate::Sandbox::pressure) is that after the last call, and
//! [`Handle::usage`](crate::Handle::usage) at most 100 ms old.

#[cfg(feature = "vm")]
mod ahead;
mod call;
mod client;
mod connect;
mod fault;
mod forward;
mod frame;
pub mod guest;
mod inbox;
mod input;
mod interned;
mod link;
mod message;
mod outbox;
mod parking;
mod serve;
mod session;
mod short;
mod types;
mod wire;

#[cfg(feature = "vm")]
pub(crate) use ahead::Ahead;
pub use client::RemoteBackend;
#[cfg(feature = "vm")]
pub(crate) use client::RemoteDriver;
pub use connect::{Connect, Duplex};
pub use fault::Fault;
pub use frame::{BODY_BYTES_MAX, HEADER_BYTES_MAX};
pub use message::VERSION;
pub use serve::{Server, serve};
