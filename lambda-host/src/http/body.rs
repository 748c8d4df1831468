//! Request bodies: read as a whole, limited each and all together, and charged for by the bytes
//! that have arrived.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// The memory for bodies of requests that are not answered yet. Operations with small and with
/// large bodies have separate halves, so that uploads of code do not delay invocations.
#[derive(Debug)]
pub(super) struct Bodies {
    small: Semaphore,
    large: Semaphore,
}

/// A body, and the memory that is charged for it until it is dropped.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _charged: Vec<SemaphorePermit<'a>>,
}

/// Why a body was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is larger than its operation allows.
    TooLarge,
    /// It arrived more slowly than the minimum rate.
    TooSlow,
    /// There was no memory for more of it.
    NoRoom,
    /// The connection failed.
    Broken(hyper::Error),
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self { small: Semaphore::new(SHARE_UNITS), large: Semaphore::new(SHARE_UNITS) }
    }

    /// Reads a body of at most `bytes_max` bytes.
    pub(super) async fn read(
        &self,
        mut body: Incoming,
        bytes_max: usize,
    ) -> Result<Body<'_>, Refusal> {
        let share = if bytes_max > SMALL_BYTES { &self.large } else { &self.small };
        let (mut bytes, mut charged) = (BytesMut::new(), Vec::new());
        let start = Instant::now();
        loop {
            // A body slower than the minimum rate times out after the grace period.
            let behind = Duration::from_secs((bytes.len() / RATE_BYTES_PER_S) as u64);
            let frame = match next_frame(&mut body, start + GRACE + behind).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(Refusal::Broken(error)),
                Ok(None) => break,
                Err(_) => return Err(Refusal::TooSlow),
            };
            let Some(data) = frame.data_ref() else { continue };
            if data.len() > bytes_max - bytes.len() {
                return Err(Refusal::TooLarge);
            }
            let units = (bytes.len() + data.len()).div_ceil(UNIT_BYTES);
            while charged.len() < units {
                match tokio::time::timeout(ROOM_TIMEOUT, share.acquire()).await {
                    Ok(Ok(unit)) => charged.push(unit),
                    // Other bodies that hold memory may wait for more as well: one must give up.
                    _ => return Err(Refusal::NoRoom),
                }
            }
            bytes.extend_from_slice(data);
        }
        Ok(Body { bytes: bytes.freeze(), _charged: charged })
    }
}

/// Waits for the next frame until `deadline`.
///
/// A timer that is set may wake another thread, to wait for less long. Most bodies arrive together
/// with the head, and the server has them at its next turn: the first polls set no timer.
async fn next_frame(
    body: &mut Incoming,
    deadline: Instant,
) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Elapsed> {
    for _ in 0..POLLS {
        let frame = poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await;
        if let Poll::Ready(frame) = frame {
            return Ok(frame);
        }
        tokio::task::yield_now().await;
    }
    tokio::time::timeout_at(deadline, body.frame()).await
}

/// Reads and discards a body that is too large, up to a limit. Otherwise a client that is still
/// writing would see a reset connection instead of the answer.
pub(super) async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = frame.data_ref().map(Bytes::len).and_then(|it| left.checked_sub(it))
            else {
                return;
            };
            left = rest;
        }
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, reading).await.is_err() {
        tracing::debug!("a request body over the limit did not end");
    }
}

/// Polls of a body before a timer is set.
const POLLS: usize = 2;
/// An operation with a larger limit counts as one with large bodies, in bytes.
const SMALL_BYTES: usize = 8 << 20;
/// The unit in which memory is charged, in bytes.
const UNIT_BYTES: usize = 64 << 10;
/// 512 MiB for all small bodies, and as much for all large ones.
const SHARE_UNITS: usize = (512 << 20) / UNIT_BYTES;
/// How long a body may be slower than the minimum rate.
const GRACE: Duration = Duration::from_secs(20);
/// The minimum rate after that, in bytes per second: 512 kbit/s.
const RATE_BYTES_PER_S: usize = 64 << 10;
/// How long a body waits for memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_BYTES_MAX: usize = 256 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
