//! Container images of functions: where a host finds them, and how their layers come into its
//! store.
//!
//! Images are untrusted. `lambda_sandbox::oci` checks the digests, sizes and paths of their layers.
//! Layers lie in the code store under the digests of their contents, each once, while a function or
//! a sandbox holds them.

mod imported;
#[cfg(feature = "images")]
mod importer;
#[cfg(feature = "images")]
mod registry;
#[cfg(feature = "images")]
mod sources;
#[cfg(feature = "images")]
mod uri;

pub(crate) use self::imported::ImportedImage;
#[cfg(feature = "images")]
pub(crate) use self::importer::Importer;
#[cfg(feature = "images")]
pub use self::sources::ImageSources;
