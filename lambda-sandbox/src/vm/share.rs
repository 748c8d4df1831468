//! What a monitor may use of the host.

use lambda_vmm::Config;

use crate::VmSize;

/// What a monitor may use. Machines of the same configuration and size have equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share {
    pub(super) memory_bytes: u64,
    pub(super) vcpus: u8,
    /// The bits of a positive number, which are in its order.
    cpus: u64,
}

impl Share {
    pub(super) fn of(config: &Config, size: VmSize) -> Self {
        let Config { memory_bytes, vcpus, .. } = *config;
        Self { memory_bytes, vcpus, cpus: size.cpus.to_bits() }
    }

    pub(super) fn cpus(&self) -> f64 {
        f64::from_bits(self.cpus)
    }
}
