//! The trait between a supervisor and a sandbox. It has no process number, descriptor or listener,
//! so that a guest behind vsock fits as well as a child process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::outlet::Outlet;
use crate::runtime_api::Channel;
use crate::{BoxFuture, Error, Exec, Executed, Exit, LiveUsage, Pressure};

/// The usage of a sandbox since its start, as a platform counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Processor time of all processes.
    pub cpu_time: Option<Duration>,
    /// The highest memory use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The number of processes that the memory limit has killed.
    pub out_of_memory_kills: u64,
    /// Whether the sandbox was killed for kernel memory that is not charged to the memory limit.
    pub kernel_memory_exceeded: bool,
}

impl Sample {
    /// Combines the sample with the current memory and processes.
    pub(crate) fn with(self, memory_bytes: Option<u64>, processes: Option<u32>) -> LiveUsage {
        let Self { cpu_time, memory_peak_bytes, out_of_memory_kills, .. } = self;
        LiveUsage { cpu_time, memory_bytes, memory_peak_bytes, processes, out_of_memory_kills }
    }
}

/// A started program.
#[non_exhaustive]
pub struct Started {
    /// Its standard output.
    pub stdout: Arc<dyn Outlet>,
    /// Its standard error.
    pub stderr: Arc<dyn Outlet>,
    /// Standard output and standard error of its external extensions, or `None` if they have those
    /// of the program.
    pub extension_outputs: Option<[Arc<dyn Outlet>; 2]>,
    /// The writer of its standard input, or `None` if the input is empty. Dropping it ends the
    /// input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Becomes `Some` when the program has ended, or an extension has ended too early. A dropped
    /// sender counts as a kill.
    pub exit: watch::Receiver<Option<Exit>>,
    /// The numbers of external extensions that have started and ended.
    pub extensions: watch::Receiver<External>,
}

impl Started {
    /// Creates a program without standard input and without external extensions.
    pub fn new(
        stdout: impl Outlet,
        stderr: impl Outlet,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Self {
        let none = External { started: Some(0), ended: 0 };
        let extensions = watch::channel(none).1;
        Self {
            stdout: Arc::new(stdout),
            stderr: Arc::new(stderr),
            extension_outputs: None,
            stdin: None,
            exit,
            extensions,
        }
    }

    /// Sets the writer of the standard input.
    #[must_use]
    pub fn with_stdin(mut self, stdin: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        self.stdin = Some(Box::new(stdin));
        self
    }

    /// Sets the receiver of the numbers of external extensions.
    #[must_use]
    pub fn with_extensions(mut self, extensions: watch::Receiver<External>) -> Self {
        self.extensions = extensions;
        self
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started")
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("extension_outputs", &self.extension_outputs)
            .field("stdin", &self.stdin.is_some())
            .field("exit", &self.exit)
            .field("extensions", &self.extensions)
            .finish()
    }
}

/// Waits for the program's end. A dropped sender counts as a kill.
pub(crate) async fn ended(exit: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Signal(libc::SIGKILL)),
        Err(_supervisor_gone) => Exit::Signal(libc::SIGKILL),
    }
}

/// The numbers of external extensions, which are processes of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a platform fills in")]
pub struct External {
    /// The number of extensions started; `None` until it is known.
    pub started: Option<usize>,
    /// The number of them that have ended.
    pub ended: usize,
}

/// The programs that a platform starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a platform must know each")]
pub enum What {
    /// The program alone.
    Program,
    /// The extensions of the root and the runtime. The runtime starts at once if there are no
    /// extensions, else at [`Platform::go_on`].
    Function,
}

/// A sandbox as its supervisor controls it: programs in it are started, stopped and measured.
/// Dropping it releases all resources, in the background.
///
/// The supervisor calls [`Platform::start`] once, then [`Platform::freeze`] and [`Platform::thaw`]
/// in turn (neither while one invocation follows another at once), and the other methods at any
/// time.
pub trait Platform: Send + Sync + fmt::Debug + 'static {
    /// Starts the program, or the extensions and the runtime. Called once. The platform must set
    /// `AWS_LAMBDA_RUNTIME_API` in their environment.
    ///
    /// # Errors
    ///
    /// If the program cannot be started and that is known at once. Later failures are returned by
    /// [`Platform::failure`].
    fn start(&self, what: What) -> BoxFuture<'_, Result<Started, Error>>;
    /// Connects to a port of the sandbox's loopback, for the Telemetry API. The future must not
    /// keep the platform alive.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or the platform cannot.
    fn dial(&self, _port: u16) -> BoxFuture<'static, io::Result<Box<dyn Channel>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    /// Returns whether [`Platform::dial`] works.
    fn can_dial(&self) -> bool {
        false
    }
    /// Returns whether [`Platform::reset`] works.
    fn can_reset(&self) -> bool {
        false
    }
    /// Ends every program inside and keeps the files, so that [`Platform::start_again`] can follow.
    /// When it returns, the receivers of [`Started`] are as they were before the first start.
    ///
    /// # Errors
    ///
    /// If the platform cannot, or the sandbox has ended as a whole.
    fn reset(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            Err(Error::Unavailable {
                what: "a second start in the sandbox",
                why: "the backend has none".into(),
                remedy: "make another sandbox",
            })
        })
    }
    /// Starts the extensions and the runtime again after [`Platform::reset`], with the outputs and
    /// receivers of the first start.
    ///
    /// # Errors
    ///
    /// If they cannot be started.
    fn start_again(&self) -> Result<(), Error> {
        Err(Error::Ended)
    }
    /// Starts the runtime. Called when all extensions have registered.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    fn go_on(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Says that the shutdown has begun: extensions that end from now on are no failure.
    fn begin_end(&self) {}
    /// Sends the runtime SIGTERM, or kills it if `kill` is set. Extensions continue.
    fn end_runtime(&self, _kill: bool) {}
    /// Returns why the program could not be started, if that is known only after its end.
    fn failure(&self) -> Option<Error> {
        None
    }
    /// Ends everything inside at once. It may be called several times, and at any time.
    fn kill(&self);
    /// Sets the limit of processor time, in vCPUs (seconds per second of wall time), if the
    /// platform has one.
    ///
    /// # Errors
    ///
    /// If it cannot be set, or the platform was released.
    fn set_cpus(&self, _cpus: f64) -> Result<(), Error> {
        Ok(())
    }
    /// Freezes everything inside.
    ///
    /// # Errors
    ///
    /// If it cannot be frozen, or was released.
    fn freeze(&self) -> Result<(), Error>;
    /// Thaws everything inside. Does nothing if it is not frozen.
    ///
    /// # Errors
    ///
    /// If it cannot be thawed, or was released.
    fn thaw(&self) -> Result<(), Error>;
    /// Returns the usage since the start.
    fn sample(&self) -> Sample;
    /// Opens counters, so that the first sample is as fast as later ones. Called while the program
    /// runs.
    fn open_counters(&self) {}
    /// Returns how long processes have stalled, if the platform measures it.
    fn pressure(&self) -> Option<Pressure> {
        None
    }
    /// Returns the current usage, or `None` after the release.
    fn live(&self) -> Option<LiveUsage> {
        Some(self.sample().with(None, None))
    }
    /// Runs another program in the sandbox. The future must not keep the platform alive.
    fn exec(&self, _exec: Exec) -> BoxFuture<'static, Result<Executed, Error>> {
        Box::pin(async {
            Err(Error::Unavailable {
                what: "another program in the sandbox",
                why: "the backend does not isolate".into(),
                remedy: "use another backend",
            })
        })
    }
    /// Kills everything inside, and waits until all resources are released.
    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>>;
}
