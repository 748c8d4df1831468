//! A handle to a living sandbox: other programs in it, its usage, its events.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::spec::check::{absolute, check_environment, no_nul};
use crate::{BoxFuture, EndedBy, Error, Exit, Stdin};

/// Gives access to a living sandbox from anywhere, even while its program runs. Clones are the same
/// handle. It does not keep the sandbox alive: after the sandbox has ended, its methods return
/// [`Error::Ended`], and its events end.
#[derive(Clone, Debug)]
pub struct Handle(Arc<dyn Live>);

impl Handle {
    /// Wraps a backend's implementation. For authors of backends.
    pub fn new(live: Arc<dyn Live>) -> Self {
        Self(live)
    }

    /// Runs another program in the sandbox and waits for its end. It has the same restrictions,
    /// limits and user as the sandbox's own program, and ends with it. Dropping the future kills
    /// it.
    ///
    /// In a frozen sandbox the program starts when the sandbox is thawed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an invalid description, [`Error::Unavailable`] if the backend cannot
    /// run other programs or the sandbox's own program has not started yet, [`Error::Failed`] if
    /// the program could not be started, [`Error::Ended`] if the sandbox has ended.
    pub async fn exec(&self, exec: Exec) -> Result<Executed, Error> {
        exec.check()?;
        self.0.exec(exec).await
    }

    /// Returns the current usage of the sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] if the sandbox has ended.
    pub fn usage(&self) -> Result<LiveUsage, Error> {
        self.0.usage().ok_or(Error::Ended)
    }

    /// Returns the events of the sandbox from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }
}

/// A backend's implementation of a [`Handle`].
pub trait Live: Send + Sync + fmt::Debug {
    /// Runs another program to its end. The description was checked.
    fn exec(&self, exec: Exec) -> BoxFuture<'_, Result<Executed, Error>>;
    /// Returns the current usage, or `None` if the sandbox has ended.
    fn usage(&self) -> Option<LiveUsage>;
    /// Returns a receiver of the events from now on.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// A program to run in a living sandbox.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exec {
    /// The program, as an absolute path inside, and its arguments.
    pub command: Vec<OsString>,
    /// The whole environment, as names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory, as an absolute path inside.
    pub working_directory: PathBuf,
    /// Its standard input.
    pub stdin: Stdin,
}

impl Exec {
    /// Describes a program and its arguments.
    #[must_use]
    pub fn new<W: Into<OsString>>(command: impl IntoIterator<Item = W>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            stdin: Stdin::Empty,
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.working_directory = folder.into();
        self
    }

    /// Sets its standard input.
    #[must_use]
    pub fn with_stdin(mut self, stdin: impl Into<Stdin>) -> Self {
        self.stdin = stdin.into();
        self
    }

    fn check(&self) -> Result<(), Error> {
        let Some(program) = self.command.first() else {
            return Err(Error::invalid("exec.command", "", "it names no program"));
        };
        absolute("exec.command", Path::new(program))?;
        absolute("exec.working_directory", &self.working_directory)?;
        self.command.iter().try_for_each(|word| no_nul("exec.command", word))?;
        let bytes: usize = self.command.iter().map(|word| word.len() + 1).sum();
        if bytes > COMMAND_BYTES_MAX || self.command.len() > WORDS_MAX {
            let value = format!("{} words, {bytes} bytes", self.command.len());
            let reason = format!("at most {WORDS_MAX} words and {COMMAND_BYTES_MAX} bytes");
            return Err(Error::invalid("exec.command", value, reason));
        }
        check_environment(&self.environment)
    }
}

/// The most bytes and words of a command.
const COMMAND_BYTES_MAX: usize = 128 * 1024;
const WORDS_MAX: usize = 4096;

/// A program that has run in a living sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, byte for byte.
    pub stdout: Bytes,
    /// Its standard error, byte for byte.
    pub stderr: Bytes,
    /// Whether output beyond [`crate::OUTPUT_BYTES_KEPT`] of either stream was dropped.
    pub truncated: bool,
}

impl Executed {
    /// Creates the result of a program without output. For authors of backends.
    #[must_use]
    pub fn new(exit: Exit) -> Self {
        Self { exit, stdout: Bytes::new(), stderr: Bytes::new(), truncated: false }
    }

    /// Sets the outputs, and whether output was dropped.
    #[must_use]
    pub fn with_output(mut self, stdout: Bytes, stderr: Bytes, truncated: bool) -> Self {
        (self.stdout, self.stderr, self.truncated) = (stdout, stderr, truncated);
        self
    }
}

/// The current usage of a sandbox. A field is `None` if the backend does not measure it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveUsage {
    /// Processor time of all processes since the sandbox was made.
    pub cpu_time: Option<Duration>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The highest memory use so far, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Live processes and threads, including the sandbox's init.
    pub processes: Option<u32>,
    /// The number of processes that the memory limit has killed.
    pub out_of_memory_kills: u64,
}

/// An event in the life of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Its program was started.
    Started,
    /// The memory limit has killed processes. The number counts all since the sandbox was made. It
    /// is checked every 50 ms while there is a receiver of events and [`crate::Sandbox::run`]
    /// waits.
    OutOfMemory(u64),
    /// It has reached a limit and is being killed.
    LimitReached(EndedBy),
    /// It was initialised or has answered, and is frozen until the next invocation.
    Idle,
    /// It was handed an invocation.
    Busy,
    /// Its program has ended.
    Ended(Exit),
}

/// The events of a sandbox. [`EVENTS_KEPT`] are kept; a receiver that is slower misses the oldest.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// The number of events kept for a receiver.
pub const EVENTS_KEPT: usize = 64;

impl Events {
    /// Waits for the next event. Returns `None` when the sandbox has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
