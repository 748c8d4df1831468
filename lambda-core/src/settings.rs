//! What the driver says of workers, functions and networks.

use std::time::Duration;

use crate::{AccountId, FunctionId, NetworkId, Zone};

/// What a worker has for sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capacity {
    /// Memory in bytes; at least 1 MiB, at most 4 TiB.
    pub memory_bytes: u64,
    /// Processor time in thousandths of a processor; at least 1. [`Capacity::CPU_UNCOUNTED`] counts none.
    pub cpu_milli: u32,
    /// How many sandboxes with a network interface it can hold.
    pub interface_slots: u32,
    /// Its availability zone.
    pub zone: Zone,
    /// What separates its sandboxes.
    pub isolation: Isolation,
}

impl Capacity {
    /// Processor time that is not counted: the worker is never full of it.
    pub const CPU_UNCOUNTED: u32 = u32::MAX;

    /// Returns the capacity of a worker of which only the memory counts, without VMs.
    #[must_use]
    pub const fn of_memory(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            cpu_milli: Self::CPU_UNCOUNTED,
            interface_slots: u32::MAX,
            zone: Zone(0),
            isolation: Isolation::Sandbox,
        }
    }
}

/// What separates the sandboxes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Isolation {
    /// The sandbox alone; the engine knows of no VMs there.
    Sandbox,
    /// Many VMs, each one customer's, with many sandboxes in it: the talk's first generation.
    VmPerAccount,
    /// Many small VMs with one sandbox each: the talk's second generation.
    VmPerSandbox,
}

/// Settings of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FunctionSettings {
    /// Whose function it is.
    pub account: AccountId,
    /// Memory of each of its sandboxes, in bytes; at least 1.
    pub memory_bytes: u64,
    /// Processor time of a busy sandbox, in thousandths of a processor; may be 0. Lambda: memory / 1,769 MB.
    pub cpu_milli: u32,
    /// The longest that an invocation may run.
    pub timeout: Duration,
    /// How many of its invocations may run at once, taken out of the account's; `None` leaves it to the rest.
    pub reserved_concurrency: Option<u32>,
    /// How many sandboxes are kept ready, used or not.
    pub provisioned_concurrency: u32,
    /// The network that its sandboxes need an interface of.
    pub network: Option<NetworkId>,
    /// What usually starts it. Functions without history are expected to behave as others with the same.
    pub trigger: Trigger,
    /// The class of its runtime (language), as the driver numbers them: many kinds on one worker are better than one.
    pub runtime: u8,
    /// A function of the same account out of whose reserved concurrency this one's invocations are taken, as those of all
    /// versions of a function are; `None` leaves it on its own. While that has none reserved, nothing limits this one.
    pub shares_with: Option<FunctionId>,
}

impl FunctionSettings {
    /// Returns the settings of a function of `account` that may run for 3 seconds, as Lambda's do by default,
    /// with processor time in proportion to its memory.
    #[must_use]
    pub fn new(account: AccountId, memory_bytes: u64) -> Self {
        let cpu_milli = u32::try_from(memory_bytes / (1 << 20) * 1000 / 1769).unwrap_or(u32::MAX);
        Self {
            account,
            memory_bytes,
            cpu_milli,
            timeout: Duration::from_secs(3),
            reserved_concurrency: None,
            provisioned_concurrency: 0,
            network: None,
            trigger: Trigger::Other,
            runtime: 0,
            shares_with: None,
        }
    }
}

/// What usually starts a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Trigger {
    /// A request over HTTP.
    Http,
    /// A schedule.
    Timer,
    /// Messages of a queue.
    Queue,
    /// Events of a stream or a bus.
    Event,
    /// Objects that are stored.
    Storage,
    /// Another function's steps.
    Orchestration,
    /// Something else, or not known.
    #[default]
    Other,
}

/// What a customer's network has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkSettings {
    /// Whose network it is.
    pub account: AccountId,
    /// How many addresses its subnet of each zone has left for interfaces; one subnet a zone.
    pub subnets: Vec<(Zone, u32)>,
}
