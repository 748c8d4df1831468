//! The type of futures that trait methods return.

use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that traits with async methods can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
