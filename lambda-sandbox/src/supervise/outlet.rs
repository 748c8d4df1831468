//! An output of a program as the host reads it: in the background when something is there, and at once up to what is there now.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use crate::BoxFuture;

/// An output of a program.
pub trait Outlet: Send + Sync + fmt::Debug + 'static {
    /// Waits until there may be something to read, or the end has come.
    ///
    /// # Errors
    ///
    /// When that can never be: the output counts as ended.
    fn readable(&self) -> BoxFuture<'_, io::Result<()>>;
    /// Reads what is there, without waiting; 0 bytes are the end. May be called while another waits.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] where nothing is there; any other is the end.
    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize>;
    /// Tells that nobody will wait for a while: what is written meanwhile need not wake the host.
    fn rest(&self) {}
    /// Drops what is there without reading it, where that is cheaper; returns whether anything was dropped.
    fn try_drop(&self) -> bool {
        false
    }
}

/// An outlet that is any byte stream. Reads are not larger than [`AHEAD_BYTES`] where the host had to wait for them.
pub struct Stream<R> {
    state: Mutex<State<R>>,
}

/// Bytes that are read to learn whether there is something to read.
pub const AHEAD_BYTES: usize = 8 * 1024;

struct State<R> {
    reader: R,
    /// Read, and not yet taken.
    ahead: Vec<u8>,
    ended: bool,
    /// Whoever waits: a read by another must not take the stream's word from it.
    waiting: Option<Waker>,
}

impl<R> fmt::Debug for Stream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Stream<R> {
    /// Makes an outlet of a stream.
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
                // Whoever waits has to look again, as the stream no longer keeps its waker.
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
        // Reading nothing must not take the word from who waits.
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
