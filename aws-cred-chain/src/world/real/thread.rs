//! Runs blocking work on its own thread. The work ends soon after the future that waits for it is
//! dropped.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::world::lock;

/// A flag for work on a thread, set when the future that waits for the work is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Returns whether the future that waited for the work was dropped.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Sets the flag when it is dropped.
struct Guard(Abandoned);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Runs `work` on a new thread and completes with its result. Work that may take long must check
/// its [`Abandoned`] flag, which is set when the future is dropped.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&Abandoned) -> T + Send + 'static,
) -> io::Result<T> {
    let shared = Arc::new(Mutex::new((None, None::<Waker>)));
    let theirs = shared.clone();
    let guard = Guard(Abandoned::default());
    let abandoned = guard.0.clone();
    std::thread::Builder::new().name("aws-cred-chain".to_owned()).spawn(move || {
        let result = work(&abandoned);
        let waker = {
            let mut shared = lock(&theirs);
            shared.0 = Some(result);
            shared.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    })?;
    let result = std::future::poll_fn(|cx| {
        let mut shared = lock(&shared);
        match shared.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                shared.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await;
    drop(guard);
    Ok(result)
}
