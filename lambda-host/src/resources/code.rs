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

    /// Reads an archive from a bucket of the S3 beside the host. A host without services has none,
    /// and so no bucket.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] when there is no such bucket or object, or when it is larger than an
    /// archive may be; [`Error::Service`] when S3 cannot be reached.
    #[cfg(feature = "http")]
    pub(crate) async fn code_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Bytes, Error> {
        #[cfg(feature = "services")]
        if let Some(services) = self.services() {
            let read = services.object(bucket, key, version, OBJECT_BYTES_MAX).await;
            return read.map_err(|error| match error {
                Error::Service { code, message, .. } if code.starts_with("NoSuch") => {
                    no_object(&code, &message)
                }
                error => error,
            });
        }
        tracing::debug!(bucket, key, ?version, "code in S3, which this host does not have");
        Err(no_object("NoSuchBucket", "The specified bucket does not exist"))
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

#[cfg(feature = "http")]
fn no_object(code: &str, message: &str) -> Error {
    Error::parameter(format!(
        "Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
    ))
}

/// The largest archive, in bytes: as large as its contents may be.
#[cfg(all(feature = "http", feature = "services"))]
const OBJECT_BYTES_MAX: usize = 262_144_000;
