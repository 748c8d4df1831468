//! How a worker gets the code of a function.

use std::fmt;

use bytes::Bytes;
use lambda_sandbox::BoxFuture;

use super::digest::CodeDigest;
use super::store::CodeStore;
use crate::blocking::blocking;
use crate::error::Error;

/// Gives a worker the archive of code that it lacks.
///
/// The worker may call it again for the same code, and for several sandboxes at once.
pub trait FetchCode: Send + Sync + fmt::Debug {
    /// Returns the archive of `digest`.
    ///
    /// # Errors
    ///
    /// Any error. The sandbox that needs the code is then not started, and its invocation is placed
    /// elsewhere.
    fn fetch<'a>(&'a self, digest: &'a CodeDigest) -> BoxFuture<'a, Result<Bytes, Error>>;
}

impl FetchCode for CodeStore {
    fn fetch<'a>(&'a self, digest: &'a CodeDigest) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move {
            let (store, digest) = (self.clone(), digest.clone());
            blocking(move || store.archive(&digest)).await
        })
    }
}
