//! The letters in which a client writes the names of headers, which hyper does not keep.
//!
//! REST APIs show functions the client's spelling. A connection's bytes are recorded while a head
//! is read; the spelling is taken from them. It decides nothing else: names that hyper did not
//! parse are never taken from here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of the head that is being read.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads(Arc<Mutex<Head>>);

#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    /// Whether a request is being answered, so that what arrives is a body.
    answering: bool,
}

impl Heads {
    /// Returns the headers of a request that was parsed just now, with the client's spelling where
    /// it is known. What arrives until [`Heads::answered`] is not recorded.
    pub(super) fn take(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let mut head = self.head();
        head.answering = true;
        let bytes = std::mem::take(&mut head.bytes);
        drop(head);
        let mut spelled: Vec<Option<&str>> = names(&bytes).take(NAMES_MAX).map(Some).collect();
        // hyper gives names in the client's order, but for those that repeat.
        let mut first = 0;
        let mut found = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            while spelled.get(first).is_some_and(Option::is_none) {
                first += 1;
            }
            let same = |it: &&mut Option<&str>| {
                it.is_some_and(|it| name.as_str().eq_ignore_ascii_case(it))
            };
            let own = spelled[first..].iter_mut().find(same).and_then(Option::take);
            let value = match value.to_str() {
                Ok(text) => text.to_owned(),
                // Bytes beyond ASCII have had no agreed meaning since HTTP/1.1: one character each.
                Err(_) => value.as_bytes().iter().map(|it| char::from(*it)).collect(),
            };
            found.push((own.unwrap_or(name.as_str()).to_owned(), value));
        }
        found
    }

    /// Tells whether a request has a length and a transfer coding, of which hyper keeps the latter
    /// alone. A proxy before this server may have gone by the length (request smuggling).
    pub(super) fn has_two_lengths(&self, headers: &HeaderMap) -> bool {
        headers.contains_key("transfer-encoding")
            && names(&self.head().bytes).any(|it| it.eq_ignore_ascii_case("content-length"))
    }

    /// Records again.
    pub(super) fn answered(&self) {
        *self.head() = Head::default();
    }

    fn record(&self, bytes: &[u8]) {
        let mut head = self.head();
        if !head.answering && head.bytes.len() < HEAD_BYTES_MAX {
            head.bytes.extend_from_slice(bytes);
        }
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the names of a head's lines, as they were sent.
fn names(head: &[u8]) -> impl Iterator<Item = &str> {
    let end = head.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or(head.len());
    head[..end].split(|it| *it == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|it| *it == b':')?;
        std::str::from_utf8(&line[..colon]).ok()
    })
}

/// A stream whose heads are recorded.
#[derive(Debug)]
pub(super) struct Recorded<S> {
    stream: S,
    heads: Heads,
}

impl<S> Recorded<S> {
    pub(super) fn new(stream: S, heads: Heads) -> Self {
        Self { stream, heads }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heads.record(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The most bytes of a head that are recorded. hyper refuses longer heads.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most lines of a head that are looked at for spellings. hyper refuses more than 100 headers.
const NAMES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_clients_letters() {
        let heads = Heads::default();
        heads.record(b"GET / HTTP/1.1\r\nhOSt: a\r\nX-One: 1\r\n");
        heads.record(b"x-oNE: 2\r\n\r\nX-Body: no");
        let mut map = HeaderMap::new();
        for (name, value) in [("host", "a"), ("x-one", "1"), ("x-one", "2"), ("x-body", "b")] {
            map.append(name, value.parse().unwrap());
        }
        let names =
            |found: Vec<(String, String)>| found.into_iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(names(heads.take(&map)), ["hOSt", "X-One", "x-oNE", "x-body"]);
        heads.record(b"GET / HTTP/1.1\r\nHOST: a\r\n\r\n");
        assert_eq!(names(heads.take(&map))[0], "host", "of a body, which is not recorded");
        heads.answered();
        heads.record(b"GET / HTTP/1.1\r\nHOST: a\r\n\r\n");
        assert_eq!(names(heads.take(&map))[0], "HOST");
    }
}
