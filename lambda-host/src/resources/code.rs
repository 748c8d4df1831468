//! The archives of functions and layers.

use bytes::Bytes;

use crate::code::CodeDigest;
use crate::error::Error;
use crate::host::Host;

impl Host {
    /// Returns the size of the archives of all functions, versions and layers, in bytes.
    #[must_use]
    pub fn code_bytes(&self) -> u64 {
        self.catalog().code_bytes()
    }

    /// Returns the archive of a function's or a layer's code, as it was uploaded.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be read, above all because nothing has this code.
    pub async fn archive(&self, code: &CodeDigest) -> Result<Bytes, Error> {
        self.catalog().archive(code).await
    }
}
