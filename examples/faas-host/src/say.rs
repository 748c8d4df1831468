//! Prints for a person. That nobody reads any more is no reason for a host to end.

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

/// Prints the beginning of a line, for a step that takes a moment.
pub(crate) fn part(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is the only error to expect here.
    drop(out.write_fmt(text).and_then(|()| out.flush()));
}
