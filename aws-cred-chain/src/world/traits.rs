//! The traits by which the chain reaches the world, and the values that they exchange.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::credentials::Secret;

/// A boxed future, so that the traits here are usable as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads environment variables.
///
/// May be called at any time and from any thread; must not block.
pub trait Env: fmt::Debug + Send + Sync {
    /// Returns the variable `name`, `None` where it is not set. A value need not be Unicode: the chain
    /// refuses such a one with the variable's name where it needs text.
    fn var(&self, name: &str) -> Option<OsString>;
}

/// The result of [`ReadFile::read`].
#[derive(Clone)]
#[non_exhaustive]
pub struct FileData {
    /// The whole content.
    pub bytes: Vec<u8>,
    /// Whether users other than the owner may read the file (always `false` where the system has no
    /// such notion).
    pub others_may_read: bool,
}

impl fmt::Debug for FileData {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileData")
            .field("bytes", &self.bytes.len())
            .field("others_may_read", &self.others_may_read)
            .finish()
    }
}

impl FileData {
    /// Returns data that only its owner may read.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), others_may_read: false }
    }
}

/// Reads files.
pub trait ReadFile: fmt::Debug + Send + Sync {
    /// Returns the content of `path`.
    ///
    /// Implementors must not read more than `bytes_max` bytes, and answer
    /// [`io::ErrorKind::FileTooLarge`] where there are more. May be called again for the same path.
    ///
    /// # Errors
    ///
    /// As the system gives them; [`io::ErrorKind::NotFound`] means that the file is not configured.
    fn read<'a>(&'a self, path: &'a Path, bytes_max: u64) -> BoxFuture<'a, io::Result<FileData>>;

    /// Returns what tells the state of `path`, be it there or not; must not wait for anything far away.
    ///
    /// Implementors must return another stamp after every change of the file, or `None` where they cannot
    /// promise that. What a file said is used again only while its stamp is the same. The default promises
    /// nothing.
    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let _unused = path;
        None
    }

    /// Returns how long a stamp may be taken for the present one without a new look. The default is zero:
    /// every use looks.
    fn stamp_serves(&self) -> Duration {
        Duration::ZERO
    }
}

/// A file's version: it differs after every change. Its parts mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u64; 5]);

impl Stamp {
    /// The stamp of a file that is not there.
    pub const ABSENT: Self = Self([0; 5]);

    /// Returns a stamp of these parts, which must not all be zero.
    #[must_use]
    pub const fn new(parts: [u64; 5]) -> Self {
        Self(parts)
    }
}

/// Writes the files of caches.
pub trait WriteFile: fmt::Debug + Send + Sync {
    /// Replaces `path` by `bytes` in one step, readable and writable by its owner only (mode 0600);
    /// missing parent folders are made (mode 0700).
    ///
    /// # Errors
    ///
    /// As the system gives them. The chain reports a failed write in its trace and goes on.
    fn write_private<'a>(
        &'a self,
        path: &'a Path,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>>;

    /// Locks the cache file `path` against other processes, until the lock is dropped or its process ends.
    ///
    /// Implementors must wait while another holder has it, and stop waiting when the future is dropped. The
    /// default locks nothing.
    ///
    /// # Errors
    ///
    /// As the system gives them. The chain reports a failed lock in its trace and goes on without.
    fn lock<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<CacheLock>> {
        let _unused = path;
        Box::pin(std::future::ready(Ok(CacheLock::default())))
    }
}

/// A lock that [`WriteFile::lock`] gives; dropped, it is released.
#[derive(Debug, Default)]
pub struct CacheLock(Option<std::fs::File>);

impl CacheLock {
    /// Holds the lock that lies on `file` as long as the file is open.
    #[must_use]
    pub fn new(file: std::fs::File) -> Self {
        Self(Some(file))
    }

    /// Returns whether there is a lock; [`WriteFile::lock`]'s default gives none.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// Why an HTTP exchange gave no response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// This context has no HTTP client (build with the feature `tokio`, or give one).
    Unavailable,
    /// No connection (name, route, TLS, proxy), so the service saw nothing.
    Connect {
        /// The host that was tried.
        host: String,
        /// The message of the system or of TLS.
        reason: String,
    },
    /// The connection broke, or what came is not HTTP.
    Broken {
        /// The host that was tried.
        host: String,
        /// The fault.
        reason: String,
    },
    /// The response is larger than `bytes_max`.
    TooLarge {
        /// The host that answered.
        host: String,
        /// The limit.
        bytes_max: u64,
    },
    /// No response in time.
    TimedOut {
        /// The time waited.
        after: Duration,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("no HTTP client in this context"),
            Self::Connect { host, reason } => write!(f, "no connection to {host}: {reason}"),
            Self::Broken { host, reason } => write!(f, "broken exchange with {host}: {reason}"),
            Self::TooLarge { host, bytes_max } => {
                write!(f, "response of {host} is larger than {bytes_max} bytes")
            }
            Self::TimedOut { after } => write!(f, "no answer in {} ms", after.as_millis()),
        }
    }
}

