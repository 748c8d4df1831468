//! The log of a sandbox: its end is kept for the caller of its invocation, all of it goes to the
//! host's log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_sandbox::{LogLine, LogSink};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::date;
use super::protocol::Deployment;
use crate::function::logging::Logging;
use crate::function::runtimes;
use crate::function::version::Version;
use crate::invocation::Report;
use crate::logs::LogEvent;

/// The log of one invocation, of which the end is kept.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    text: Vec<u8>,
}

impl LogTail {
    /// Adds a line, which has no line break at its end.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.text.extend_from_slice(&line[line.len().saturating_sub(LOG_TAIL_BYTES)..]);
        self.text.push(b'\n');
        if self.text.len() > 2 * LOG_TAIL_BYTES {
            self.cut();
        }
    }

    /// Returns what was written so far, at the most 4 KB.
    pub(crate) fn text(mut self) -> Bytes {
        self.cut();
        self.text.into()
    }

    fn cut(&mut self) {
        self.text.drain(..self.text.len().saturating_sub(LOG_TAIL_BYTES));
    }
}

impl From<Bytes> for LogTail {
    fn from(text: Bytes) -> Self {
        Self { text: text.into() }
    }
}

/// The status of an init that took too long, in an INIT_REPORT line.
pub(super) const INIT_TIMEOUT: &str = "Status: timeout";

/// When an init takes place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Before the first invocation.
    Init,
    /// Within an invocation.
    Invoke,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Invoke => "invoke",
        }
    }
}

/// Takes a sandbox's output: what it writes before an invocation counts to it, as in Lambda's log.
///
/// The end of it is for the caller of the invocation, all of it for the host's log.
#[derive(Debug)]
pub(super) struct SandboxLog {
    /// The name of the stream in the host's log.
    stream: String,
    /// The least level of the platform's lines if they are JSON objects; text otherwise.
    json: Option<Level>,
    lines: Mutex<Lines>,
    /// Told when there is something to send, and when there is much.
    begun: Notify,
    much: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    tail: LogTail,
    unsent: Vec<LogEvent>,
    unsent_bytes: usize,
    /// The time of the last line: none is earlier than the one before.
    last_ms: u64,
    /// Lines that found no room among those unsent.
    lost: u64,
}

impl SandboxLog {
    pub(super) fn new(stream: String, logging: &Logging) -> Self {
        let json = logging.json.then(|| Level::of(logging.system_level.as_deref()));
        Self { stream, json, lines: Mutex::default(), begun: Notify::new(), much: Notify::new() }
    }

    /// Returns whether the platform's lines are JSON objects.
    pub(super) fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// Adds a line of the platform's in JSON, if its level is high enough.
    ///
    /// Source: AWS, "Lambda Telemetry API `Event` schema reference", and "Log-level filtering" on
    /// the levels.
    fn event(&self, level: Level, kind: &str, record: &Value) {
        if self.json.is_some_and(|least| level >= least) {
            let time = date::iso(SystemTime::now());
            self.say(json!({ "time": time, "type": kind, "record": record }).to_string());
        }
    }

    /// Says that the sandbox is made, with Lambda's INIT_START line.
    pub(super) fn init_start(&self, deployment: &Deployment) {
        let kind = match (deployment.provisioned, deployment.snap_starts()) {
            (true, _) => "provisioned-concurrency",
            (false, true) => "snap-start",
            (false, false) => "on-demand",
        };
        let record = json!({ "initializationType": kind, "phase": Phase::Init.as_str() });
        self.began(deployment, ("INIT_START", "platform.initStart"), record);
    }

    /// Says that the sandbox is restored from a snapshot, with Lambda's RESTORE_START line.
    pub(super) fn restore_start(&self, deployment: &Deployment) {
        self.began(deployment, ("RESTORE_START", "platform.restoreStart"), json!({}));
    }

