//! What the driver declares about workers, functions and networks.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::id::{AccountId, FunctionId, NetworkId, Zone};

/// The resources that a worker has for sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capacity {
    /// Memory, in bytes: at least 1 MiB, at most 4 TiB.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a processor, at least 1. With [`Capacity::CPU_UNCOUNTED`]
    /// processor time is not limited.
    pub cpu_milli: u32,
    /// The most sandboxes with a network interface.
    pub interface_slots: u32,
    /// The availability zone.
    pub zone: Zone,
    /// The boundary between its sandboxes.
    pub isolation: Isolation,
    /// What it has, as bits whose meaning the driver chooses: an architecture, a GPU. It takes the
    /// functions whose [`FunctionSettings::labels`] are among these, those without labels too. To
    /// keep GPUs for those that need them, give the other workers and functions a label as well.
    pub labels: u16,
}

impl Capacity {
    /// The value of [`Capacity::cpu_milli`] for a worker whose processor time is not counted.
    pub const CPU_UNCOUNTED: u32 = u32::MAX;

    /// Returns the capacity of a worker without VMs in zone 0, of which only the memory is limited.
    #[must_use]
    pub const fn of_memory(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            cpu_milli: Self::CPU_UNCOUNTED,
            interface_slots: u32::MAX,
            zone: Zone(0),
            isolation: Isolation::Sandbox,
            labels: 0,
        }
    }
}

/// The boundary between the sandboxes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Isolation {
    /// The sandbox alone. The engine starts no VMs on the worker.
    Sandbox,
    /// Many VMs. Each belongs to one customer and holds many of its sandboxes: the first generation
    /// of AWS Lambda.
    VmPerAccount,
    /// Many small VMs, each with one sandbox: the second generation of AWS Lambda.
    VmPerSandbox,
}

/// Settings of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FunctionSettings {
    /// The owner of the function.
    pub account: AccountId,
    /// The memory of each sandbox, in bytes, at least 1.
    pub memory_bytes: u64,
    /// The processor time of a busy sandbox, in thousandths of a processor; may be 0. Lambda: one
    /// processor for every 1,769 MB of memory.
    pub cpu_milli: u32,
    /// The longest time that an invocation may run.
    pub timeout: Duration,
    /// How many of its invocations may run or wait at once. Reserved for the function out of the
    /// account's concurrency. `None`: it shares the account's unreserved concurrency.
    pub reserved_concurrency: Option<u32>,
    /// How many sandboxes are kept ready even when they are not used.
    pub provisioned_concurrency: u32,
    /// The network that its sandboxes are connected to. `None`: they need no interface.
    pub network: Option<NetworkId>,
    /// A function of the same account out of whose reserved concurrency this one's invocations are
    /// taken, as those of all versions of a function are; `None` leaves it on its own. While that
    /// has none reserved, nothing limits this one.
    pub shares_with: Option<FunctionId>,
    /// What its workers must have, as bits of [`Capacity::labels`]. Its sandboxes start only on
    /// workers with all of them.
    pub labels: u16,
    /// The most sandboxes of the function, in any state and of any revision: for example the
    /// connections that its database takes. Invocations beyond it wait for one of them, at most
    /// [`Config::wait_max`](crate::Config::wait_max). `None`: only other limits apply.
    pub sandboxes_max: Option<NonZeroU16>,
}

impl FunctionSettings {
    /// Returns the settings of a function of `account` with a timeout of 3 seconds, Lambda's
    /// default, and with Lambda's processor time for its memory.
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
            shares_with: None,
            labels: 0,
            sandboxes_max: None,
        }
    }
}

/// The owner and subnets of a customer's network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkSettings {
    /// The owner of the network.
    pub account: AccountId,
    /// For each zone, the number of addresses that its subnet has for interfaces. One subnet a
    /// zone.
    pub subnets: Vec<(Zone, u32)>,
}

/// Converts bytes to KiB, rounded up.
pub(crate) fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
