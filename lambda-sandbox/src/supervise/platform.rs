//! What a supervisor needs of the sandbox that it drives: no process number, descriptor or listener, so that a guest behind vsock fits as well
//! as a child process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::outlet::Outlet;
use crate::{BoxFuture, Error, Exec, Executed, Exit, LiveUsage, Pressure};

/// What a platform counts of a sandbox, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Processor time of all processes.
    pub cpu_time: Option<Duration>,
    /// Most memory that was in use at a time.
    pub memory_peak_bytes: Option<u64>,
    /// How many processes the memory limit has killed.
    pub out_of_memory_kills: u64,
    /// Whether it was killed for kernel memory that the memory limit does not count.
    pub kernel_memory_exceeded: bool,
}

impl Sample {
    /// Joins what is in use now.
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
    /// Where its standard input is written, unless that is empty. Dropping it is the end of the input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Becomes `Some` when the program has ended, or an extension that was to stay. A sender that is gone counts as a kill.
    pub exit: watch::Receiver<Option<Exit>>,
    /// The external extensions beside the program.
    pub extensions: watch::Receiver<External>,
}

impl Started {
    /// Describes a program without standard input and without external extensions.
    pub fn new(
        stdout: impl Outlet,
        stderr: impl Outlet,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Self {
        let none = External { started: Some(0), ended: 0 };
        let extensions = watch::channel(none).1;
        Self { stdout: Arc::new(stdout), stderr: Arc::new(stderr), stdin: None, exit, extensions }
    }

    /// Sets where the standard input is written.
    #[must_use]
    pub fn with_stdin(mut self, stdin: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        self.stdin = Some(Box::new(stdin));
        self
    }

    /// Sets what tells of external extensions.
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
            .field("stdin", &self.stdin.is_some())
            .field("exit", &self.exit)
            .field("extensions", &self.extensions)
            .finish()
    }
}

/// Waits for the program's end. A supervisor that is gone counts as a kill.
pub(crate) async fn ended(exit: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Signal(libc::SIGKILL)),
        Err(_supervisor_gone) => Exit::Signal(libc::SIGKILL),
    }
}

/// External extensions: programs of their own beside the runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a platform fills in")]
pub struct External {
    /// How many were started, once it is known.
    pub started: Option<usize>,
    /// How many of them have ended.
    pub ended: usize,
}

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a platform must know each")]
pub enum What {
    /// The program alone.
    Program,
    /// The extensions that the root has, and the runtime: at once where there are none, else at [`Platform::go_on`].
    Function,
}

/// A sandbox as its supervisor sees it: programs in it are started, stopped and counted. Dropping it releases all, in the background.
///
/// The supervisor calls [`Platform::start`] once, [`Platform::freeze`] and [`Platform::thaw`] in turn after it, and the others at any time.
pub trait Platform: Send + Sync + fmt::Debug + 'static {
    /// Starts what there is; called once. The program finds the Runtime API by the environment that the platform gives it.
    ///
    /// # Errors
    ///
    /// When the program cannot be started and that is known at once; see [`Platform::failure`].
    fn start(&self, what: What) -> BoxFuture<'_, Result<Started, Error>>;
    /// Starts the runtime, when all extensions have registered.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    fn go_on(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Tells that from now on extensions may end.
    fn begin_end(&self) {}
    /// Asks the runtime to end, or kills it, and lets extensions be.
    fn end_runtime(&self, _kill: bool) {}
    /// Tells why the program could not be started, where that is learnt only when it has ended.
    fn failure(&self) -> Option<Error> {
        None
    }
    /// Ends everything inside at once; may be called often, and at any time.
    fn kill(&self);
    /// Sets the processor time for each second of wall time, in vCPUs, where the platform limits it.
    ///
    /// # Errors
    ///
    /// When it cannot be set, or all has been released.
    fn set_cpus(&self, _cpus: f64) -> Result<(), Error> {
        Ok(())
    }
    /// Stops everything inside.
    ///
    /// # Errors
    ///
    /// When it cannot be stopped, or has been released.
    fn freeze(&self) -> Result<(), Error>;
    /// Lets it go on; nothing where it was not stopped.
    ///
    /// # Errors
    ///
    /// When it cannot go on, or has been released.
    fn thaw(&self) -> Result<(), Error>;
    /// Counts.
    fn sample(&self) -> Sample;
    /// Makes the first count as cheap as the others; called while the program is at work.
    fn open_counters(&self) {}
    /// Tells what was waited for.
    fn pressure(&self) -> Option<Pressure> {
        None
    }
    /// Counts what is in use now; `None` when all is released.
    fn live(&self) -> Option<LiveUsage> {
        Some(self.sample().with(None, None))
    }
    /// Runs another program beside. The future does not keep the platform.
    fn exec(&self, _exec: Exec) -> BoxFuture<'static, Result<Executed, Error>> {
        Box::pin(async {
            Err(Error::Unavailable {
                what: "another program in the sandbox",
                why: "the backend does not isolate".into(),
                remedy: "use another backend",
            })
        })
    }
    /// Kills, and waits until all is released.
    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>>;
}
