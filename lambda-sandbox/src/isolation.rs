//! The defences and capabilities of a backend, as data that a host can print and demand.

use std::collections::BTreeMap;
use std::fmt;

/// A defence between a function and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Defence {
    /// Processes of others cannot be seen or signalled.
    Processes,
    /// The sandbox has a file system of its own, which is read-only except for the scratch space.
    FileSystem,
    /// The sandbox has no network but its own loopback.
    Network,
    /// The sandbox has no network but its own loopback, and interfaces whose packets the host
    /// filters.
    FilteredNetwork,
    /// The sandbox shares no System V memory, message queues or host name.
    Ipc,
    /// The sandbox has a user of its own, which has no rights outside.
    User,
    /// Processes have no capabilities and cannot gain any.
    Capabilities,
    /// Only listed system calls are allowed.
    SystemCalls,
    /// The sandbox shares no keyring.
    Keyring,
    /// The program has only the descriptors that it was given.
    Descriptors,
    /// Kernel interfaces in `/proc` are hidden or read-only.
    KernelInterfaces,
    /// The memory limit is enforced.
    Memory,
    /// Kernel memory that is not charged to the memory limit (unaccepted connections, file locks)
    /// has limits of its own.
    KernelMemory,
    /// The limit of processor time is enforced.
    Cpu,
    /// The limit of processes is enforced.
    ProcessCount,
    /// The limit of the scratch space is enforced.
    Scratch,
    /// Limits of block I/O are enforced, if any are set.
    BlockIo,
    /// File access is also checked by path, so that it is restricted even if a mount is wrong.
    FileAccess,
    /// Signals and abstract sockets are also restricted by landlock, so that they stay inside even
    /// if a namespace is wrong.
    Scope,
    /// Clocks do not show how long the machine has been up.
    Time,
    /// The sandbox has a kernel of its own.
    Kernel,
}

/// The defences in force, and the absent ones with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Each defence in force, with the means.
    pub in_force: BTreeMap<Defence, String>,
    /// Each absent defence, with the reason.
    pub absent: BTreeMap<Defence, String>,
}

impl Isolation {
    /// Returns those of `demanded` that are not in force.
    #[must_use]
    pub fn missing(&self, demanded: &[Defence]) -> Vec<Defence> {
        demanded.iter().filter(|defence| !self.in_force.contains_key(defence)).copied().collect()
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (defence, means) in &self.in_force {
            writeln!(f, "  {:<18} {means}", format!("{defence:?}"))?;
        }
        for (defence, why) in &self.absent {
            writeln!(f, "  {:<18} NOT IN FORCE: {why}", format!("{defence:?}"))?;
        }
        Ok(())
    }
}

/// A feature that not every backend has. The conformance suite skips the tests of absent features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Runs real programs. The fake backend does not.
    Programs,
    /// Serves the Runtime API and Extensions API.
    RuntimeApi,
    /// Freezes an idle sandbox, so that it uses no processor time.
    Freeze,
    /// Enforces the memory limit, and reports out-of-memory kills by the kernel's event counter.
    MemoryLimit,
    /// Enforces the limit of processor time.
    CpuLimit,
    /// Shares processors by weight ([`crate::Limits::cpu_weight`]).
    CpuWeight,
    /// Restricts a sandbox to chosen processors ([`crate::Limits::processors`]).
    Processors,
    /// Enforces limits of each process ([`crate::ResourceLimits`]).
    ResourceLimits,
    /// Enforces the limit of processes.
    ProcessLimit,
    /// Enforces the limit of the scratch space.
    ScratchLimit,
    /// Enforces limits of block I/O.
    BlockIoLimit,
    /// Measures how long a sandbox has stalled ([`crate::Sandbox::pressure`]).
    Pressure,
    /// Measures the memory peak.
    MemoryPeak,
    /// Measures processor time.
    CpuTime,
    /// Gives the function a loopback of its own.
    PrivateNetwork,
    /// Makes everything but the scratch space read-only.
    ReadOnlyRoot,
    /// Starts the extensions in `/opt/extensions`.
    ExternalExtensions,
    /// Runs a program without the Runtime API ([`crate::Sandbox::run`]).
    Run,
    /// Connects a program's standard input ([`crate::SandboxSpec::stdin`]).
    Stdin,
    /// Runs other programs in a living sandbox ([`crate::Handle::exec`]).
    Exec,
    /// Starts sandboxes from snapshots ([`crate::SandboxSpec::snapshot`]).
    Snapshots,
}
