//! The resource limits of a sandbox, as data.

use std::collections::BTreeSet;

use crate::{Error, Isolation};

/// The resource limits of a sandbox. [`crate::Backend::capabilities`] says which of them a backend
/// enforces.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Memory of all processes together, in bytes. The page cache counts, and so does scratch
    /// space in memory. Near the limit the kernel writes the cached data of scratch space on disk
    /// back to the disk and frees its memory.
    pub memory_bytes: u64,
    /// Processor time for each second of wall time, in vCPUs.
    pub cpus: f64,
    /// Processor time for each second of wall time during init, in vCPUs. `None` means
    /// [`Limits::cpus`]. Lambda gives a small function more during its init than afterwards.
    pub init_cpus: Option<f64>,
    /// The number of processes and threads.
    pub processes_max: u32,
    /// The number of open files of each process.
    pub files_max: u64,
    /// The size of the scratch space at `/tmp`, in bytes.
    pub scratch_bytes: u64,
    /// The number of files in the scratch space.
    pub scratch_files_max: u64,
    /// Limits of block I/O, if any.
    pub block_io: Option<BlockIo>,
    /// The weight for processor time when sandboxes compete: 1 to 10,000. `None` means 100.
    pub cpu_weight: Option<u32>,
    /// The processors on which it may run, by the kernel's numbers. `None` means all.
    pub processors: Option<BTreeSet<u16>>,
    /// Limits of each process (setrlimit(2)).
    pub resources: ResourceLimits,
    /// Bytes of standard output and standard error together, for [`crate::Sandbox::run`]. `None`
    /// means no limit.
    pub output_bytes_max: Option<u64>,
    /// Bytes of a payload, and of an answer that is not streamed.
    pub payload_bytes_max: usize,
    /// Bytes of a streamed answer.
    pub stream_bytes_max: usize,
    /// The bandwidth of a streamed answer after its first [`STREAM_BYTES_FREE`] bytes, in bytes per
    /// second. `None` means no limit. Lambda has a limit of 2 MiB per second.
    pub stream_bytes_per_second: Option<u64>,
    /// The defences that must be in force. A backend that lacks one refuses the sandbox.
    pub isolation_min: Vec<crate::isolation::Defence>,
}

/// Limits of I/O with each disk that the root's files lie on. `None` means no limit. Reads from the
/// page cache do not count, whoever read the file first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes read per second.
    pub read_bytes_per_second: Option<u64>,
    /// Bytes written per second.
    pub write_bytes_per_second: Option<u64>,
    /// Read requests per second.
    pub read_operations_per_second: Option<u64>,
    /// Write requests per second.
    pub write_operations_per_second: Option<u64>,
}

/// Limits of each process of a sandbox (setrlimit(2)). `None` means 8 MiB for the stack, which a
/// process may raise, 64 KiB for locked memory, and no limit for the others. No limit can exceed
/// the host's own hard limit, which applies then.
///
/// There is no limit of core files. None is written, because the machine's core_pattern would take
/// it out of the sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceLimits {
    /// Bytes of the main thread's stack (RLIMIT_STACK).
    pub stack_bytes: Option<u64>,
    /// Bytes of a file that it writes (RLIMIT_FSIZE). SIGXFSZ ends a program that writes more.
    pub file_bytes: Option<u64>,
    /// Bytes of address space (RLIMIT_AS).
    pub address_space_bytes: Option<u64>,
    /// Bytes of memory that it may lock (RLIMIT_MEMLOCK). `None` means 64 KiB.
    pub locked_bytes: Option<u64>,
    /// Seconds of processor time of each process (RLIMIT_CPU). SIGXCPU ends a process that uses
    /// more.
    pub processor_seconds: Option<u64>,
}

impl ResourceLimits {
    /// Sets the bytes of the main thread's stack (RLIMIT_STACK).
    #[must_use]
    pub fn with_stack_bytes(mut self, bytes: u64) -> Self {
        self.stack_bytes = Some(bytes);
        self
    }

    /// Sets the bytes of a file that a process writes (RLIMIT_FSIZE).
    #[must_use]
    pub fn with_file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = Some(bytes);
        self
    }

    /// Sets the bytes of address space (RLIMIT_AS).
    #[must_use]
    pub fn with_address_space_bytes(mut self, bytes: u64) -> Self {
        self.address_space_bytes = Some(bytes);
        self
    }

    /// Sets the bytes of memory that a process may lock (RLIMIT_MEMLOCK).
    #[must_use]
    pub fn with_locked_bytes(mut self, bytes: u64) -> Self {
        self.locked_bytes = Some(bytes);
        self
    }

    /// Sets the seconds of processor time of each process (RLIMIT_CPU).
    #[must_use]
    pub fn with_processor_seconds(mut self, seconds: u64) -> Self {
        self.processor_seconds = Some(seconds);
        self
    }

    fn check(&self) -> Result<(), Error> {
        let too_small = |setting, value: Option<u64>, min: u64| match value {
            Some(value) if value < min => {
                Err(Error::invalid(setting, value.to_string(), format!("at least {min}")))
            }
            _ => Ok(()),
        };
        too_small("limits.resources.stack_bytes", self.stack_bytes, STACK_BYTES_MIN)?;
        let space = self.address_space_bytes;
        too_small("limits.resources.address_space_bytes", space, MEMORY_BYTES_MIN)?;
        too_small("limits.resources.processor_seconds", self.processor_seconds, 1)
    }
}

