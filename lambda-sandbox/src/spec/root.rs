//! The root file system of a sandbox, as data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::check::{absolute, inside, no_nul};
use crate::Error;

/// The most layers of a root. Lambda allows a function five; the base and the code are added.
pub const LAYERS_MAX: usize = 32;
/// The most binds, links, files and folders of a root together.
pub const ROOT_PARTS_MAX: usize = 4096;

/// The root file system inside: read-only parts, and a scratch folder at `/tmp`.
///
/// A backend that does not isolate runs on the host's own file system. It reads a path below a
/// bind's target as the path below its source, so that one specification works with every backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// A folder that becomes the root. It must contain the mount points `/proc`, `/dev` and `/tmp`,
    /// and the target of each bind. Without a folder, layers or an image the root starts empty, and
    /// its contents are created.
    pub directory: Option<PathBuf>,
    /// Folders that are stacked to form the root, the last on top, like the layers of a function.
    /// They must contain the target of each bind, but no other mount points.
    pub layers: Vec<PathBuf>,
    /// A squashfs or erofs image that becomes the root. It must contain the same as a folder.
    pub image: Option<PathBuf>,
    /// Host folders and files that are bound read-only, in this order.
    pub binds: Vec<Bind>,
    /// Links created in an empty root, such as `/bin` to `usr/bin`.
    pub links: Vec<Link>,
    /// Small files, such as `/etc/resolv.conf`, at most 4 MiB together. In a root of a folder,
    /// layers or an image they are the top layer of an overlay: each hides a file or link of that
    /// root with the same path.
    pub files: Vec<SmallFile>,
    /// Folders created if the root does not have them, such as `/opt`.
    pub folders: Vec<PathBuf>,
}

impl Root {
    /// Creates an empty root. That is enough for a static program that is bound into it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Creates a root from a folder.
    #[must_use]
    pub fn of_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..Self::default() }
    }

    /// Creates a root from layers, the last on top.
    #[must_use]
    pub fn of_layers<P: Into<PathBuf>>(layers: impl IntoIterator<Item = P>) -> Self {
        Self { layers: layers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Creates a root from a squashfs or erofs image.
    #[must_use]
    pub fn of_image(image: impl Into<PathBuf>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }

    /// Returns whether the root has no folder, layers or image, and so starts empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.is_none() && self.layers.is_empty() && self.image.is_none()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bases = [self.directory.is_some(), !self.layers.is_empty(), self.image.is_some()];
        if bases.into_iter().filter(|there| *there).count() > 1 {
            return Err(Error::invalid(
                "root",
                "",
                "it is one of a directory, layers or an image, not several",
            ));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(Error::invalid(
                "root.layers",
                self.layers.len().to_string(),
                format!("at most {LAYERS_MAX}"),
            ));
        }
        for layer in &self.layers {
            absolute("root.layers", layer)?;
        }
        self.directory.iter().try_for_each(|path| absolute("root.directory", path))?;
        self.image.iter().try_for_each(|path| absolute("root.image", path))?;
        let made = self.links.len() + self.files.len() + self.folders.len();
        let parts = self.binds.len() + made;
        if parts > ROOT_PARTS_MAX {
            return Err(Error::invalid(
                "root",
                format!("{parts} binds, links, files and folders"),
                format!("at most {ROOT_PARTS_MAX}"),
            ));
        }
        for bind in &self.binds {
            absolute("root.binds.source", &bind.source)?;
            inside("root.binds.target", &bind.target)?;
        }
        self.check_made()
    }

    /// Checks the paths of links, files and folders: none may lie below a bind or a link, through
    /// which it would be written.
    fn check_made(&self) -> Result<(), Error> {
        let links = self.links.iter().map(|link| ("root.links", &link.path));
        let files = self.files.iter().map(|file| ("root.files", &file.path));
        let shown: BTreeSet<&Path> = (self.binds.iter().map(|bind| bind.target.as_path()))
            .chain(self.links.iter().map(|link| link.path.as_path()))
            .collect();
        let folders = self.folders.iter().map(|path| ("root.folders", path));
        for (setting, path) in links.chain(files).chain(folders) {
            inside(setting, path)?;
            let refused = |reason| Err(Error::invalid(setting, path.display().to_string(), reason));
            if setting == "root.links" && !self.is_empty() {
                return refused("only a root that is empty at first can have it");
            }
            if path.ancestors().skip(1).any(|above| shown.contains(above)) {
                return refused("it lies below a bind or a link");
            }
        }
        for link in &self.links {
            no_nul("root.links", link.points_to.as_os_str())?;
        }
        Ok(())
    }

    /// Binds the host's `source` read-only at `target`. Removes links, files and folders of the
    /// root below the target, because the bind covers them.
    #[must_use]
    pub fn with_bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let bind = Bind { source: source.into(), target: target.into() };
        let below = |path: &Path| path.starts_with(&bind.target) && path != bind.target;
        self.links.retain(|link| !below(&link.path));
        self.files.retain(|file| !below(&file.path));
        self.folders.retain(|path| !below(path));
        self.binds.push(bind);
        self
    }

    /// Returns the host's path of `inside`, if it is the target of a bind or below one.
    #[must_use]
    pub fn host_path(&self, inside: &Path) -> Option<PathBuf> {
        self.binds.iter().rev().find_map(|bind| {
            let rest = inside.strip_prefix(&bind.target).ok()?;
            Some(if rest.as_os_str().is_empty() {
                bind.source.clone()
            } else {
                bind.source.join(rest)
            })
        })
    }
}

/// A host folder or file that is bound read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The host's path.
    pub source: PathBuf,
    /// The path inside.
    pub target: PathBuf,
}

/// A symbolic link made in an empty root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The path of the link.
    pub path: PathBuf,
    /// The target of the link.
    pub points_to: PathBuf,
}

/// A small file of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The content of the file.
    pub content: Vec<u8>,
    /// Whether it may be executed: a script.
    pub executable: bool,
}

impl SmallFile {
    /// Creates a file that is not executable.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: content.into(), executable: false }
    }

    /// Makes the file executable.
    #[must_use]
    pub fn executable(mut self) -> Self {
        self.executable = true;
        self
    }
}
