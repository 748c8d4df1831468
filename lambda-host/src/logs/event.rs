//! One line of a function's log, and its form in a file.

use serde::{Deserialize, Serialize};

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogEvent {
    /// When the line was written, in milliseconds since 1970-01-01.
    pub at_ms: u64,
    /// The line without its line feed. Bytes that are no UTF-8 are replaced.
    pub message: String,
}

impl LogEvent {
    /// Returns a line written at `at_ms`, in milliseconds since 1970-01-01.
    #[must_use]
    pub fn new(at_ms: u64, message: impl Into<String>) -> Self {
        Self { at_ms, message: message.into() }
    }

    /// Appends the line to a file's text: a JSON array of the time and the message, and a line
    /// feed.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        let start = text.len();
        match serde_json::to_writer(&mut *text, &(self.at_ms, &self.message)) {
            Ok(()) => text.push(b'\n'),
            // A number and a string always have a form in JSON.
            Err(_) => text.truncate(start),
        }
    }

    /// Reads a line of a file; `None` for one that a crash cut off.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let (at_ms, message) = serde_json::from_slice(line).ok()?;
        Some(Self { at_ms, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut text = Vec::new();
        for message in ["", "plain", "tab\tquote\" backslash\\ line\nfeed", "é 🦀 \u{0}"] {
            text.clear();
            let event = LogEvent::new(1_700_000_000_123, message);
            event.write(&mut text);
            let line = text.strip_suffix(b"\n").unwrap();
            assert!(!line.contains(&b'\n'), "one line a message");
            assert_eq!(LogEvent::read(line), Some(event));
            assert_eq!(LogEvent::read(&line[..line.len() - 1]), None, "cut off");
        }
    }
}
