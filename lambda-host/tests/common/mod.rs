//! Helpers of the host's tests: functions on the fake backend.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test uses some of them")]

use std::future::Future;
use std::io::{Cursor, Write};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use lambda_host::FunctionConfig;
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Returns a fake backend with a function `f` that answers with its event after a second.
pub(crate) fn echo() -> FakeBackend {
    FakeBackend::new().with_handler("f", |invocation: &Invocation| {
        FakeAnswer::success(invocation.payload.clone()).after(SECOND)
    })
}

pub(crate) fn zip(content: &str) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner().into()
}

/// Returns the settings of `f`.
pub(crate) fn config() -> FunctionConfig {
    named("f")
}

pub(crate) fn named(name: &str) -> FunctionConfig {
    FunctionConfig::new(name, "provided.al2023", "bootstrap").unwrap()
}

/// Polls a future `polls` times, with a millisecond between, and drops it. Returns whether it was
/// ready.
pub(crate) async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if future.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}
