//! Roots from OCI images: an image layout, in a folder or in a tar file, is unpacked once for each layer and becomes a
//! [`Root`] of layers.
//!
//! Everything in an image is foreign: digests and sizes are checked, decompression, documents, files and names are bounded, no path
//! leads out of its layer, and devices, owners, set-user-id bits and extended attributes are left out. All files belong to root, so
//! that the sandbox's user reads what others may read. As root only: deleted files are device nodes in an overlay.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use lambda_sandbox::Backend;
//! use lambda_sandbox::linux::LinuxBackend;
//! use lambda_sandbox::oci::ImageStore;
//!
//! let store = ImageStore::open("/var/lib/sandbox/images")?;
//! let image = tokio::task::spawn_blocking(move || store.import("alpine.tar", None)).await??;
//! let done = LinuxBackend::new()?.run(image.spec(&["/bin/cat", "/etc/os-release"])).await?;
//! println!("{}", String::from_utf8_lossy(&done.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! Source: OCI Image Format Specification 1.1 (layout, index, manifest, configuration, layers).

mod document;
mod layout;
mod limits;
mod store;
mod unpack;

use std::ffi::OsString;
use std::path::PathBuf;

pub use limits::ImageLimits;
pub use store::ImageStore;

use crate::{Error, Root, SandboxSpec};

/// An unpacked image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OciImage {
    /// The folders of its layers, the last on top.
    pub layers: Vec<PathBuf>,
    /// The program that it runs by itself, and its arguments.
    pub command: Vec<OsString>,
    /// The environment that it asks for.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that its program starts in.
    pub working_directory: PathBuf,
    /// Devices, pipes and sockets of the image that were left out.
    pub left_out: u64,
}

impl OciImage {
    /// Returns the root of its layers.
    #[must_use]
    pub fn root(&self) -> Root {
        Root::of_layers(self.layers.iter().cloned())
    }

    /// Describes a sandbox that runs this command, or the image's own where none is given, with the image's environment and
    /// folder. The image's user is not heard: a sandbox has one of its own.
    #[must_use]
    pub fn spec(&self, command: &[&str]) -> SandboxSpec {
        let own = || self.command.clone();
        let given = || command.iter().map(OsString::from).collect();
        let mut spec =
            SandboxSpec::new(self.root(), if command.is_empty() { own() } else { given() });
        spec.environment.clone_from(&self.environment);
        spec.working_directory.clone_from(&self.working_directory);
        spec
    }
}

/// Makes the error of something in an image that is not as it must be.
fn broken(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::invalid("image", what, why)
}