    /// Says how long the restore took, with Lambda's RESTORE_REPORT line. `status` begins with
    /// `Status: ` if it failed.
    pub(super) fn restore_report(&self, duration: Duration, status: &str) {
        let ms = duration.as_secs_f64() * 1000.0;
        if self.json.is_none() {
            let text = format!("RESTORE_REPORT Restore Duration: {ms:.2} ms\t{status}");
            let text = text.trim_end().to_owned();
            // Not for the caller of an invocation.
            return self.keep(&mut self.lines(), LogEvent::new(now_ms(), text));
        }
        let level = if status.is_empty() { Level::Info } else { Level::Warn };
        let mut record = with_status(json!({}), status);
        record["metrics"] = json!({ "durationMs": ms });
        self.event(level, "platform.restoreReport", &record);
    }

    fn began(&self, deployment: &Deployment, (name, kind): (&str, &str), mut record: Value) {
        if deployment.config.image.is_some() {
            // An image has no runtime of Lambda's whose version could be told.
            return;
        }
        let runtime = &deployment.config.runtime;
        let arn = runtimes::version_arn(&deployment.region, runtime);
        let version = runtimes::version(runtime);
        if self.json.is_none() {
            let text = format!("{name} Runtime Version: {version}\tRuntime Version ARN: {arn}");
            // Not for the caller of an invocation.
            return self.keep(&mut self.lines(), LogEvent::new(now_ms(), text));
        }
        record["runtimeVersion"] = version.into();
        record["runtimeVersionArn"] = arn.into();
        record["functionName"] = deployment.config.name.as_str().into();
        record["functionVersion"] = deployment.version.to_string().into();
        self.event(Level::Info, kind, &record);
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// Adds a line of the platform's.
    pub(super) fn say(&self, text: String) {
        let mut lines = self.lines();
        lines.tail.line(text.as_bytes());
        self.keep(&mut lines, LogEvent::new(now_ms(), text));
    }

    pub(super) fn start(&self, request_id: &str, version: Version) {
        if self.json.is_none() {
            return self.say(start_line(request_id, version));
        }
        let record = json!({ "requestId": request_id, "version": version.to_string() });
        self.event(Level::Info, "platform.start", &record);
    }

    /// Adds Lambda's INIT_REPORT line of an init that failed; `status` begins with `Status: `.
    pub(super) fn init_report(&self, duration: Duration, phase: Phase, status: &str) {
        let ms = duration.as_secs_f64() * 1000.0;
        let phase = phase.as_str();
        if self.json.is_some() {
            let mut record = with_status(json!({ "phase": phase }), status);
            record["metrics"] = json!({ "durationMs": ms });
            return self.event(Level::Warn, "platform.initReport", &record);
        }
        self.say(format!("INIT_REPORT Init Duration: {ms:.2} ms\tPhase: {phase}\t{status}"));
    }

    /// Adds Lambda's END and REPORT lines and returns the last 4 KB of the invocation's log.
    pub(super) fn end(&self, request_id: &str, report: &Report, status: &str) -> Bytes {
        if self.json.is_some() {
            self.end_events(request_id, report, status);
        } else {
            for line in end_lines(request_id, report, status) {
                self.say(line);
            }
        }
        self.take()
    }

    fn end_events(&self, request_id: &str, report: &Report, status: &str) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let (done, over) = match status {
            "" => (Level::Debug, Level::Info),
            _ => (Level::Warn, Level::Warn),
        };
        let mut record = with_status(json!({ "requestId": request_id }), status);
        record["metrics"] = json!({ "durationMs": ms(report.duration) });
        self.event(done, "platform.runtimeDone", &record);
        let metrics = &mut record["metrics"];
        metrics["billedDurationMs"] = json!(u64::try_from(report.billed().as_millis()).ok());
        metrics["memorySizeMB"] = report.memory_mb.into();
        if let Some(used_mb) = report.memory_used_mb() {
            metrics["maxMemoryUsedMB"] = used_mb.into();
        }
        if let Some(init) = report.init_duration {
            metrics["initDurationMs"] = ms(init).into();
        }
        if let Some(restore) = report.restore_duration {
            metrics["restoreDurationMs"] = ms(restore).into();
        }
        self.event(over, "platform.report", &record);
    }

