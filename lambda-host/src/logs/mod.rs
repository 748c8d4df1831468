//! The functions' logs: groups of streams of lines, kept in files within bounds.
//!
//! A group is a function's, a stream is a sandbox's, as in Amazon CloudWatch Logs.

mod bounds;
mod event;
mod segment;
mod store;
mod writer;

pub use self::bounds::LogBounds;
pub use self::event::LogEvent;
pub use self::store::{LogGroup, LogStore, LogStream};
pub(crate) use self::writer::LogWriter;
