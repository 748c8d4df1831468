//! Roots from OCI images. An image layout, as a folder or a tar file, becomes a [`Root`] of layers.
//! Each layer is unpacked once.
//!
//! Images are not trusted. Digests and sizes are checked. Decompressed bytes, documents, files and
//! names are limited. No path leads out of its layer. Devices, owners, set-user-id bits and
//! extended attributes are left out. All files belong to root, so that the sandbox's user can read
//! what others may read. Root is needed, because overlayfs marks deleted files by device nodes.
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
mod merge;
mod packed;
mod reference;
mod store;
mod unpack;

use std::ffi::OsString;
use std::path::PathBuf;

pub use layout::LayoutFiles;
pub use limits::ImageLimits;
pub use packed::{IMAGE_LAYERS_MAX, LayerFolder, PackedImage, UnpackedLayer};
pub use reference::ImageReference;
pub use store::ImageStore;

use crate::{Error, Root, SandboxSpec};

/// An unpacked image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OciImage {
    /// The folders of its layers, the last on top. The lowest layers of an image of more than
    /// [`LAYERS_MAX`](crate::LAYERS_MAX) are one folder.
    pub layers: Vec<PathBuf>,
    /// The image's program and its arguments.
    pub command: Vec<OsString>,
    /// The image's environment, as names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// The image's working directory.
    pub working_directory: PathBuf,
    /// The number of devices, pipes and sockets that were left out of the layers unpacked by this
    /// import.
    pub left_out: u64,
}

impl OciImage {
    /// Returns a root of the layers.
    #[must_use]
    pub fn root(&self) -> Root {
        Root::of_layers(self.layers.iter().cloned())
    }

    /// Creates a specification that runs `command`, or the image's own command if it is empty, with
    /// the image's environment and working directory. The image's user is ignored: a sandbox has a
    /// user of its own.
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

/// Creates the error of an invalid part of an image.
fn broken(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::invalid("image", what, why)
}