    /// Returns the last 4 KB since this was called before.
    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut self.lines().tail).text()
    }

    /// Waits until there are lines for the host's log: for long enough that many go together,
    /// unless there are many.
    pub(super) async fn wait(&self) {
        self.begun.notified().await;
        tokio::select! {
            () = tokio::time::sleep(SENDING_INTERVAL) => {}
            () = self.much.notified() => {}
        }
    }

    /// Takes the lines for the host's log.
    pub(super) fn unsent(&self) -> Vec<LogEvent> {
        let mut lines = self.lines();
        lines.unsent_bytes = 0;
        let mut unsent = std::mem::take(&mut lines.unsent);
        let lost = std::mem::take(&mut lines.lost);
        if let (1.., Some(last)) = (lost, unsent.last()) {
            let text =
                format!("[{lost} lines were lost: more than {UNSENT_BYTES_MAX} bytes at once]");
            unsent.push(LogEvent::new(last.at_ms, text));
        }
        unsent
    }

    fn keep(&self, lines: &mut Lines, mut event: LogEvent) {
        event.at_ms = event.at_ms.max(lines.last_ms);
        lines.last_ms = event.at_ms;
        let bytes = event.message.len() + LINE_BYTES;
        if lines.unsent_bytes + bytes > UNSENT_BYTES_MAX {
            lines.lost += 1;
            return;
        }
        lines.unsent_bytes += bytes;
        if lines.unsent.is_empty() {
            self.begun.notify_one();
        }
        if lines.unsent_bytes > UNSENT_BYTES_MAX / 4 {
            self.much.notify_one();
        }
        lines.unsent.push(event);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for SandboxLog {
    fn line(&self, line: LogLine) {
        let mut lines = self.lines();
        lines.tail.line(&line.text);
        // As on Lambda, empty lines are no events of the log.
        if line.text.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&line.text).into_owned();
        self.keep(&mut lines, LogEvent::new(ms(line.at), text));
    }
}

/// The levels of the platform's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Warn,
}

impl Level {
    /// Returns the least level that a function's settings name; INFO by default.
    fn of(name: Option<&str>) -> Self {
        match name {
            Some("DEBUG") => Self::Debug,
            Some("WARN") => Self::Warn,
            _ => Self::Info,
        }
    }
}

/// Adds the fields of a status such as `Status: error\tError Type: Runtime.ExitError`; success if
/// it is empty.
fn with_status(mut record: Value, status: &str) -> Value {
    let (status, kind) = status.split_once("\tError Type: ").unwrap_or((status, ""));
    let status = status.trim_start_matches("Status: ");
    record["status"] = if status.is_empty() { "success" } else { status }.into();
    if !kind.is_empty() {
        record["errorType"] = kind.into();
    }
    record
}

/// Returns Lambda's START line.
pub(crate) fn start_line(request_id: &str, version: Version) -> String {
    format!("START RequestId: {request_id} Version: {version}")
}

/// Returns Lambda's END and REPORT lines.
pub(crate) fn end_lines(request_id: &str, report: &Report, status: &str) -> [String; 2] {
    [
        format!("END RequestId: {request_id}"),
        format!("REPORT RequestId: {request_id}\t{report}{status}"),
    ]
}

