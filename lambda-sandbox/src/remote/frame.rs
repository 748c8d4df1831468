//! Frames: the length of a header and of a body, the header, the body. A message is a header with
//! a body of any length: the body's first parts go ahead in frames without a header.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Fault;

/// The most bytes of a header.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of the body of one frame.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Writes a message. The caller flushes.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &[u8],
    body: &Bytes,
) -> io::Result<()> {
    let last = body.len().saturating_sub(1) / BODY_BYTES_MAX * BODY_BYTES_MAX;
    for part in body[..last].chunks(BODY_BYTES_MAX) {
        write_frame(stream, &[], part).await?;
    }
    write_frame(stream, header, &body[last..]).await
}

async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &[u8],
    body: &[u8],
) -> io::Result<()> {
    let length = |part: &[u8]| u32::try_from(part.len()).map_err(io::Error::other);
    stream.write_u32_le(length(header)?).await?;
    stream.write_u32_le(length(body)?).await?;
    stream.write_all(header).await?;
    stream.write_all(body).await
}

/// Reads the next message, or returns `None` if the stream ends before it. Its body has at most
/// `body_bytes_max()` bytes, which is asked for each frame. Memory grows only with the bytes that
/// have arrived.
///
/// Dropping the future loses bytes: the stream cannot be read further.
///
/// # Errors
///
/// [`Fault::TooLong`], [`Fault::Closed`] within a message, [`Fault::Stream`].
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    body_bytes_max: impl Fn() -> usize,
) -> Result<Option<(Vec<u8>, Bytes)>, Fault> {
    let mut body = BytesMut::new();
    loop {
        let header_bytes = match stream.read_u32_le().await {
            Ok(bytes) => bytes as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && body.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(Fault::of(error)),
        };
        let body_bytes = stream.read_u32_le().await.map_err(Fault::of)? as usize;
        if header_bytes > HEADER_BYTES_MAX {
            return Err(Fault::TooLong {
                what: "a header",
                bytes: header_bytes,
                max: HEADER_BYTES_MAX,
            });
        }
        let max = BODY_BYTES_MAX.min(body_bytes_max().saturating_sub(body.len()));
        if body_bytes > max {
            return Err(Fault::TooLong { what: "a body", bytes: body_bytes, max });
        }
        if header_bytes == 0 && body_bytes == 0 {
            return Err(Fault::Garbled("a frame is empty"));
        }
        let mut header = vec![0; header_bytes];
        stream.read_exact(&mut header).await.map_err(Fault::of)?;
        let mut left = (&mut *stream).take(body_bytes as u64);
        while left.limit() > 0 {
            if left.read_buf(&mut body).await.map_err(Fault::of)? == 0 {
                return Err(Fault::Closed);
            }
        }
        if header_bytes > 0 {
            return Ok(Some((header, body.freeze())));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    async fn check(bytes: &[u8], max: usize) -> Result<Option<(Vec<u8>, Bytes)>, Fault> {
        read(&mut &*bytes, || max).await
    }

    #[tokio::test]
    async fn a_long_body_is_sent_in_parts_and_put_together() {
        for length in [0, 1, BODY_BYTES_MAX, BODY_BYTES_MAX + 1, 3 * BODY_BYTES_MAX] {
            let body = Bytes::from(vec![7; length]);
            let mut out = Vec::new();
            write(&mut out, b"header", &body).await.expect("written");
            let frames = length.div_ceil(BODY_BYTES_MAX).max(1);
            assert_eq!(out.len(), length + 6 + 8 * frames);
            let (header, read) = check(&out, length).await.expect("read").expect("a message");
            assert!(header == b"header" && read == body, "{length}");
            if length > 0 {
                let refused = check(&out, length - 1).await.expect_err("too long");
                assert!(matches!(refused, Fault::TooLong { what: "a body", .. }), "{refused}");
            }
        }
    }

    #[tokio::test]
    async fn lengths_beyond_the_limits_are_refused_unread() {
        let frame = |header: u32, body: u32| [header.to_le_bytes(), body.to_le_bytes()].concat();
        let refused = check(&frame(u32::MAX, 0), 10).await.expect_err("a header");
        assert!(matches!(refused, Fault::TooLong { what: "a header", .. }), "{refused}");
        let refused = check(&frame(1, u32::MAX), usize::MAX).await.expect_err("a body");
        assert!(matches!(refused, Fault::TooLong { max: BODY_BYTES_MAX, .. }), "{refused}");
        let refused = check(&frame(0, 0).repeat(9), 10).await.expect_err("nothing");
        assert!(matches!(refused, Fault::Garbled(_)), "{refused}");
        assert!(matches!(check(&frame(5, 5), 10).await, Err(Fault::Closed)));
        assert!(matches!(check(b"abcde", 10).await, Err(Fault::Closed)));
        assert!(matches!(check(b"", 10).await, Ok(None)));
    }

    proptest! {
        #[test]
        fn messages_follow_each_other(
            messages in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 1..300), prop::collection::vec(any::<u8>(), 0..3000)),
                0..8,
            ),
        ) {
            runs(async {
                let mut out = Vec::new();
                for (header, body) in &messages {
                    write(&mut out, header, &Bytes::from(body.clone())).await.expect("written");
                }
                let mut stream = &*out;
                for (header, body) in &messages {
                    let read = read(&mut stream, || 3000).await.expect("read").expect("a message");
                    assert_eq!((&read.0, &read.1[..]), (header, &body[..]));
                }
                assert!(matches!(read(&mut stream, || 0).await, Ok(None)));
            });
        }

        #[test]
        fn any_bytes_are_messages_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            runs(async {
                let mut stream = &*bytes;
                while let Ok(Some((header, body))) = read(&mut stream, || 1000).await {
                    assert!(header.len() + body.len() <= bytes.len());
                }
            });
        }
    }
}
