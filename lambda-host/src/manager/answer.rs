//! What the caller of an invocation gets that no sandbox answered.

use std::time::Duration;

use bytes::Bytes;
use lambda_core::{EventError, RejectReason};

use crate::error::{Error, ThrottleLimit};
use crate::function::version::Version;
use crate::invocation::{Answer, Report};
use crate::worker::failure::{Failure, payload};
use crate::worker::log::{LogTail, end_lines, start_line};
use crate::worker::protocol::{Deployment, FunctionError, Outcome};

/// Returns the answer that a worker's outcome is.
pub(super) fn answered(request_id: String, version: Version, outcome: Outcome) -> Answer {
    let Outcome { payload, function_error, log_tail, report } = outcome;
    Answer { request_id, version, payload, function_error, log_tail, report }
}

/// Returns the answer for a function whose init failed, and what the function's log says of the
/// invocation.
pub(super) fn init_failed(
    request_id: String,
    deployment: &Deployment,
    error: &FunctionError,
    kind: &str,
    log: Bytes,
    init_duration: Duration,
) -> (Answer, Vec<String>) {
    let report = Report {
        duration: Duration::ZERO,
        init_duration: Some(init_duration),
        restore_duration: None,
        billed_restore_duration: None,
        memory_mb: deployment.config.memory_mb,
        memory_peak_bytes: None,
    };
    let version = deployment.version;
    let payload = payload(kind, error, &request_id);
    let status = format!("Status: error\tError Type: {kind}");
    let mut tail = LogTail::from(log);
    let lines: Vec<String> = [start_line(&request_id, version)]
        .into_iter()
        .chain(end_lines(&request_id, &report, &status))
        .collect();
    lines.iter().for_each(|line| tail.line(line.as_bytes()));
    let answer = Answer {
        request_id,
        version,
        payload,
        function_error: true,
        log_tail: tail.text(),
        report,
    };
    (answer, lines)
}

/// Returns the answer for an invocation whose sandbox or worker was lost.
pub(super) fn lost(request_id: String, version: Version, memory_mb: u32) -> Answer {
    let report = Report {
        duration: Duration::ZERO,
        init_duration: None,
        restore_duration: None,
        billed_restore_duration: None,
        memory_mb,
        memory_peak_bytes: None,
    };
    let Failure { kind, error } = Failure::lost();
    let payload = payload(&kind, &error, &request_id);
    Answer { request_id, version, payload, function_error: true, log_tail: Bytes::new(), report }
}

/// Returns the error for an invocation that the engine refused; `arn` is the function's.
pub(super) fn refused(reason: RejectReason, arn: String) -> Error {
    match reason {
        RejectReason::ReservedConcurrency => {
            Error::Throttled { limit: ThrottleLimit::ReservedConcurrency }
        }
        RejectReason::AccountConcurrency => {
            Error::Throttled { limit: ThrottleLimit::AccountConcurrency }
        }
        RejectReason::WaitingFull => Error::Throttled { limit: ThrottleLimit::Waiting },
        RejectReason::ScalingRate => Error::Throttled { limit: ThrottleLimit::ScalingRate },
        RejectReason::NoCapacity => {
            Error::NoCapacity { reason: "memory of all workers is taken".to_owned() }
        }
        RejectReason::FunctionTooLarge => {
            Error::NoCapacity { reason: "no worker has so much memory".to_owned() }
        }
        RejectReason::FunctionUnknown => Error::FunctionNotFound { arn },
        other => Error::SandboxUnavailable { reason: format!("{other:?}") },
    }
}

/// Returns the error for a function that the engine did not take.
pub(super) fn refused_function(error: EventError, unreserved_min: u32) -> Error {
    match error {
        EventError::Reserved => Error::ConcurrencyReserved { unreserved_min },
        other => Error::Unplaceable { reason: other.to_string() },
    }
}
