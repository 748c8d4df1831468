//! Reads the logs that a host has written, also while it writes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::event::LogEvent;
use super::segment::{self, Segment};
use crate::error::Error;

/// The logs in a folder. Every method blocks for reads of files.
#[derive(Clone, Debug)]
pub struct LogStore {
    root: PathBuf,
}

/// A group of streams, as there is one for each function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogGroup {
    /// Its name, `/aws/lambda/` and the function's unless the function's settings have another.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// When its oldest line was written, in milliseconds since 1970-01-01.
    pub first_ms: u64,
}

/// A stream of lines, as there is one for each sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStream {
    /// Its name.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// When its oldest line was written, in milliseconds since 1970-01-01.
    pub first_ms: u64,
    /// When its newest line was written, in milliseconds since 1970-01-01.
    pub last_ms: u64,
}

impl LogStore {
    /// Returns the logs in `root`: the folder `logs` of a host's data folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns all groups, ordered by name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn groups(&self) -> Result<Vec<LogGroup>, Error> {
        let names = segment::groups(&self.root).map_err(self.failed())?;
        let group = |name: String| {
            let streams = self.streams(&name)?;
            let first_ms = streams.iter().map(|it| it.first_ms).min();
            let bytes = streams.iter().map(|it| it.bytes).sum();
            Ok(first_ms.map(|first_ms| LogGroup { name, bytes, first_ms }))
        };
        names.into_iter().filter_map(|name| group(name).transpose()).collect()
    }

    /// Returns whether there is a group.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn has_group(&self, group: &str) -> Result<bool, Error> {
        segment::folder(&self.root, group).try_exists().map_err(self.failed())
    }

    /// Returns a group's streams, ordered by name; none where there is no such group.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn streams(&self, group: &str) -> Result<Vec<LogStream>, Error> {
        let mut streams: Vec<LogStream> = Vec::new();
        for (name, segments) in self.by_stream(group)? {
            // A file that is there has a line, but for one that is being made.
            let first = segments.iter().find_map(|it| first_event(&it.path));
            let last = segments.iter().rev().find_map(|it| last_event(&it.path));
            if let (Some(first), Some(last)) = (first, last) {
                let bytes = segments.iter().map(|it| it.bytes).sum();
                let (first_ms, last_ms) = (first.at_ms, last.at_ms);
                streams.push(LogStream { name, bytes, first_ms, last_ms });
            }
        }
        Ok(streams)
    }

    /// Returns the lines of a stream, oldest first; none where there is no such stream.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn events(&self, group: &str, stream: &str) -> Result<Vec<LogEvent>, Error> {
        Ok(self.placed_events(group, stream)?.into_iter().map(|(_, event)| event).collect())
    }

    /// Returns the lines of a stream, each with its place, which is greater than that of those
    /// before and stays the same when older lines go.
    pub(crate) fn placed_events(
        &self,
        group: &str,
        stream: &str,
    ) -> Result<Vec<(u64, LogEvent)>, Error> {
        let segments = self.by_stream(group)?.remove(stream).unwrap_or_default();
        let mut events = Vec::new();
        for segment in segments {
            let text = read(&segment.path).map_err(self.failed())?;
            let lines = text.split(|&byte| byte == b'\n').filter_map(LogEvent::read);
            let place = u64::from(segment.number) << 32;
            events.extend(lines.enumerate().map(|(at, event)| (place | at as u64, event)));
        }
        Ok(events)
    }

    /// Returns the last lines of a group since `since_ms`, at the most `count`, oldest first, each
    /// with its stream and its place there. Reads only the files that were written to last.
    #[cfg(feature = "http")]
    pub(crate) fn recent(
        &self,
        group: &str,
        since_ms: u64,
        count: usize,
    ) -> Result<Vec<(String, u64, LogEvent)>, Error> {
        let mut segments = segment::segments(&self.root, group).map_err(self.failed())?;
        segments.retain(|it| it.changed_ms >= since_ms);
        segments.sort_by_key(|it| std::cmp::Reverse(it.changed_ms));
        let mut found = Vec::new();
        for segment in segments.iter().take(RECENT_FILES_MAX) {
            let text = read(&segment.path).map_err(self.failed())?;
            let lines = text.split(|&byte| byte == b'\n').filter_map(LogEvent::read);
            let place = u64::from(segment.number) << 32;
            let placed = lines.enumerate().filter(|(_, event)| event.at_ms >= since_ms);
            found.extend(placed.map(|(at, it)| (segment.stream.clone(), place | at as u64, it)));
        }
        found.sort_by(|a, b| (a.2.at_ms, &a.0, a.1).cmp(&(b.2.at_ms, &b.0, b.1)));
        drop(found.drain(..found.len().saturating_sub(count)));
        Ok(found)
    }

    fn by_stream(&self, group: &str) -> Result<BTreeMap<String, Vec<Segment>>, Error> {
        let mut streams = BTreeMap::new();
        for segment in segment::segments(&self.root, group).map_err(self.failed())? {
            streams.entry(segment.stream.clone()).or_insert_with(Vec::new).push(segment);
        }
        Ok(streams)
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<'_> {
        Error::io("read logs in", &self.root)
    }
}

/// Reads a file; one that was removed meanwhile is empty.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

/// Files of a group that are read for its last lines: of as many sandboxes as write at once.
#[cfg(feature = "http")]
const RECENT_FILES_MAX: usize = 32;

fn first_event(path: &Path) -> Option<LogEvent> {
    read(path).ok()?.split(|&byte| byte == b'\n').find_map(LogEvent::read)
}

fn last_event(path: &Path) -> Option<LogEvent> {
    read(path).ok()?.rsplit(|&byte| byte == b'\n').find_map(LogEvent::read)
}
