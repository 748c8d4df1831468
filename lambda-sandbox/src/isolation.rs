//! What a backend enforces, as data that a host can print and demand.

use std::collections::BTreeMap;
use std::fmt;

/// One defence between a function and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Defence {
    /// Processes of others cannot be seen or signalled.
    Processes,
    /// A file system of its own, read-only but for the scratch space.
    FileSystem,
    /// No network but its own loopback.
    Network,
    /// No shared memory, queues or host name with others.
    Ipc,
    /// A user of its own who is nobody outside.
    User,
    /// No capability, none to be gained.
    Capabilities,
    /// A list of allowed system calls.
    SystemCalls,
    /// No keyring shared with others.
    Keyring,
    /// Only the descriptors given.
    Descriptors,
    /// Kernel interfaces under `/proc` hidden or read-only.
    KernelInterfaces,
    /// Memory held to its limit.
    Memory,
    /// Kernel memory that is not charged to the memory limit (connections that nobody has accepted, locks of files) held to a limit of
    /// its own.
    KernelMemory,
    /// Processor time held to its share.
    Cpu,
    /// The number of processes held to its limit.
    ProcessCount,
    /// Scratch space held to its limit.
    Scratch,
    /// Traffic with disks held to its limit, where one is given.
    BlockIo,
    /// File access checked a second time, by path: a hole in the mounts does not pass it.
    FileAccess,
    /// Signals and abstract sockets held inside a second time: a hole in the namespaces does not pass it.
    Scope,
    /// Clocks that do not tell how long the machine has been up.
    Time,
    /// A kernel of its own.
    Kernel,
}

/// Which defences are in force, and why the others are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Each defence in force, and by what means.
    pub in_force: BTreeMap<Defence, String>,
    /// Each defence that is not, and why.
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

/// Something that not every backend can do. The conformance suite asks before it tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Runs real programs; the fake does not.
    Programs,
    /// Serves the Runtime API and Extensions API.
    RuntimeApi,
    /// An idle sandbox uses no processor time.
    Freeze,
    /// Holds memory to the limit, and tells an out-of-memory kill by its event.
    MemoryLimit,
    /// Holds processor time to the share.
    CpuLimit,
    /// Shares processors by weight ([`crate::Limits::cpu_weight`]).
    CpuWeight,
    /// Runs on chosen processors only ([`crate::Limits::processors`]).
    Processors,
    /// Holds each process to its own limits ([`crate::ResourceLimits`]).
    ResourceLimits,
    /// Holds the number of processes to the limit.
    ProcessLimit,
    /// Holds the scratch space to its limit.
    ScratchLimit,
    /// Holds traffic with disks to its limits.
    BlockIoLimit,
    /// Tells how long a sandbox has waited ([`crate::Sandbox::pressure`]).
    Pressure,
    /// Measures peak memory.
    MemoryPeak,
    /// Measures processor time.
    CpuTime,
    /// The function has a loopback of its own.
    PrivateNetwork,
    /// Everything but the scratch space is read-only.
    ReadOnlyRoot,
    /// Starts the extensions that lie in `/opt/extensions`.
    ExternalExtensions,
    /// Runs a program without the Runtime API ([`crate::Sandbox::run`]).
    Run,
    /// Gives a program its standard input ([`crate::SandboxSpec::stdin`]).
    Stdin,
    /// Runs other programs in a living sandbox ([`crate::Handle::exec`]).
    Exec,
}
