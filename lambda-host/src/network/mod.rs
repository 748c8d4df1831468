//! Networks of functions: the seam to what connects sandboxes to them, and its implementations.
//!
//! The placement engine decides when an interface starts and which sandbox gets it. An
//! [`InterfaceProvider`] carries it out. `Cards` (feature `network`) is the provider of this
//! machine, [`FakeInterfaces`] that of tests.

#[cfg(all(feature = "network", target_os = "linux", target_arch = "x86_64"))]
mod cards;
mod definition;
pub(crate) mod error;
mod fake;
#[cfg(all(feature = "network", target_os = "linux", target_arch = "x86_64"))]
mod resolver;
pub(crate) mod vpc;

use std::any::Any;
use std::fmt;

use lambda_sandbox::{BoxFuture, SandboxSpec};
use tokio::sync::mpsc;

#[cfg(all(feature = "network", target_os = "linux", target_arch = "x86_64"))]
pub use self::cards::Cards;
pub use self::definition::{
    Definitions, EgressDefinition, LinkDefinition, SecurityGroupDefinition, SubnetDefinition,
    VpcDefinition,
};
pub use self::error::NetworkError;
pub use self::fake::FakeInterfaces;
#[cfg(all(feature = "network", target_os = "linux", target_arch = "x86_64"))]
pub use self::resolver::host_resolver;
pub use self::vpc::{FunctionNetwork, VpcConfig};
use crate::worker::protocol::InterfaceId;

/// Starts network interfaces and connects sandboxes to them.
///
/// The host calls [`InterfaceProvider::connect`] once, before the other methods that change
/// something. Dropping the provider must release all interfaces.
pub trait InterfaceProvider: Send + Sync + fmt::Debug {
    /// Takes the channel on which to report that an interface is full, has room, or is gone.
    fn connect(&self, reports: InterfaceReports);

    /// Returns how many interfaces a network can have, at least 1; `None` if the provider connects
    /// functions of this network to nothing, which only [`FunctionNetwork::Default`] allows.
    ///
    /// # Errors
    ///
    /// Returns [`NetworkError::SubnetUnknown`] or [`NetworkError::SecurityGroupUnknown`] for ids
    /// that are not defined, and [`NetworkError::Invalid`] for a set that cannot be used.
    fn interfaces_max(&self, network: &FunctionNetwork) -> Result<Option<u32>, NetworkError>;

    /// Returns the id of a subnet's VPC.
    fn vpc_id(&self, subnet_id: &str) -> Option<String>;

    /// Starts an interface of a network. Sandboxes are attached when the future has returned `Ok`.
    ///
    /// # Errors
    ///
    /// Returns why it could not be started. Nothing of it is left then.
    fn start(
        &self,
        interface: InterfaceId,
        network: FunctionNetwork,
    ) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Stops an interface. Returns when nothing of it is left; an unknown one is ignored.
    fn stop(&self, interface: InterfaceId) -> BoxFuture<'_, ()>;

    /// Connects a new sandbox of this machine to an interface.
    ///
    /// # Errors
    ///
    /// Returns [`NetworkError::InterfaceLimit`] if the interface has no room, and
    /// [`NetworkError::Failed`] if there is no such interface or a step failed.
    fn attach(&self, interface: InterfaceId) -> BoxFuture<'_, Result<Attached, NetworkError>>;
}

/// Changes the specification of a sandbox that is attached.
type Equip = dyn FnOnce(&mut SandboxSpec) + Send + Sync;

/// A sandbox's connection to an interface. Dropping it disconnects the sandbox.
pub struct Attached {
    equip: Option<Box<Equip>>,
    _held: Box<dyn Any + Send + Sync>,
}

impl Attached {
    /// Returns a connection. `equip` changes the specification of the sandbox, before it is
    /// created; `held` is dropped after the sandbox has ended.
    pub fn new(
        equip: impl FnOnce(&mut SandboxSpec) + Send + Sync + 'static,
        held: impl Any + Send + Sync,
    ) -> Self {
        Self { equip: Some(Box::new(equip)), _held: Box::new(held) }
    }

    pub(crate) fn equip(&mut self, spec: &mut SandboxSpec) {
        if let Some(equip) = self.equip.take() {
            equip(spec);
        }
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// What a provider reports of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterfaceReport {
    /// New sandboxes need another interface.
    Full,
    /// After [`InterfaceReport::Full`]: it has room again.
    Room,
    /// It has ended by itself. Its sandboxes reach nothing.
    Gone,
}

/// The channel of a provider's reports to the host.
#[derive(Clone, Debug)]
pub struct InterfaceReports(pub(crate) mpsc::UnboundedSender<(InterfaceId, InterfaceChange)>);

impl InterfaceReports {
    /// Reports something of an interface. Does not block.
    pub fn send(&self, interface: InterfaceId, report: InterfaceReport) {
        // An error means that the host has ended: nobody listens.
        self.0.send((interface, InterfaceChange::Reported(report))).unwrap_or_default();
    }
}

/// What the driver is told of an interface.
#[derive(Clone, Debug)]
pub(crate) enum InterfaceChange {
    Started(Result<(), NetworkError>),
    Stopped,
    Reported(InterfaceReport),
}
