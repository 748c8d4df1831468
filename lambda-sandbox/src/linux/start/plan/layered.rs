//! Roots of several layers, by an overlay (overlayfs).

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Inside, Plan, Step, look};
use crate::linux::instance::Instance;
use crate::linux::root::image::{Image, kind_of};
use crate::linux::sys::c_string;
use crate::{Error, Root};

impl Plan<'_> {
    /// Mounts a root of layers.
    pub(super) fn layered(&mut self, target: Inside, root: &Root) -> Result<(), Error> {
        self.overlay(target, layers_of(root)?)
    }

    /// Mounts these folders, the first on top, read-only.
    fn overlay(&mut self, target: Inside, folders: Vec<PathBuf>) -> Result<(), Error> {
        let options = options(&folders)?;
        self.steps.push(Step::Mount {
            kind: c_string(OsStr::new("overlay"))?,
            target,
            flags: libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV,
            options,
        });
        Ok(())
    }

    /// Mounts a root that does not start empty, with its small files and folders as the layer on
    /// top.
    ///
    /// The files are in a tmpfs that is mounted where the root will be. The overlay covers it; it
    /// leaves the namespace with the old root.
    pub(super) fn below_files(&mut self, root: &Root, image: Option<&Image>) -> Result<(), Error> {
        let (files, below) = (Path::new("/files"), Path::new("/image"));
        let target = self.inside(Path::new("/"))?;
        self.mount("tmpfs", target.clone(), "size=4m,nr_inodes=8192,mode=755")?;
        let mut made = BTreeSet::new();
        let in_files = |path: &Path| files.join(path.strip_prefix("/").unwrap_or(path));
        let above = root.files.iter().filter_map(|file| file.path.parent());
        for path in above.chain(root.folders.iter().map(PathBuf::as_path)) {
            let path = in_files(path);
            let folders: Vec<_> = path.ancestors().filter(|it| *it != Path::new("/")).collect();
            for folder in folders.into_iter().rev() {
                if made.insert(folder.to_path_buf()) {
                    self.steps.push(Step::Folder(self.inside(folder)?));
                }
            }
        }
        for file in &root.files {
            let path = self.inside(&in_files(&file.path))?;
            self.steps.push(Step::content(path, file));
        }
        let mut folders = vec![self.staged(files)];
        if let Some(directory) = &root.directory {
            look("looking for the root", directory)?;
            folders.push(directory.clone());
        } else if let Some(path) = &root.image {
            folders.push(self.staged(below));
            let kind = c_string(OsStr::new(kind_of(path)?))?;
            let device = image.map_or(path, |image| &image.device);
            let device = c_string(device.as_os_str())?;
            let target = self.inside(below)?;
            self.steps.push(Step::Folder(target.clone()));
            self.steps.push(Step::Image { device, kind, target });
        } else {
            folders.extend(layers_of(root)?);
        }
        self.overlay(target, folders)
    }

    fn staged(&self, path: &Path) -> PathBuf {
        self.stage.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Returns the layers of a root, the last one first, and below them the mount points that layers
/// may lack.
fn layers_of(root: &Root) -> Result<Vec<PathBuf>, Error> {
    root.layers.iter().try_for_each(|it| look("looking for a layer", it).map(|_| ()))?;
    Ok(root.layers.iter().rev().cloned().chain([Instance::points()]).collect())
}

/// Returns the options of an overlay of these folders, the first on top.
fn options(folders: &[PathBuf]) -> Result<CString, Error> {
    // A layer's redirect attributes could lead out of the layer.
    let mut options = OsString::from("redirect_dir=nofollow,lowerdir=");
    for (number, folder) in folders.iter().enumerate() {
        if number > 0 {
            options.push(":");
        }
        for byte in folder.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                options.push("\\");
            }
            options.push(OsStr::from_bytes(&[*byte]));
        }
    }
    if options.len() >= MOUNT_OPTIONS_MAX {
        return Err(Error::invalid(
            "root.layers",
            format!("{} bytes of paths", options.len()),
            format!("less than {MOUNT_OPTIONS_MAX}, the kernel's page"),
        ));
    }
    c_string(&options)
}

/// The most bytes of mount options (mount(2)).
const MOUNT_OPTIONS_MAX: usize = 4096;
