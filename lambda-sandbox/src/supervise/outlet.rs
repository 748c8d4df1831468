//! The host's side of a program's output. A background task reads it when bytes arrive, and any
//! task can read at once what is there.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use crate::BoxFuture;

/// The host's side of a program's output.
pub trait Outlet: Send + Sync + fmt::Debug + 'static {
    /// Waits until there may be bytes to read, or the output has ended.
    ///
    /// # Errors
    ///
    /// If it can never become readable. The output counts as ended then.
    fn readable(&self) -> BoxFuture<'_, io::Result<()>>;
    /// Reads available bytes without waiting. Returns 0 at the end. It may be called while another
    /// task waits in [`Outlet::readable`].
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if no bytes are available. Any other error is the end.
    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize>;
    /// Says that no task will wait for a while, so that writes need not wake the host.
    fn rest(&self) {}
    /// Drops available bytes without reading them, if that is cheaper. Returns whether bytes were
    /// dropped.
    fn try_drop(&self) -> bool {
        false
    }
}

/// An [`Outlet`] over any byte stream. While the host waits, it reads at most [`AHEAD_BYTES`].
pub struct Stream<R> {
    state: Mutex<State<R>>,
}

/// The most bytes that are read ahead to detect that a stream is readable.
pub const AHEAD_BYTES: usize = 8 * 1024;

struct State<R> {
    reader: R,
    /// Bytes that were read ahead and not yet returned.
    ahead: Vec<u8>,
    ended: bool,
    /// The waker of the waiting task. A read by another task must not replace it in the stream.
    waiting: Option<Waker>,
}

impl<R> fmt::Debug for Stream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Stream<R> {
    /// Creates an outlet over a stream.
    pub fn new(reader: R) -> Self {
        let state = State { reader, ahead: Vec::new(), ended: false, waiting: None };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: AsyncRead + Unpin> State<R> {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut self.reader).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Outlet for Stream<R> {
    fn readable(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.state();
            if state.ended || !state.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = vec![0; AHEAD_BYTES];
            match state.poll_read(context, &mut bytes) {
                Poll::Ready(Ok(0) | Err(_)) => state.ended = true,
                Poll::Ready(Ok(read)) => {
                    bytes.truncate(read);
                    state.ahead = bytes;
                }
                Poll::Pending => {
                    state.waiting = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
            state.waiting = None;
            Poll::Ready(Ok(()))
        }))
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if !state.ahead.is_empty() {
            let taken = state.ahead.len().min(bytes.len());
            bytes[..taken].copy_from_slice(&state.ahead[..taken]);
            state.ahead.drain(..taken);
            return Ok(taken);
        }
        if state.ended {
            return Ok(0);
        }
        let waker = state.waiting.clone().unwrap_or_else(|| Waker::noop().clone());
        match state.poll_read(&mut Context::from_waker(&waker), bytes) {
            Poll::Ready(read) => {
                state.ended = !matches!(read, Ok(1..));
                // The stream has dropped its waker, so the waiting task must poll again.
                if let Some(waiting) = state.waiting.take() {
                    waiting.wake();
                }
                read
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_stream_is_read_by_one_who_waits_and_by_another_at_once() {
        let (mut inside, outside) = tokio::io::duplex(1 << 16);
        let outlet = Arc::new(Stream::new(outside));
        let mut bytes = [0; 4];
        let nothing = outlet.try_read(&mut bytes).expect_err("nothing there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);

        let waits = tokio::spawn({
            let outlet = Arc::clone(&outlet);
            async move { outlet.readable().await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        // A read without result must not take the waker of the waiting task.
        assert!(outlet.try_read(&mut bytes).is_err());
        inside.write_all(b"123456").await.expect("written");
        tokio::time::timeout(Duration::from_secs(5), waits)
            .await
            .expect("woken")
            .expect("joined")
            .expect("readable");
        assert_eq!(outlet.try_read(&mut bytes).expect("read"), 4);
        assert_eq!(&bytes, b"1234");
        assert_eq!(outlet.try_read(&mut bytes).expect("read"), 2);
        drop(inside);
        outlet.readable().await.expect("ended");
        assert_eq!(outlet.try_read(&mut bytes).expect("ended"), 0);
        assert_eq!(outlet.try_read(&mut bytes).expect("ended still"), 0);
    }
}
