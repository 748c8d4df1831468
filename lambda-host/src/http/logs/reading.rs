//! Pages of log lines.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::error::LogsError;
use super::pattern::Pattern;
use crate::logs::{LogEvent, LogStore};

/// Which lines are asked for.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) group: String,
    /// In milliseconds since 1970-01-01.
    pub(super) start_ms: u64,
    /// The first millisecond that is not asked for.
    pub(super) end_ms: u64,
    pub(super) events_max: usize,
}

impl Selection {
    fn has(&self, event: &LogEvent) -> bool {
        (self.start_ms..self.end_ms).contains(&event.at_ms)
    }
}

/// Where a page of a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Head,
    Tail,
    /// The lines behind a place.
    After(u64),
    /// The lines before a place.
    Before(u64),
}

impl From {
    /// Reads a token that [`stream_page`] gave.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let (direction, place) = token.split_once('/')?;
        let place = place.parse().ok()?;
        match direction {
            "f" => Some(Self::After(place)),
            "b" => Some(Self::Before(place)),
            _ => None,
        }
    }
}

/// Returns a page of a stream (`GetLogEvents`). Blocks.
pub(super) fn stream_page(
    store: &LogStore,
    selection: &Selection,
    stream: &str,
    from: From,
) -> Result<Value, LogsError> {
    let mut events = store.placed_events(&selection.group, stream)?;
    if events.is_empty() {
        let group = store.has_group(&selection.group)?;
        return Err(LogsError::not_found(if group { "stream" } else { "group" }));
    }
    events.retain(|(place, event)| {
        let wanted = match from {
            From::After(after) => *place > after,
            From::Before(before) => *place < before,
            From::Head | From::Tail => true,
        };
        wanted && selection.has(event)
    });
    let count = match from {
        From::Head | From::After(_) => fitting(events.iter().map(|(_, event)| event), selection),
        From::Tail | From::Before(_) => {
            let count = fitting(events.iter().rev().map(|(_, event)| event), selection);
            drop(events.drain(..events.len() - count));
            count
        }
    };
    events.truncate(count);
    // A page without lines has the token that it was asked with.
    let (first, last) = match (events.first(), events.last(), from) {
        (Some((first, _)), Some((last, _)), _) => (*first, *last),
        (_, _, From::After(place)) => (place.saturating_add(1), place),
        (_, _, From::Before(place)) => (place, place.saturating_sub(1)),
        _ => (0, 0),
    };
    let shown = events.iter().map(|(_, event)| shown(event)).collect::<Vec<_>>();
    Ok(json!({
        "events": shown,
        "nextForwardToken": format!("f/{last}"),
        "nextBackwardToken": format!("b/{first}"),
    }))
}

/// Returns a page of the lines of a group's streams that fit a pattern, ordered by time
/// (`FilterLogEvents`); `streams` says which. Blocks.
pub(super) fn group_page(
    store: &LogStore,
    selection: &Selection,
    streams: impl Fn(&str) -> bool,
    pattern: &Pattern,
    after: Option<&str>,
) -> Result<Value, LogsError> {
    if !store.has_group(&selection.group)? {
        return Err(LogsError::not_found("group"));
    }
    let mut found = Vec::new();
    for stream in store.streams(&selection.group)? {
        let may = stream.last_ms >= selection.start_ms && stream.first_ms < selection.end_ms;
        if !may || !streams(&stream.name) {
            continue;
        }
        for (place, event) in store.placed_events(&selection.group, &stream.name)? {
            if selection.has(&event) && pattern.fits(&event.message) {
                let id = event_id(event.at_ms, &stream.name, place);
                if after.is_none_or(|after| id.as_str() > after) {
                    found.push((id, stream.name.clone(), event));
                }
            }
        }
    }
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let count = fitting(found.iter().map(|(_, _, event)| event), selection);
    let more = count < found.len();
    found.truncate(count);
    let next = found.last().filter(|_| more).map(|(id, ..)| id.clone());
    let events = found.iter().map(|(id, stream, event)| {
        let mut shown = shown(event);
        shown["logStreamName"] = Value::from(stream.as_str());
        shown["eventId"] = Value::from(id.as_str());
        shown
    });
    let mut page = json!({ "events": events.collect::<Vec<_>>(), "searchedLogStreams": [] });
    if let Some(next) = next {
        page["nextToken"] = Value::from(next);
    }
    Ok(page)
}

/// Returns the streams of a group in the order that is asked for. Blocks.
pub(super) fn streams(
    store: &LogStore,
    group: &str,
    prefix: &str,
    by_time: bool,
    descending: bool,
) -> Result<Vec<crate::logs::LogStream>, LogsError> {
    if !store.has_group(group)? {
        return Err(LogsError::not_found("group"));
    }
    let mut streams = store.streams(group)?;
    streams.retain(|stream| stream.name.starts_with(prefix));
    match (by_time, descending) {
        (false, false) => {}
        (false, true) => streams.reverse(),
        (true, false) => streams.sort_by_key(|stream| stream.last_ms),
        (true, true) => streams.sort_by_key(|stream| Reverse(stream.last_ms)),
    }
    Ok(streams)
}

fn shown(event: &LogEvent) -> Value {
    // The lines of functions have their line feed in CloudWatch Logs.
    let (at, message) = (event.at_ms, format!("{}\n", event.message));
    json!({ "timestamp": at, "message": message, "ingestionTime": at })
}

/// Returns how many of the first lines a page holds: one at the least.
fn fitting<'a>(events: impl Iterator<Item = &'a LogEvent>, selection: &Selection) -> usize {
    let mut bytes = 0;
    let within = |event: &&LogEvent| {
        let first = bytes == 0;
        bytes += event.message.len() + 1 + EVENT_BYTES;
        first || bytes <= PAGE_BYTES_MAX
    };
    events.take(selection.events_max).take_while(within).count()
}

/// Returns the name of a line: 56 digits, ordered as lines are by time, stream and place.
fn event_id(at_ms: u64, stream: &str, place: u64) -> String {
    // FNV-1a: the same for the same stream, on every machine.
    let hash = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{at_ms:016}{hash:020}{place:020}")
}

/// AWS's limit of a page: 1 MB, with 26 bytes for each line beside its text.
const PAGE_BYTES_MAX: usize = 1 << 20;
const EVENT_BYTES: usize = 26;
