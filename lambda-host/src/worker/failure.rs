//! What a caller sees of a function that failed without saying so itself, in Lambda's words.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_sandbox::{Answer, Exit, InitFailure};
use serde_json::json;

use super::date;
use super::protocol::FunctionError;

/// An error that Lambda reports for a function: a type, and what the function or the platform says.
///
/// Sources: AWS, "Understanding retry behavior" and "Troubleshoot execution issues in Lambda"; the
/// shapes are those of the Runtime API's own errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For example `Sandbox.Timedout`.
    pub(crate) kind: String,
    pub(crate) error: FunctionError,
}

impl Failure {
    /// Tells how an invocation failed; `None` when the function answered.
    pub(crate) fn of(answer: &Answer, timeout: Duration) -> Option<Self> {
        Some(match answer {
            Answer::Success(_) => return None,
            Answer::FunctionError(error) => Self::reported(error),
            Answer::TimedOut => Self::timed_out(timeout),
            Answer::OutOfMemory => Self::out_of_memory(),
            Answer::Exited(exit) => Self::exited(*exit),
            _ => Self::said("Sandbox.Failure", "Error: Sandbox failed"),
        })
    }

    /// Tells how an init failed; `None` when it was not by the function's fault, or only took too
    /// long.
    /// `of_image`: all files of the sandbox are the function's.
    pub(crate) fn of_init(failure: &InitFailure, of_image: bool) -> Option<Self> {
        Some(match failure {
            InitFailure::Reported(error) | InitFailure::RestoreReported(error) => {
                Self::reported(error)
            }
            InitFailure::Exited(exit) => Self::exited(*exit),
            InitFailure::OutOfMemory => Self::out_of_memory(),
            InitFailure::Failed(lambda_sandbox::Error::Failed {
                path: Some(path), source, ..
            }) => {
                return Self::not_executable(path, source, of_image);
            }
            _ => return None,
        })
    }

    /// The function's program cannot be executed; `None` for a path that is not the function's, or
    /// another error of the machine.
    fn not_executable(path: &Path, source: &std::io::Error, of_image: bool) -> Option<Self> {
        let its = of_image || path.starts_with("/var/task") || path.starts_with("/opt");
        let words = go_words(source)?;
        let message = if source.raw_os_error() == Some(2) && path.parent() == Some(Path::new("")) {
            // Of a name that was looked for in PATH.
            format!(
                "Error: exec: {:?}: executable file not found in $PATH",
                path.display().to_string()
            )
        } else {
            format!("Error: fork/exec {}: {words}", path.display())
        };
        its.then(|| Self::said("Runtime.InvalidEntrypoint", &message))
    }

    /// The working directory of a function's image cannot be entered; `None` for another error.
    pub(crate) fn of_working_directory(
        error: &lambda_sandbox::Error,
        folder: &Path,
    ) -> Option<Self> {
        let lambda_sandbox::Error::Failed { path: Some(path), source, .. } = error else {
            return None;
        };
        let words = go_words(source)?;
        let message = format!("Error: chdir {}: {words}", folder.display());
        (path == folder).then(|| Self::said("Runtime.InvalidWorkingDir", &message))
    }

    /// A container image names no program.
    pub(crate) fn no_command() -> Self {
        Self::said(
            "Runtime.InvalidEntrypoint",
            "Error: the image has neither EntryPoint nor Command",
        )
    }

    /// The invocation took longer than its function may.
    pub(crate) fn timed_out(timeout: Duration) -> Self {
        let message = format!("Error: Task timed out after {:.2} seconds", timeout.as_secs_f64());
        Self::said(TIMED_OUT, &message)
    }

    /// The function's hooks after a restore took longer than they may.
    pub(crate) fn restore_timed_out(limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        let message = format!("Error: Restore timed out after {seconds:.2} seconds");
        Self::said(TIMED_OUT, &message)
    }

    /// The function's code has no program to start.
    pub(crate) fn no_entry_point() -> Self {
        let message =
            "Error: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]";
        Self::said("Runtime.InvalidEntrypoint", message)
    }

    /// The host ended the sandbox while it was busy.
    pub(crate) fn stopped() -> Self {
        Self::said("Sandbox.Stopped", "Error: The host ended the invocation")
    }

    /// The worker was lost with the invocation.
    pub(crate) fn lost() -> Self {
        Self::said("Sandbox.Lost", "Error: The sandbox was lost before it answered")
    }

    /// Returns the end of a REPORT line.
    pub(crate) fn status(&self) -> String {
        let status = if self.kind == TIMED_OUT { "timeout" } else { "error" };
        format!("Status: {status}\tError Type: {}", self.kind)
    }

    /// Returns what the platform writes of it to the function's log, before END, at `now`.
    pub(crate) fn lines(&self, request_id: &str, now: SystemTime) -> Vec<String> {
        let FunctionError::Described(message) = &self.error else { return Vec::new() };
        if self.kind == TIMED_OUT {
            let message = message.trim_start_matches("Error: ");
            return vec![format!("{} {request_id} {message}", date::iso(now)), String::new()];
        }
        vec![format!("RequestId: {request_id} {message}"), self.kind.clone()]
    }

    fn reported(error: &lambda_sandbox::FunctionError) -> Self {
        let (kind, error) = (error.error_type.clone(), FunctionError::Reported(error.body.clone()));
        Self { kind, error }
    }

    fn out_of_memory() -> Self {
        Self::said("Runtime.OutOfMemory", "Error: Runtime exited with error: signal: killed")
    }

    fn exited(exit: Exit) -> Self {
        let how = match exit {
            Exit::Status(0) => "Error: Runtime exited without providing a reason".to_owned(),
            Exit::Status(status) => {
                format!("Error: Runtime exited with error: exit status {status}")
            }
            Exit::Signal(signal) => {
                format!("Error: Runtime exited with error: signal: {}", signal_name(signal))
            }
            _ => "Error: Runtime exited".to_owned(),
        };
        Self::said("Runtime.ExitError", &how)
    }

    fn said(kind: &str, message: &str) -> Self {
        Self { kind: kind.to_owned(), error: FunctionError::Described(message.to_owned()) }
    }
}

/// Returns the JSON that the caller of an invocation gets for a function that failed.
pub(crate) fn payload(kind: &str, error: &FunctionError, request_id: &str) -> Bytes {
    match error {
        FunctionError::Reported(body) => body.clone(),
        // In Lambda's order, which an object of serde_json does not keep.
        FunctionError::Described(message) => {
            let message = json!(format!("RequestId: {request_id} {message}"));
            Bytes::from(format!(r#"{{"errorType":{},"errorMessage":{message}}}"#, json!(kind)))
        }
    }
}

/// An error of the system in the words of Go's `syscall.Errno`, which Lambda's messages quote;
/// `None` for one that is no fault of a path.
fn go_words(error: &std::io::Error) -> Option<&'static str> {
    Some(match error.raw_os_error()? {
        2 => "no such file or directory",
        8 => "exec format error",
        13 => "permission denied",
        20 => "not a directory",
        40 => "too many levels of symbolic links",
        80 => "accessing a corrupted shared library",
        _ => return None,
    })
}

/// A signal in the words of Go's `syscall.Signal`, which Lambda's messages quote.
fn signal_name(signal: i32) -> String {
    match signal {
        4 => "illegal instruction".to_owned(),
        6 => "aborted".to_owned(),
        7 => "bus error".to_owned(),
        8 => "floating point exception".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        15 => "terminated".to_owned(),
        31 => "bad system call".to_owned(),
        other => other.to_string(),
    }
}

const TIMED_OUT: &str = "Sandbox.Timedout";
