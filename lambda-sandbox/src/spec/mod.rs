//! The specification of a sandbox, which every backend can read.

pub(crate) mod check;
mod limits;
mod network;
mod root;
mod stdin;
mod times;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::check::{ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX};
use self::check::{absolute, check_environment, no_nul};
pub use self::limits::{
    BlockIo, CPU_WEIGHT_MAX, Limits, PROCESSORS_MAX, ResourceLimits, STACK_BYTES_MIN,
    STREAM_BYTES_FREE,
};
pub use self::network::{Interface, Network, NewInterface, NewLink};
pub use self::root::{Bind, LAYERS_MAX, Link, ROOT_PARTS_MAX, Root, SmallFile};
pub use self::stdin::{OnceReader, STDIN_BYTES_MAX, Stdin};
pub use self::times::{TIME_MAX, TimeLimits};
use crate::Error;
use crate::log::{LogSink, NoLog};

/// Specifies a sandbox.
///
/// ```
/// use lambda_sandbox::{Root, SandboxSpec};
///
/// let spec = SandboxSpec::new(Root::of_machine(), ["/bin/sh", "-c", "id"])
///     .with_env("PATH", "/usr/bin:/bin")
///     .with_memory_mb(256)
///     .with_cpus(0.5);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SandboxSpec {
    /// The function's name. Extensions receive it, and the fake backend looks up its handler by it.
    pub function: String,
    /// The file system that the function sees.
    pub root: Root,
    /// The program and its arguments. The program is an absolute path inside the root, or a name
    /// without a slash, which is looked for in the folders of the environment's `PATH`.
    pub command: Vec<OsString>,
    /// The whole environment, as names and values. Of the host's environment nothing is inherited;
    /// only `AWS_LAMBDA_RUNTIME_API` is added.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory of the program, inside the root.
    pub working_directory: PathBuf,
    /// The program's standard input. It is empty by default.
    pub stdin: Stdin,
    /// The network that it sees.
    pub network: Network,
    /// The resource limits.
    pub limits: Limits,
    /// The time limits.
    pub times: TimeLimits,
    /// The receiver of its output.
    pub log: Arc<dyn LogSink>,
    /// The name of a snapshot from which the sandbox may start, after the init of an earlier sandbox
    /// with the same name and specification. It says who may share the memory of that init: an
    /// account's function with its version, for example. Backends without snapshots start every
    /// sandbox anew. `None` by default.
    ///
    /// The runtime may ask for `restore/next` of the Runtime API at the end of its init. The answer
    /// comes after each restore, or before the first invocation of a sandbox that started anew.
    pub snapshot: Option<String>,
    /// Options that only the Linux backend supports. Other backends refuse a specification with any
    /// of them.
    #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
    pub linux: crate::linux::Extras,
}

impl SandboxSpec {
    /// Creates a specification of a root and a command (the program and its arguments) with
    /// Lambda's limits: 128 MB, one vCPU for 1,769 MB, 512 MB of scratch space, 1,024 processes,
    /// 1,024 open files.
    #[must_use]
    pub fn new<W: Into<OsString>>(root: Root, command: impl IntoIterator<Item = W>) -> Self {
        Self {
            function: "function".into(),
            root,
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            stdin: Stdin::Empty,
            network: Network::default(),
            limits: Limits::default(),
            times: TimeLimits::default(),
            log: Arc::new(NoLog),
            snapshot: None,
            #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
            linux: crate::linux::Extras::default(),
        }
    }

    /// Sets the function's name.
    #[must_use]
    pub fn named(mut self, function: impl Into<String>) -> Self {
        self.function = function.into();
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory, inside the root.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.working_directory = folder.into();
        self
    }

    /// Sets the standard input: bytes, or [`Stdin::reader`].
    #[must_use]
    pub fn with_stdin(mut self, stdin: impl Into<Stdin>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Sets the network.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets all resource limits at once.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the memory limit, in MB of 1,048,576 bytes.
    #[must_use]
    pub fn with_memory_mb(mut self, memory_mb: u32) -> Self {
        self.limits.memory_bytes = u64::from(memory_mb) << 20;
        self
    }

    /// Sets the limit of processor time, in vCPUs (seconds per second of wall time).
    #[must_use]
    pub fn with_cpus(mut self, cpus: f64) -> Self {
        self.limits.cpus = cpus;
        self
    }

    /// Sets the limit of wall time for [`crate::Sandbox::run`].
    #[must_use]
    pub fn with_wall_time(mut self, time: std::time::Duration) -> Self {
        self.times.run = Some(time);
        self
    }

    /// Sets the limit of processor time of all processes together for [`crate::Sandbox::run`].
    #[must_use]
    pub fn with_processor_time(mut self, time: std::time::Duration) -> Self {
        self.times.run_processor = Some(time);
        self
    }

    /// Sets the limit of output for [`crate::Sandbox::run`], in bytes of both outputs together.
    #[must_use]
    pub fn with_output_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.output_bytes_max = Some(bytes);
        self
    }

    /// Sets the receiver of the output.
    #[must_use]
    pub fn with_log(mut self, log: Arc<dyn LogSink>) -> Self {
        self.log = log;
        self
    }

    /// Lets the sandbox start from a snapshot of this name.
    #[must_use]
    pub fn with_snapshot(mut self, name: impl Into<String>) -> Self {
        self.snapshot = Some(name.into());
        self
    }

    /// Sets the options of the Linux backend.
    #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
    #[must_use]
    pub fn with_linux(mut self, extras: crate::linux::Extras) -> Self {
        self.linux = extras;
        self
    }

    /// Checks everything that can be checked without access to the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let Some(program) = self.command.first() else {
            return Err(Error::invalid("command", "", "it names no program"));
        };
        if !self.is_searched(program) {
            absolute("command", Path::new(program))?;
        }
        absolute("working_directory", &self.working_directory)?;
        self.root.check()?;
        self.network.check()?;
        self.stdin.check()?;
        if self.snapshot.is_some() && !matches!(self.stdin, Stdin::Empty) {
            return Err(Error::invalid("snapshot", "", "a sandbox with an input has none"));
        }
        for argument in &self.command {
            no_nul("command", argument)?;
        }
        self.check_environment()?;
        #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
        self.linux.check(&self.stdin, &self.network)?;
        self.limits.check()?;
        self.times.check()
    }

    fn check_environment(&self) -> Result<(), Error> {
        check_environment(&self.environment)
    }

    /// Returns whether a program is a name to be looked for in `PATH`.
    fn is_searched(&self, program: &OsStr) -> bool {
        let name = program.as_encoded_bytes();
        !name.is_empty() && !name.contains(&b'/') && self.search_path().is_some()
    }

    /// Returns the environment's `PATH`.
    pub(crate) fn search_path(&self) -> Option<&OsStr> {
        let found = self.environment.iter().find(|(name, _)| name == "PATH");
        found.map(|(_, path)| path.as_os_str())
    }
}
