//! A worker: makes sandboxes and runs invocations in them, as the worker manager says.
//!
//! [`Worker`] is the seam: [`LocalWorker`] is the one in this process; what crosses the seam is the
//! data in [`protocol`], so that others may stand for machines.

mod connection;
mod container;
mod context;
mod date;
pub(crate) mod failure;
mod files;
mod life;
mod local;
pub(crate) mod log;
mod making;
pub mod protocol;
#[cfg(feature = "roles")]
pub(crate) mod roles;
pub(crate) mod runtime;
mod specification;
mod stream;
mod vms;

use std::fmt;

use lambda_sandbox::BoxFuture;

pub(crate) use self::connection::Link;
pub use self::connection::{Connection, Disconnected};
pub(crate) use self::date::civil;
pub use self::local::LocalWorker;
pub(crate) use self::local::{has_snapshots, machine_memory_bytes};
use self::protocol::ToWorker;

/// Makes sandboxes and runs invocations in them.
///
/// The host calls [`Worker::connect`] once. The implementor sends [`protocol::WorkerEvent::Joined`]
/// first, answers each command as the protocol says, and drops every clone of the connection when
/// it is lost: the host then counts its sandboxes as gone.
pub trait Worker: Send + Sync + fmt::Debug {
    /// Begins to work for a host. Must not block.
    fn connect(&self, connection: Connection);

    /// Begins to carry a command out. Must not block.
    fn carry_out(&self, message: ToWorker);

    /// Waits until no sandbox is left; called after the host has had all of them destroyed.
    fn ended(&self) -> BoxFuture<'_, ()>;
}
