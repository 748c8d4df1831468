//! The platform's events of inits and invocations, as the Telemetry API describes them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::runtime_api::Telemetry;
use crate::{Answer, InitFailure, Invocation, SandboxSpec, Usage};

fn variable(spec: &SandboxSpec, name: &str) -> String {
    let found = spec.environment.iter().find(|(its, _)| its == name);
    found.map(|(_, value)| value.to_string_lossy().into_owned()).unwrap_or_default()
}

fn version(spec: &SandboxSpec) -> String {
    Some(variable(spec, "AWS_LAMBDA_FUNCTION_VERSION"))
        .filter(|it| !it.is_empty())
        .unwrap_or_else(|| "$LATEST".to_owned())
}

/// Returns how and when an init takes place. A second one is part of an invocation.
fn place(spec: &SandboxSpec, again: bool) -> Map<String, Value> {
    let kind = Some(variable(spec, "AWS_LAMBDA_INITIALIZATION_TYPE")).filter(|it| !it.is_empty());
    let mut place = Map::new();
    let kind = kind.unwrap_or_else(|| "on-demand".to_owned());
    place.insert("initializationType".to_owned(), kind.into());
    let phase = if again { "invoke" } else { "init" };
    place.insert("phase".to_owned(), phase.into());
    place
}

/// Tells that the programs are started.
pub(super) fn init_start(telemetry: &Telemetry, spec: &SandboxSpec, again: bool) {
    telemetry.platform("platform.initStart", || {
        let mut record = place(spec, again);
        record.insert("functionName".to_owned(), spec.function.clone().into());
        record.insert("functionVersion".to_owned(), version(spec).into());
        record.insert("instanceMaxMemory".to_owned(), spec.limits.memory_bytes.into());
        record.into()
    });
}

/// Tells how an init ended, after `duration`.
pub(super) fn init_end(
    telemetry: &Telemetry,
    spec: &SandboxSpec,
    again: bool,
    duration: Duration,
    failure: Option<&InitFailure>,
) {
    let (status, error_type) = match failure {
        None => ("success", None),
        Some(InitFailure::TimedOut(_) | InitFailure::RestoreTimedOut(_)) => ("timeout", None),
        Some(InitFailure::Reported(error) | InitFailure::RestoreReported(error)) => {
            ("error", Some(error.error_type.as_str()))
        }
        Some(InitFailure::OutOfMemory) => ("error", Some("Runtime.OutOfMemory")),
        Some(_) => ("error", Some("Runtime.ExitError")),
    };
    let record = || {
        let mut record = place(spec, again);
        record.insert("status".to_owned(), status.into());
        if let Some(error_type) = error_type {
            record.insert("errorType".to_owned(), error_type.into());
        }
        record
    };
    telemetry.platform("platform.initRuntimeDone", || record().into());
    telemetry.platform("platform.initReport", || {
        let mut record = record();
        record.insert("metrics".to_owned(), json!({ "durationMs": ms(duration) }));
        record.into()
    });
}

/// What is told of one invocation.
#[derive(Debug)]
pub(super) struct Report {
    request_id: String,
    trace_id: Option<String>,
    memory_bytes: u64,
    status: &'static str,
    error_type: Option<String>,
    usage: Usage,
}

impl Report {
    /// Tells that an invocation begins.
    pub(super) fn start(
        telemetry: &Telemetry,
        spec: &SandboxSpec,
        invocation: &Invocation,
    ) -> Self {
        let report = Self {
            request_id: invocation.request_id.clone(),
            trace_id: invocation.trace_id.clone(),
            memory_bytes: spec.limits.memory_bytes,
            status: "success",
            error_type: None,
            usage: Usage::default(),
        };
        telemetry.platform("platform.start", || {
            let mut record = report.record();
            record.insert("version".to_owned(), version(spec).into());
            record.into()
        });
        report
    }

    /// Tells that the runtime has ended its work.
    pub(super) fn runtime_done(&mut self, telemetry: &Telemetry, answer: &Answer, usage: Usage) {
        let (status, error_type) = match answer {
            Answer::Success(_) => ("success", None),
            Answer::FunctionError(error) => ("error", Some(error.error_type.clone())),
            Answer::TimedOut => ("timeout", None),
            Answer::OutOfMemory => ("error", Some("Runtime.OutOfMemory".to_owned())),
            Answer::Exited(_) => ("error", Some("Runtime.ExitError".to_owned())),
        };
        (self.status, self.error_type, self.usage) = (status, error_type, usage);
        telemetry.platform("platform.runtimeDone", || {
            let mut record = self.ended();
            record.insert("metrics".to_owned(), json!({ "durationMs": ms(usage.duration) }));
            record.into()
        });
    }

    /// Tells that the invocation is over.
    pub(super) fn end(&self, telemetry: &Telemetry) {
        telemetry.platform("platform.report", || {
            let duration = self.usage.duration;
            let mut metrics = json!({
                "durationMs": ms(duration),
                "billedDurationMs": duration.as_nanos().div_ceil(1_000_000),
                "memorySizeMB": self.memory_bytes >> 20,
            });
            if let Some(peak) = self.usage.memory_peak_bytes {
                metrics["maxMemoryUsedMB"] = peak.div_ceil(1 << 20).into();
            }
            let mut record = self.ended();
            record.insert("metrics".to_owned(), metrics);
            record.into()
        });
    }

    fn record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        record.insert("requestId".to_owned(), self.request_id.clone().into());
        if let Some(trace_id) = &self.trace_id {
            let tracing = json!({ "type": "X-Amzn-Trace-Id", "value": trace_id });
            record.insert("tracing".to_owned(), tracing);
        }
        record
    }

    fn ended(&self) -> Map<String, Value> {
        let mut record = self.record();
        record.insert("status".to_owned(), self.status.into());
        if let Some(error_type) = &self.error_type {
            record.insert("errorType".to_owned(), error_type.clone().into());
        }
        record
    }
}

/// Returns milliseconds with three digits behind the point.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
