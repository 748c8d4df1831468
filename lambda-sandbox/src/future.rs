//! Futures of methods.

use std::future::Future;
use std::pin::Pin;

/// A future on the heap, so that the traits are usable as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
