//! The traits through which the crate reaches the machine, and the values that they exchange.

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
    /// Returns the variable `name`, or `None` if it is not set. A value need not be Unicode. If the
    /// chain needs text, it refuses such a value with the variable's name.
    fn var(&self, name: &str) -> Option<OsString>;
}

/// The result of [`ReadFile::read`].
#[derive(Clone)]
#[non_exhaustive]
pub struct FileData {
    /// The whole content.
    pub bytes: Vec<u8>,
    /// Whether users other than the owner may read the file. Always `false` if the system has no
    /// such permissions.
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
    /// Returns data of a file that only its owner may read.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), others_may_read: false }
    }
}

/// Reads files.
pub trait ReadFile: fmt::Debug + Send + Sync {
    /// Returns the content of `path`.
    ///
    /// Implementors must not read more than `bytes_max` bytes. If the file has more, they return
    /// [`io::ErrorKind::FileTooLarge`]. May be called again for the same path.
    ///
    /// # Errors
    ///
    /// Those of the system. [`io::ErrorKind::NotFound`] means that the file does not exist, which
    /// the chain treats as not configured.
    fn read<'a>(&'a self, path: &'a Path, bytes_max: u64) -> BoxFuture<'a, io::Result<FileData>>;

    /// Returns a stamp of the present version of `path`, whether the file exists or not. Must not
    /// wait for anything remote.
    ///
    /// After every change of the file, implementors must return a different stamp, or `None` if
    /// they cannot guarantee that. The content of a file is used again only while its stamp is the
    /// same. The default returns `None`.
    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let _unused = path;
        None
    }

    /// Returns how long a stamp may be used without a new call of [`ReadFile::stamp`]. The default
    /// is zero.
    fn stamp_serves(&self) -> Duration {
        Duration::ZERO
    }
}

/// The version of a file: it differs after every change. The parts have no meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u64; 5]);

impl Stamp {
    /// The stamp of a file that does not exist.
    pub const ABSENT: Self = Self([0; 5]);

    /// Returns a stamp of these parts. They must not all be zero.
    #[must_use]
    pub const fn new(parts: [u64; 5]) -> Self {
        Self(parts)
    }
}

/// Writes cache files.
pub trait WriteFile: fmt::Debug + Send + Sync {
    /// Replaces the content of `path` by `bytes` atomically. Only the owner may read and write the
    /// file (mode 0600). Missing parent folders are created (mode 0700).
    ///
    /// # Errors
    ///
    /// Those of the system. The chain records a failed write in its trace and goes on.
    fn write_private<'a>(
        &'a self,
        path: &'a Path,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>>;

    /// Locks the cache file `path` against other processes, until the lock is dropped or the
    /// process ends.
    ///
    /// Implementors must wait while another process holds the lock, and stop waiting when the
    /// future is dropped. The default takes no lock.
    ///
    /// # Errors
    ///
    /// Those of the system. The chain records a failed lock in its trace and goes on without it.
    fn lock<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<CacheLock>> {
        let _unused = path;
        Box::pin(std::future::ready(Ok(CacheLock::default())))
    }
}

/// A lock taken by [`WriteFile::lock`]. Dropping it releases the lock.
#[derive(Debug, Default)]
pub struct CacheLock(Option<std::fs::File>);

impl CacheLock {
    /// Returns a lock that is held while `file`, on which it was taken, is open.
    #[must_use]
    pub fn new(file: std::fs::File) -> Self {
        Self(Some(file))
    }

