//! What the caller of a streamed invocation gets.

use bytes::Bytes;

use crate::function::version::Version;
use crate::worker::protocol::InvocationId;

/// A part of an answer for its caller. [`StreamItem::Begin`] comes first.
#[derive(Debug)]
pub(crate) enum StreamItem {
    Begin {
        invocation: InvocationId,
        request_id: String,
        version: Version,
        content_type: Option<String>,
    },
    Data(Bytes),
}

/// The room of a caller's channel: what a worker may send at once, and some more at the end.
pub(crate) const ROOM: usize = crate::worker::protocol::STREAM_WINDOW as usize + 8;
