//! The Telemetry API (2022-07-01) and the Logs API (2020-08-15): what happens in a sandbox and what
//! its programs print, for the extensions that subscribe.
//!
//! Sources: AWS, "Lambda Telemetry API reference", "Event schema reference", "Lambda Logs API".

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::channel::Dial;
use super::subscription::{Api, Destination, Source, Subscription};
use crate::log::{LogLine, LogSink, Stream};

/// Passes the events of one sandbox to its subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    dial: Option<Arc<dyn Dial>>,
    state: Mutex<State>,
    /// Whether events are of use: there is a subscription, or there may be one.
    wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The events before the first subscription, for those that come during the init.
    early: Vec<Event>,
    early_bytes: usize,
    /// Whether an event found no room any more.
    early_full: bool,
    subscribers: Vec<Arc<Subscriber>>,
}

impl State {
    /// Returns whether lines go anywhere. An event costs more than the line that it is made of.
    fn takes_lines(&self) -> bool {
        !self.subscribers.is_empty() || !self.early_full
    }

    fn keep_early(&mut self, event: Event) {
        let bytes = event.text.len() + EVENT_BYTES;
        if self.early_bytes + bytes > EARLY_BYTES_MAX {
            self.early_full = true;
            return;
        }
        self.early_bytes += bytes;
        self.early.push(event);
    }
}

/// An event as it is sent.
#[derive(Debug, Clone)]
struct Event {
    source: Source,
    kind: &'static str,
    text: Arc<str>,
}

#[derive(Debug)]
struct Subscriber {
    subscription: Subscription,
    events: mpsc::UnboundedSender<Event>,
    /// Bytes that wait. They are limited, because an extension may never read.
    queued_bytes: AtomicUsize,
    dropped_records: AtomicU64,
    dropped_bytes: AtomicU64,
    /// Told to send at once.
    flush: Notify,
}

impl Telemetry {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial: Some(dial), state: Mutex::default(), wanted: AtomicBool::new(true) }
    }

    /// Ends all subscriptions and begins another init.
    pub(crate) fn begin(&self) {
        *self.state() = State::default();
        self.wanted.store(self.dial.is_some(), Ordering::Release);
    }

    /// Says that no subscription can come any more.
    pub(crate) fn init_over(&self) {
        let mut state = self.state();
        state.early = Vec::new();
        self.wanted.store(!state.subscribers.is_empty(), Ordering::Release);
    }

    /// Sends an event of the platform. `record` is called only if someone wants it.
    pub(crate) fn platform(&self, kind: &'static str, record: impl FnOnce() -> Value) {
        if self.wanted.load(Ordering::Acquire) {
            self.send(Source::Platform, kind, SystemTime::now(), &record());
        }
    }

    fn line(&self, source: Source, line: &LogLine) {
        if self.wanted.load(Ordering::Acquire) && self.state().takes_lines() {
            let text = String::from_utf8_lossy(&line.text);
            // Of a function with the log format JSON, each line is an object.
            let object = text.starts_with('{').then(|| serde_json::from_str::<Value>(&text).ok());
            let record = object.flatten().unwrap_or_else(|| Value::from(format!("{text}\n")));
            self.send(source, source.name(), line.at, &record);
        }
    }

    fn send(&self, source: Source, kind: &'static str, at: SystemTime, record: &Value) {
        let text = json!({ "time": iso(at), "type": kind, "record": record }).to_string();
        let event = Event { source, kind, text: text.into() };
        let mut state = self.state();
        for subscriber in &state.subscribers {
            subscriber.take(&event);
        }
        state.keep_early(event);
    }

    /// Adds a subscription of the extension `name`, or replaces the one it has. Returns whether the
    /// backend can deliver.
    pub(super) fn subscribe(&self, name: &str, subscription: Subscription) -> bool {
        let Some(dial) = self.dial.clone() else { return false };
        let (events, received) = mpsc::unbounded_channel();
        let kind = match subscription.api {
            Api::Telemetry => "platform.telemetrySubscription",
            Api::Logs => "platform.logsSubscription",
        };
        let types = subscription.type_names();
        let subscriber = Arc::new(Subscriber {
            subscription: Subscription { extension: name.to_owned(), ..subscription },
            events,
            queued_bytes: AtomicUsize::new(0),
            dropped_records: AtomicU64::new(0),
            dropped_bytes: AtomicU64::new(0),
            flush: Notify::new(),
        });
        {
            let mut state = self.state();
            state.early.iter().for_each(|event| subscriber.take(event));
            state.subscribers.retain(|it| it.subscription.extension != name);
            state.subscribers.push(Arc::clone(&subscriber));
        }
        // The task ends when the subscription is replaced or the sandbox ends.
        tokio::spawn(deliver(Arc::downgrade(&subscriber), received, dial));
        let record = || json!({ "name": name, "state": "Subscribed", "types": types });
        self.platform(kind, record);
        true
    }

    /// Sends what waits at once.
    pub(crate) fn flush(&self) {
        self.state().subscribers.iter().for_each(|it| it.flush.notify_one());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    fn take(&self, event: &Event) {
        let Subscription { api, types, max_bytes, .. } = &self.subscription;
        if !types[event.source as usize] || !api.has(event.kind) {
            return;
        }
        let bytes = event.text.len() + 1;
        let room = 2 * max_bytes;
        if self.queued_bytes.load(Ordering::Relaxed) + bytes > room {
            self.dropped_records.fetch_add(1, Ordering::Relaxed);
            self.dropped_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            return;
        }
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // The task is gone only with its subscriber.
        drop(self.events.send(event.clone()));
    }

    /// Returns the event that tells of dropped ones, if there are any.
    fn dropped(&self) -> Option<String> {
        let records = self.dropped_records.swap(0, Ordering::Relaxed);
        let bytes = self.dropped_bytes.swap(0, Ordering::Relaxed);
        let record = json!({
            "reason": "Consumer seems to have fallen behind as it has not acknowledged receipt of logs.",
            "droppedRecords": records,
            "droppedBytes": bytes,
        });
        let time = iso(SystemTime::now());
        let event = json!({ "time": time, "type": "platform.logsDropped", "record": record });
        (records > 0).then(|| event.to_string())
    }
}

