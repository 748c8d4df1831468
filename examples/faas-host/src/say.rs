//! Prints to standard output without failing: a closed pipe does not end the host.

use std::fmt;
use std::io::Write as _;

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(format_args!($($text)*)) };
}
pub(crate) use say;

pub(crate) fn line(text: fmt::Arguments<'_>) {
    part(format_args!("{text}\n"));
}

/// Prints a part of a line, before a step that takes some time, and flushes it.
pub(crate) fn part(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // Errors are ignored: the one to expect is a closed pipe.
    drop(out.write_fmt(text).and_then(|()| out.flush()));
}
