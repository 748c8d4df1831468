//! The seam to whatever fetches documents of the issuers of tokens.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// Fetches documents by HTTP: an issuer's discovery document, and its keys.
///
/// An implementation follows no redirect, takes status 200 alone, and checks the server's
/// certificate. It may be asked for the same document again. The caller may drop the future.
pub trait Documents: fmt::Debug + Send + Sync {
    /// Fetches a document. Ends within its timeout, and reads no more than its bytes.
    fn fetch(&self, document: Document) -> Fetching<'_>;
}

/// A document that is being fetched.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, Unfetched>> + Send + 'a>>;

/// A document to fetch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Document {
    /// Its address: `https://`, or `http://` for an issuer whose own address is so.
    pub url: String,
    /// How long fetching may take: 1.5 s, as at AWS.
    pub timeout: Duration,
    /// The largest size, in bytes.
    pub bytes_max: usize,
}

/// A document could not be fetched. The implementation logs why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document cannot be fetched")]
#[non_exhaustive]
pub struct Unfetched;

impl Unfetched {
    /// Returns the error.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Default for Unfetched {
    fn default() -> Self {
        Self::new()
    }
}

/// Fetches nothing.
#[cfg(feature = "jwt")]
#[derive(Debug)]
pub(crate) struct NoDocuments;

#[cfg(feature = "jwt")]
impl Documents for NoDocuments {
    fn fetch(&self, _: Document) -> Fetching<'_> {
        Box::pin(std::future::ready(Err(Unfetched)))
    }
}