/// Returns the time in milliseconds since 1970-01-01.
pub(crate) fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Most bytes of one sandbox's lines on their way to the host's log.
const UNSENT_BYTES_MAX: usize = 256 << 10;
/// What a line takes beside its text.
const LINE_BYTES: usize = 32;
/// How long lines wait for others to go with.
const SENDING_INTERVAL: Duration = Duration::from_millis(200);
const LOG_TAIL_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: Report = Report {
        duration: Duration::from_micros(1_204),
        init_duration: Some(Duration::from_micros(80_500)),
        restore_duration: None,
        billed_restore_duration: None,
        memory_mb: 128,
        memory_peak_bytes: Some((40 << 20) + 1),
    };

    fn output(text: &[u8]) -> LogLine {
        let text = Bytes::copy_from_slice(text);
        LogLine { at: SystemTime::now(), stream: lambda_sandbox::Stream::Stdout, text, open: false }
    }

    #[test]
    fn log_keeps_its_end_in_bounded_memory() {
        let mut tail = LogTail::default();
        for _ in 0..10_000 {
            tail.line(b"0123456789");
            assert!(tail.text.capacity() <= 8 * LOG_TAIL_BYTES);
        }
        let log = SandboxLog::new("stream".to_owned(), &Logging::default());
        log.start("id", Version::Latest);
        log.line(output(&[b'x'; 100_000]));
        log.line(output(b"last"));
        let text = log.end("id", &REPORT, "");
        assert_eq!(text.len(), LOG_TAIL_BYTES);
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.contains("x\nlast\nEND RequestId: id\nREPORT RequestId: id\tDuration"),
            "{text}"
        );
    }

    #[test]
    fn the_platforms_lines_are_json_where_the_function_asks_for_it() {
        let lines = |system_level: Option<&str>, status: &str| {
            let system_level = system_level.map(str::to_owned);
            let logging = Logging { json: true, system_level, ..Logging::default() };
            let log = SandboxLog::new("stream".to_owned(), &logging);
            log.start("id", Version::Latest);
            let text = log.end("id", &REPORT, status);
            let text = String::from_utf8(text.to_vec()).unwrap();
            text.lines().map(|it| serde_json::from_str(it).unwrap()).collect::<Vec<Value>>()
        };
        let kinds = |lines: &[Value]| -> Vec<String> {
            lines.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect()
        };
        let usual = lines(None, "");
        assert_eq!(kinds(&usual), ["platform.start", "platform.report"]);
        assert_eq!(usual[0]["record"], json!({ "requestId": "id", "version": "$LATEST" }));
        let metrics = &usual[1]["record"]["metrics"];
        assert_eq!(
            (&metrics["billedDurationMs"], &metrics["maxMemoryUsedMB"]),
            (&82.into(), &41.into())
        );
        assert_eq!(kinds(&lines(Some("DEBUG"), "")).len(), 3);
        assert!(lines(Some("WARN"), "").is_empty());
        let failed = lines(Some("WARN"), "Status: timeout\tError Type: Sandbox.Timedout");
        assert_eq!(kinds(&failed), ["platform.runtimeDone", "platform.report"]);
        assert_eq!(failed[1]["record"]["status"], "timeout");
        assert_eq!(failed[1]["record"]["errorType"], "Sandbox.Timedout");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_go_to_the_hosts_log_together_and_within_a_bound() {
        let log = SandboxLog::new("stream".to_owned(), &Logging::default());
        log.line(output(b"\xff one"));
        log.line(output(b""));
        log.wait().await;
        let sent: Vec<String> = log.unsent().into_iter().map(|it| it.message).collect();
        assert_eq!(sent, ["\u{fffd} one"]);
        assert_eq!(log.take(), Bytes::from_static(b"\xff one\n\n"));
        for _ in 0..1000 {
            log.line(output(&[b'y'; 1000]));
        }
        log.wait().await;
        let sent = log.unsent();
        assert!(sent.iter().map(|it| it.message.len()).sum::<usize>() <= UNSENT_BYTES_MAX + 100);
        let lost = 1000 - (sent.len() - 1);
        assert!(sent.last().unwrap().message.starts_with(&format!("[{lost} lines were lost")));
        assert!(log.unsent().is_empty());
    }
}
