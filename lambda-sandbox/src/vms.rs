//! The traits of what starts virtual machines with room for many sandboxes.

use std::fmt;
use std::sync::Arc;

use crate::{Backend, BoxFuture, Error};

/// The size of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct VmSize {
    /// Memory for the sandboxes in it, in bytes. The guest's kernel has memory of its own beside.
    pub memory_bytes: u64,
    /// Processors for all sandboxes in it together.
    pub cpus: f64,
}

impl VmSize {
    /// Creates a size from memory for sandboxes, with as many processors as Lambda gives a function
    /// of that memory: one for each 1,769 MB.
    #[must_use]
    pub fn of_memory(memory_bytes: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes")]
        let cpus = memory_bytes as f64 / f64::from(1769 << 20);
        Self { memory_bytes, cpus }
    }
}

/// A backend of virtual machines, which makes one for each sandbox itself, and starts others for
/// many sandboxes.
pub trait VmProvider: Backend {
    /// Starts a machine that has no sandbox yet, and waits until it can create some.
    ///
    /// An implementation must leave nothing behind after an error or when the future is dropped.
    fn start_vm(&self, size: VmSize) -> BoxFuture<'_, Result<Box<dyn Vm>, Error>>;
}

/// A running virtual machine. Dropping it, with its backends and their sandboxes, ends it.
pub trait Vm: Send + Sync + fmt::Debug {
    /// Returns the backend whose sandboxes are in the machine.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Waits until the machine has ended, for whatever reason.
    fn ended(&self) -> BoxFuture<'_, ()>;

    /// Ends the machine with all sandboxes in it, and waits until nothing of it is left. May be
    /// called twice.
    fn end(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_follow_from_memory() {
        let size = VmSize::of_memory(3538 << 20);
        assert!((size.cpus - 2.0).abs() < 1e-9, "{size:?}");
    }
}