    /// Returns whether a lock is held. The default of [`WriteFile::lock`] takes none.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// Why an HTTP exchange gave no response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// The context has no HTTP client: enable the feature `tokio`, or set one.
    Unavailable,
    /// No connection could be made (name, route, TLS, proxy), so the service received nothing.
    Connect {
        /// The host that was tried.
        host: String,
        /// The message of the system or of TLS.
        reason: String,
    },
    /// The connection broke, or the answer is not HTTP.
    Broken {
        /// The host that was tried.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// The body of the response is larger than `bytes_max`.
    TooLarge {
        /// The host that answered.
        host: String,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// No response came in time.
    TimedOut {
        /// The time limit.
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
    /// Implementors follow no redirect, do not retry, set only the headers that HTTP/1.1 requires,
    /// and stop reading at [`HTTP_BODY_BYTES_MAX`]. Dropping the future aborts the exchange. The
    /// chain adds a time limit to every exchange.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if there was no complete response. A status of 400 or above is a response.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>>;
}

/// The file of root certificates of the profile (`ca_bundle`), as an extension of the requests that
/// [`SendHttp::send`] receives. `AWS_CA_BUNDLE` takes precedence over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle(pub PathBuf);

/// The progress of an exchange, as an extension of requests that [`SendHttp::send`] may update. If
/// a client does not update it, the chain assumes that a connection may exist.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    const CONNECTING: u8 = 1;
    const CONNECTED: u8 = 2;

    /// Records that a connection is being made.
    pub fn set_connecting(&self) {
        self.0.store(Self::CONNECTING, Ordering::Relaxed);
    }

    /// Records that the service has accepted the connection.
    pub fn set_connected(&self) {
        self.0.store(Self::CONNECTED, Ordering::Relaxed);
    }

    /// Returns whether a connection is being made and is not yet accepted.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::CONNECTING
    }
}

/// The largest response body that is read from any service, in bytes.
pub const HTTP_BODY_BYTES_MAX: u64 = 1 << 20;

/// A program to run, without a shell.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The program. It is searched in `PATH` if its name has no path separator.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The limit on standard output, in bytes.
    pub stdout_bytes_max: u64,
}

impl Command {
    /// Returns a command whose standard output is limited to 64 KiB.
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

/// The result of a program that has ended.
#[derive(Clone)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The exit code; `None` if a signal ended the program.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
}

impl CommandOutput {
    /// Returns the output of a program that exited with `code`.
    #[must_use]
    pub fn new(code: i32, stdout: impl Into<Vec<u8>>) -> Self {
        Self { code: Some(code), stdout: stdout.into() }
    }
}

impl fmt::Debug for CommandOutput {
    /// Shows sizes only: the output holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandOutput")
            .field("code", &self.code)
            .field("stdout_bytes", &self.stdout.len())
            .finish()
    }
}

/// Runs programs.
pub trait RunCommand: fmt::Debug + Send + Sync {
    /// Runs `command` to its end. Its standard input is empty, and its standard error is that of
    /// this process.
    ///
    /// Dropping the future must kill the program. More than `stdout_bytes_max` bytes of output give
    /// [`io::ErrorKind::FileTooLarge`].
    ///
    /// # Errors
    ///
    /// An error of the system if the program cannot be started or its output cannot be read.
    fn run(&self, command: Command) -> BoxFuture<'_, io::Result<CommandOutput>>;

    /// Returns whether `program` exists. Only plans use it. The default returns `true`.
    fn exists(&self, program: &str) -> bool {
        let _unused = program;
        true
    }
}

/// Gives the time, and waits.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time of day. Expiry times are compared with it.
    fn now(&self) -> SystemTime;

    /// Returns a time that never goes back, counted from any fixed start.
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
    /// The profile that needs the code, if one does.
    pub profile: Option<String>,
    /// The text to show, in the AWS CLI's words.
    pub text: String,
}

/// Asks a person.
pub trait Prompt: fmt::Debug + Send + Sync {
    /// Asks for the code, and returns what the person entered.
    ///
    /// Called up to [`crate::Options::mfa_questions_max`] times for each load that needs a code.
    /// One cache never has two questions open at the same time.
    ///
    /// # Errors
    ///
    /// An error if no person can be asked, or the person refuses.
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Secret>>;
}