/// Sends events in groups, of so many, of so many bytes or after so long.
async fn deliver(
    subscriber: std::sync::Weak<Subscriber>,
    mut events: mpsc::UnboundedReceiver<Event>,
    dial: Arc<dyn Dial>,
) {
    while let Some(first) = events.recv().await {
        let Some(subscriber) = subscriber.upgrade() else { return };
        let Subscription { max_items, max_bytes, timeout, .. } = subscriber.subscription;
        let deadline = Instant::now() + timeout;
        let (mut group, mut bytes) = (vec![first.text], 0);
        while group.len() < max_items && bytes < max_bytes {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => {
                        bytes += event.text.len() + 1;
                        group.push(event.text);
                    }
                    None => break,
                },
                () = tokio::time::sleep_until(deadline) => break,
                () = subscriber.flush.notified() => break,
            }
        }
        let taken: usize = group.iter().map(|text| text.len() + 1).sum();
        group.extend(subscriber.dropped().map(Into::into));
        for _ in 0..TRIES {
            match send(&subscriber.subscription.destination, &group, &*dial).await {
                Ok(()) => break,
                // The extension does not listen yet, or any longer.
                Err(_) => tokio::time::sleep(RETRY_TIME).await,
            }
        }
        subscriber.queued_bytes.fetch_sub(taken, Ordering::Relaxed);
    }
}

/// Sends a group of events, and waits for the answer over HTTP. A frozen extension answers when it
/// is thawed.
async fn send(destination: &Destination, group: &[Arc<str>], dial: &dyn Dial) -> io::Result<()> {
    match destination {
        Destination::Tcp { port } => {
            let mut channel = dial.dial(*port).await?;
            let text: String = group.iter().flat_map(|event| [&**event, "\n"]).collect();
            channel.write_all(text.as_bytes()).await?;
            channel.shutdown().await
        }
        Destination::Http { port, host, path, method } => {
            let mut channel = dial.dial(*port).await?;
            let body = format!("[{}]", group.join(","));
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            channel.write_all(head.as_bytes()).await?;
            channel.write_all(body.as_bytes()).await?;
            channel.flush().await?;
            // `HTTP/1.0 200` or `HTTP/1.1 200`. The rest is not read: it may be endless.
            let mut status = [0; 12];
            channel.read_exact(&mut status).await?;
            let good = status.starts_with(b"HTTP/1.") && status[9] == b'2';
            if good { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        }
    }
}

/// Passes a program's output to its log and to the subscriptions.
#[derive(Debug)]
pub(crate) struct Tee {
    pub(crate) log: Arc<dyn LogSink>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) source: Source,
}

impl LogSink for Tee {
    fn line(&self, line: LogLine) {
        self.telemetry.line(self.source, &line);
        self.log.line(line);
    }

    fn wants_lines(&self) -> bool {
        self.log.wants_lines() || self.telemetry.wanted.load(Ordering::Acquire)
    }

    fn takes_bytes(&self) -> bool {
        self.log.takes_bytes()
    }

    fn bytes(&self, stream: Stream, bytes: &[u8]) {
        self.log.bytes(stream, bytes);
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn lost(&self, bytes: u64) {
        self.log.lost(bytes);
    }
}

/// Returns a time as `2022-10-12T00:00:15.064Z`.
fn iso(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, ms) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Returns the date of a day since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The most bytes of events that are kept for subscriptions that come during the init.
const EARLY_BYTES_MAX: usize = 64 * 1024;
/// The memory that a kept event takes beside its text.
const EVENT_BYTES: usize = 64;
/// Attempts to send a group.
const TRIES: usize = 5;
const RETRY_TIME: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_lambda() {
        let at = |ms| iso(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(1_665_532_815_064), "2022-10-12T00:00:15.064Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
