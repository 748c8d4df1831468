//! Where a host finds container images, by the registries in their URIs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a host finds container images. The default finds none.
///
/// ```
/// use lambda_host::ImageSources;
///
/// // Of this registry, `team/app:v1` is the image `v1` of the OCI layout in
/// // `/srv/images/team/app`.
/// let ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// let sources = ImageSources::default().with_folder(ecr, "/srv/images");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSources {
    registries: BTreeMap<String, Registry>,
    pub(super) paths: bool,
}

/// What stands for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Registry {
    /// A folder of OCI layouts, under the names of their repositories.
    Folder(PathBuf),
    /// A registry that is asked by plain HTTP.
    Server(SocketAddr),
}

impl ImageSources {
    /// Sets a folder that stands for a registry. The repository `NAME` is the OCI layout in
    /// `folder/NAME`, a folder or a tar file.
    #[must_use]
    pub fn with_folder(mut self, registry: &str, folder: impl Into<PathBuf>) -> Self {
        self.registries.insert(registry.to_owned(), Registry::Folder(folder.into()));
        self
    }

    /// Sets the address at which a registry is asked, by plain HTTP without credentials (OCI
    /// Distribution Specification 1.1, its pull). Redirects are not followed.
    #[must_use]
    pub fn with_server(mut self, registry: &str, address: SocketAddr) -> Self {
        self.registries.insert(registry.to_owned(), Registry::Server(address));
        self
    }

    /// Takes images of the form `oci:PATH[:TAG]` too, from any OCI layout on this machine that the
    /// host can read. For hosts whose callers may read its disk.
    #[must_use]
    pub fn with_paths(mut self) -> Self {
        self.paths = true;
        self
    }

    /// Returns whether no image can be found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn registry(&self, name: &str) -> Option<&Registry> {
        self.registries.get(name)
    }
}
