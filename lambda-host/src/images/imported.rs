//! A container image whose layers are in the code store.

use crate::code::{CodeDigest, CodeLease};
use crate::function::image::Image;

/// A container image whose layers are in the code store.
#[derive(Debug)]
pub(crate) struct ImportedImage {
    pub(crate) image: Image,
    /// The digest of its manifest; without a size, as AWS counts none for images.
    pub(crate) digest: CodeDigest,
    /// Hold the layers.
    pub(crate) leases: Vec<CodeLease>,
}