impl std::error::Error for HttpError {}

/// Sends one HTTP request.
pub trait SendHttp: fmt::Debug + Send + Sync {
    /// Sends `request` (absolute URI, whole body) and returns the whole response.
    ///
    /// Implementors follow no redirect, retry nothing, set no header but those that HTTP/1.1 demands,
    /// and stop at [`HTTP_BODY_BYTES_MAX`]. Dropping the future abandons the exchange. The chain gives
    /// every exchange a time limit of its own.
    ///
    /// # Errors
    ///
    /// [`HttpError`] where there was no whole response; a status of 400 or above is a response.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>>;
}

/// The file of root certificates that the profile names (`ca_bundle`): an extension of the requests that
/// [`SendHttp::send`] is given. `AWS_CA_BUNDLE` goes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle(pub PathBuf);

/// The progress of an exchange: an extension of requests that [`SendHttp::send`] may set. A client
/// that says nothing is taken as one that may have a connection.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    const CONNECTING: u8 = 1;
    const CONNECTED: u8 = 2;

    /// Notes that a connection is being made.
    pub fn set_connecting(&self) {
        self.0.store(Self::CONNECTING, Ordering::Relaxed);
    }

    /// Notes that the service has accepted the connection.
    pub fn set_connected(&self) {
        self.0.store(Self::CONNECTED, Ordering::Relaxed);
    }

    /// Returns whether a connection is being made and there is none yet.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::CONNECTING
    }
}

/// The largest response body in bytes that is read of any service.
pub const HTTP_BODY_BYTES_MAX: u64 = 1 << 20;

/// A program to run, without a shell.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The program, looked up in `PATH` where it has no separator.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The most bytes of standard output that are read.
    pub stdout_bytes_max: u64,
}

impl Command {
    /// Returns a command with a limit of 64 KiB on its output.
    #[must_use]
    pub fn new(program: impl Into<String>, arguments: Vec<String>) -> Self {
        Self { program: program.into(), arguments, stdout_bytes_max: 1 << 16 }
    }
}

impl fmt::Debug for Command {
    /// Shows the program only: arguments may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// The result of a program.
#[derive(Clone)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The exit code, or `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
}

impl CommandOutput {
    /// Returns what a program did that exited with `code`.
    #[must_use]
    pub fn new(code: i32, stdout: impl Into<Vec<u8>>) -> Self {
        Self { code: Some(code), stdout: stdout.into() }
    }
}

impl fmt::Debug for CommandOutput {
    /// Shows sizes only: the output is credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandOutput")
            .field("code", &self.code)
            .field("stdout_bytes", &self.stdout.len())
            .finish()
    }
}

/// Runs programs.
pub trait RunCommand: fmt::Debug + Send + Sync {
    /// Runs `command` to its end; standard input is empty, standard error is the caller's.
    ///
    /// Dropping the future kills the program. Output beyond `stdout_bytes_max` is
    /// [`io::ErrorKind::FileTooLarge`].
    ///
    /// # Errors
    ///
    /// Where the program cannot be started or read from.
    fn run(&self, command: Command) -> BoxFuture<'_, io::Result<CommandOutput>>;

    /// Returns whether `program` is there; used for planning only. The default says yes.
    fn exists(&self, program: &str) -> bool {
        let _unused = program;
        true
    }
}

/// Tells the time and waits.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time of day, which expiry times are compared with.
    fn now(&self) -> SystemTime;

    /// Returns a time that never goes back, counted from any fixed moment.
    fn monotonic(&self) -> Duration;

    /// Completes when `duration` has passed. Dropping the future ends the wait.
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()>;
}

/// A question to a person: the code of an MFA device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// The serial number or ARN of the MFA device.
    pub mfa_serial: String,
    /// The profile that needs it, where one does.
    pub profile: Option<String>,
    /// The text to show, in the AWS CLI's words.
    pub text: String,
}

/// Asks the person in front of the program.
pub trait Prompt: fmt::Debug + Send + Sync {
    /// Returns the code that the person entered.
    ///
    /// Called once for each load that needs a code; never twice at the same time by one cache.
    ///
    /// # Errors
    ///
    /// Where nobody can be asked, or the person refuses.
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Secret>>;
}
