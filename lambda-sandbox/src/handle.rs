//! A handle to a living sandbox: other programs run in it, what it uses, and what happens to it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::spec::check::{absolute, check_environment, no_nul};
use crate::{BoxFuture, EndedBy, Error, Exit, Stdin};

/// Reaches a living sandbox from anywhere, also while its program runs. Clones are the same handle. It does not keep the sandbox
/// alive: when that has ended, each method says so.
#[derive(Clone, Debug)]
pub struct Handle(Arc<dyn Live>);

impl Handle {
    /// Wraps what a backend has; for authors of backends.
    pub fn new(live: Arc<dyn Live>) -> Self {
        Self(live)
    }

    /// Runs another program in the sandbox, behind the same defences, in the same limits and with the same user, and waits for its
    /// end. It ends with the sandbox's own program. Dropping the future kills it.
    ///
    /// In a frozen sandbox it runs when that is thawed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a broken description, [`Error::Unavailable`] where the backend cannot or the sandbox's own program
    /// was not started yet, [`Error::Failed`] when the program could not be started, [`Error::Ended`] when the sandbox has ended.
    pub async fn exec(&self, exec: Exec) -> Result<Executed, Error> {
        exec.check()?;
        self.0.exec(exec).await
    }

    /// Returns what the sandbox uses now.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when it has ended.
    pub fn usage(&self) -> Result<LiveUsage, Error> {
        self.0.usage().ok_or(Error::Ended)
    }

    /// Returns what happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }
}

/// What a backend does behind a [`Handle`].
pub trait Live: Send + Sync + fmt::Debug {
    /// Runs another program to its end; the description is checked.
    fn exec(&self, exec: Exec) -> BoxFuture<'_, Result<Executed, Error>>;
    /// Returns what the sandbox uses; `None` when it has ended.
    fn usage(&self) -> Option<LiveUsage>;
    /// Returns a receiver of what happens.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// A program to run in a living sandbox.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exec {
    /// The program, an absolute path inside, and its arguments.
    pub command: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that it starts in.
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

    /// Sets the folder that it starts in.
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

/// Most bytes and words of a command that is run in a living sandbox.
const COMMAND_BYTES_MAX: usize = 128 * 1024;
const WORDS_MAX: usize = 4096;

/// A program that has run in a living sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to its standard output, byte for byte.
    pub stdout: Bytes,
    /// What it wrote to its standard error, byte for byte.
    pub stderr: Bytes,
    /// Whether more was written than is kept ([`crate::OUTPUT_BYTES_KEPT`] of each).
    pub truncated: bool,
}

impl Executed {
    /// Makes the end of a program that wrote nothing; for authors of backends.
    #[must_use]
    pub fn new(exit: Exit) -> Self {
        Self { exit, stdout: Bytes::new(), stderr: Bytes::new(), truncated: false }
    }

    /// Sets what it wrote, and whether it wrote more.
    #[must_use]
    pub fn with_output(mut self, stdout: Bytes, stderr: Bytes, truncated: bool) -> Self {
        (self.stdout, self.stderr, self.truncated) = (stdout, stderr, truncated);
        self
    }
}

/// What a sandbox uses at a moment; `None` where the backend does not measure it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveUsage {
    /// Processor time of all processes since the sandbox was made.
    pub cpu_time: Option<Duration>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The highest memory use so far, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads that are alive, the sandbox's init among them.
    pub processes: Option<u32>,
    /// How many processes the memory limit has killed.
    pub out_of_memory_kills: u64,
}

/// Something that happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Its program was started.
    Started,
    /// The memory limit has killed processes: as many as told since the sandbox was made. Looked for every
    /// 50 ms while somebody listens and [`crate::Sandbox::run`] waits.
    OutOfMemory(u64),
    /// It has reached a limit, and is killed.
    LimitReached(EndedBy),
    /// It has an answer or has come up, and is frozen until the next invocation.
    Idle,
    /// It was handed an invocation.
    Busy,
    /// Its program has ended.
    Ended(Exit),
}

/// What happens to a sandbox, as it happens. Who reads too late misses the oldest: [`EVENTS_KEPT`] are kept.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// Events that wait for who is to read them.
pub const EVENTS_KEPT: usize = 64;

impl Events {
    /// Waits for the next event; `None` when the sandbox is gone.
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