/// The first bytes of a streamed answer, which have no limit of bandwidth: 6 MiB, as on Lambda.
pub const STREAM_BYTES_FREE: usize = 6 * 1024 * 1024;
/// The smallest stack on which a program with a full environment starts: the kernel gives a quarter
/// of the stack to arguments and environment.
pub const STACK_BYTES_MIN: u64 = 512 * 1024;
/// The largest weight of a sandbox (`cpu.weight` of control groups).
pub const CPU_WEIGHT_MAX: u32 = 10_000;
/// The most processors that a kernel for x86-64 supports.
pub const PROCESSORS_MAX: u16 = 8192;

impl BlockIo {
    /// Returns the limits with their names in control groups of version 1 and of version 2.
    pub(crate) fn named(&self) -> [(&'static str, &'static str, Option<u64>); 4] {
        [
            ("read_bps", "rbps", self.read_bytes_per_second),
            ("write_bps", "wbps", self.write_bytes_per_second),
            ("read_iops", "riops", self.read_operations_per_second),
            ("write_iops", "wiops", self.write_operations_per_second),
        ]
    }
}

/// Lambda gives one vCPU for 1,769 MB of memory.
const MB_PER_VCPU: f64 = 1769.0;

impl Default for Limits {
    fn default() -> Self {
        Self::for_memory_mb(128)
    }
}

impl Limits {
    /// Returns Lambda's limits for a function with `memory_mb` MB (of 1,048,576 bytes).
    #[must_use]
    pub fn for_memory_mb(memory_mb: u32) -> Self {
        Self {
            memory_bytes: u64::from(memory_mb) * 1024 * 1024,
            cpus: f64::from(memory_mb) / MB_PER_VCPU,
            init_cpus: None,
            processes_max: 1024,
            files_max: 1024,
            scratch_bytes: 512 * 1024 * 1024,
            scratch_files_max: 65_536,
            block_io: None,
            cpu_weight: None,
            processors: None,
            resources: ResourceLimits::default(),
            output_bytes_max: None,
            payload_bytes_max: 6 * 1024 * 1024 + 100,
            stream_bytes_max: 200 * 1024 * 1024,
            stream_bytes_per_second: None,
            isolation_min: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let too_small = |setting, value: String| {
            Err(Error::invalid(setting, value, "too small for any program to run"))
        };
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return too_small("limits.memory_bytes", self.memory_bytes.to_string());
        }
        if !(self.cpus.is_finite() && self.cpus >= CPUS_MIN) {
            return too_small("limits.cpus", self.cpus.to_string());
        }
        if let Some(cpus) = self.init_cpus.filter(|cpus| !(cpus.is_finite() && *cpus >= CPUS_MIN)) {
            return too_small("limits.init_cpus", cpus.to_string());
        }
        if self.stream_bytes_per_second == Some(0) {
            return too_small("limits.stream_bytes_per_second", "0".into());
        }
        if self.processes_max == 0 {
            return too_small("limits.processes_max", "0".into());
        }
        if self.files_max < FILES_MIN {
            return too_small("limits.files_max", self.files_max.to_string());
        }
        let stopped = |(_, _, limit)| limit == Some(0);
        if self.block_io.is_some_and(|limits| limits.named().into_iter().any(stopped)) {
            return too_small("limits.block_io", "0".into());
        }
        self.check_processors()?;
        self.resources.check()?;
        if self.scratch_files_max > SCRATCH_FILES_MAX {
            return Err(Error::invalid(
                "limits.scratch_files_max",
                self.scratch_files_max.to_string(),
                format!("a file system counts no more than {SCRATCH_FILES_MAX}"),
            ));
        }
        if self.memory_bytes > i64::MAX.unsigned_abs()
            || self.scratch_bytes > i64::MAX.unsigned_abs()
        {
            return Err(Error::invalid(
                "limits.memory_bytes or limits.scratch_bytes",
                self.memory_bytes.max(self.scratch_bytes).to_string(),
                "more than a file system or a cgroup can count",
            ));
        }
        Ok(())
    }

    fn check_processors(&self) -> Result<(), Error> {
        if let Some(weight) = self.cpu_weight.filter(|it| !(1..=CPU_WEIGHT_MAX).contains(it)) {
            let reason = format!("1 to {CPU_WEIGHT_MAX}");
            return Err(Error::invalid("limits.cpu_weight", weight.to_string(), reason));
        }
        let Some(processors) = &self.processors else {
            return Ok(());
        };
        match processors.last() {
            Some(last) if *last < PROCESSORS_MAX => Ok(()),
            last => Err(Error::invalid(
                "limits.processors",
                last.map(ToString::to_string).unwrap_or_default(),
                format!("at least one, and numbers below {PROCESSORS_MAX}"),
            )),
        }
    }

    /// Checks that `isolation` has every defence of [`Limits::isolation_min`] in force.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], naming the missing defences.
    pub fn check_isolation(&self, isolation: &Isolation) -> Result<(), Error> {
        let missing = isolation.missing(&self.isolation_min);
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::Unavailable {
                what: "the isolation demanded",
                why: format!("{missing:?} not in force"),
                remedy: "demand less, or use a backend or machine that has it",
            })
        }
    }
}

/// The smallest memory limit: 4 MiB.
const MEMORY_BYTES_MIN: u64 = 4 << 20;
/// The smallest processor share: the kernel's shortest quota is 1 ms in 100 ms.
const CPUS_MIN: f64 = 0.01;
/// The fewest open files: the standard streams and a few more for the loader.
const FILES_MIN: u64 = 8;

/// The most files that a tmpfs accepts as its limit, rounded down.
const SCRATCH_FILES_MAX: u64 = 1 << 50;
