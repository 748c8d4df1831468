//! What a caller sees of a function that failed without saying so itself, in Lambda's words.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::{Answer, Exit, InitFailure};
use serde_json::json;

/// An error that Lambda reports for a function: a type and a message.
///
/// Sources: AWS, "Understanding retry behavior" and "Troubleshoot execution issues in Lambda"; the shapes are those of
/// the Runtime API's own errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For example `Sandbox.Timedout`.
    pub(crate) kind: String,
    payload: Bytes,
}

impl Failure {
    /// Tells how an invocation failed; `None` when the function answered.
    pub(crate) fn of(answer: &Answer, request_id: &str, timeout: Duration) -> Option<Self> {
        Some(match answer {
            Answer::Success(_) => return None,
            Answer::FunctionError(error) => {
                Self { kind: error.error_type.clone(), payload: error.body.clone() }
            }
            Answer::TimedOut => Self::timed_out(request_id, timeout),
            Answer::OutOfMemory => Self::out_of_memory(Some(request_id)),
            Answer::Exited(exit) => Self::exited(*exit, Some(request_id)),
            _ => Self::said("Sandbox.Failure", Some(request_id), "Sandbox failed"),
        })
    }

    /// Tells how an init failed; `None` when it was not by the function's fault, or only took too long.
    pub(crate) fn of_init(failure: &InitFailure) -> Option<Self> {
        Some(match failure {
            InitFailure::Reported(error) => {
                Self { kind: error.error_type.clone(), payload: error.body.clone() }
            }
            InitFailure::Exited(exit) => Self::exited(*exit, None),
            InitFailure::OutOfMemory => Self::out_of_memory(None),
            InitFailure::Failed(lambda_sandbox::Error::Failed {
                path: Some(path), source, ..
            }) => {
                return Self::not_executable(path, source);
            }
            _ => return None,
        })
    }

    /// The function's program cannot be executed; `None` for a path that is not the function's, or another error of the machine.
    fn not_executable(path: &Path, source: &std::io::Error) -> Option<Self> {
        let its = path.starts_with("/var/task") || path.starts_with("/opt");
        // The words of Go's `syscall.Errno`, which Lambda's messages quote.
        let words = match source.raw_os_error() {
            Some(2) => "no such file or directory",
            Some(8) => "exec format error",
            Some(13) => "permission denied",
            Some(20) => "not a directory",
            Some(40) => "too many levels of symbolic links",
            Some(80) => "accessing a corrupted shared library",
            _ => return None,
        };
        let message = format!("fork/exec {}: {words}", path.display());
        its.then(|| Self::said("Runtime.InvalidEntrypoint", None, &message))
    }

    /// The invocation took longer than its function may.
    pub(crate) fn timed_out(request_id: &str, timeout: Duration) -> Self {
        let message = format!("Task timed out after {:.2} seconds", timeout.as_secs_f64());
        Self::said(TIMED_OUT, Some(request_id), &message)
    }

    /// The function's code has no program to start.
    pub(crate) fn no_entry_point() -> Self {
        let message = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]";
        Self::said("Runtime.InvalidEntrypoint", None, message)
    }

    /// The host ended the sandbox while it was busy.
    pub(crate) fn stopped(request_id: &str) -> Self {
        Self::said("Sandbox.Stopped", Some(request_id), "The host ended the invocation")
    }

    /// The worker was lost with the invocation.
    pub(crate) fn lost(request_id: &str) -> Self {
        Self::said("Sandbox.Lost", Some(request_id), "The sandbox was lost before it answered")
    }

    /// Returns the error as JSON.
    pub(crate) fn payload(&self) -> Bytes {
        self.payload.clone()
    }

    /// Returns the end of a REPORT line.
    pub(crate) fn status(&self) -> String {
        let status = if self.kind == TIMED_OUT { "timeout" } else { "error" };
        format!("Status: {status}\tError Type: {}", self.kind)
    }

    fn out_of_memory(request_id: Option<&str>) -> Self {
        Self::said("Runtime.OutOfMemory", request_id, "Runtime exited with error: signal: killed")
    }

    fn exited(exit: Exit, request_id: Option<&str>) -> Self {
        let how = match exit {
            Exit::Status(0) => "Runtime exited without providing a reason".to_owned(),
            Exit::Status(status) => format!("Runtime exited with error: exit status {status}"),
            Exit::Signal(signal) => {
                format!("Runtime exited with error: signal: {}", signal_name(signal))
            }
            _ => "Runtime exited".to_owned(),
        };
        Self::said("Runtime.ExitError", request_id, &how)
    }

    fn said(kind: &str, request_id: Option<&str>, message: &str) -> Self {
        let message = match request_id {
            Some(id) => format!("RequestId: {id} Error: {message}"),
            None => format!("Error: {message}"),
        };
        let body = json!({ "errorType": kind, "errorMessage": message });
        Self { kind: kind.to_owned(), payload: Bytes::from(body.to_string()) }
    }
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
