//! Completes a future on the calling thread, for programs without a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Completes `future` on the calling thread. The futures of this crate need no runtime. Must not be
/// called from an asynchronous task, whose thread it would block.
///
/// ```
/// use aws_cred_chain::{Chain, Context, Credentials, Options, block_on};
///
/// let options = Options::default().with_credentials(Credentials::new("AKID", "secret"));
/// let chain = Chain::new(Context::real(), options);
/// let resolved = block_on(chain.resolve()).expect("credentials were given");
/// assert_eq!(resolved.credentials.access_key_id, "AKID");
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
