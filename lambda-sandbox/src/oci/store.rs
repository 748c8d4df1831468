//! A store of unpacked layers, by digest.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::ImageLimits;
use super::packed::{LayerFolder, PackedImage};
use super::reference::ImageReference;
use super::{OciImage, broken};
use crate::{Error, LAYERS_MAX};

/// A folder of unpacked layers, each unpacked once and named by its digest. Several processes can
/// share it.
#[derive(Debug, Clone)]
pub struct ImageStore {
    folder: PathBuf,
    limits: ImageLimits,
}

impl ImageStore {
    /// Opens a store in a folder. Creates the folder if necessary, and removes what crashed imports
    /// left in it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] without root, or if other users may write to the folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let unavailable = |why: String, remedy| {
            Err(Error::Unavailable { what: "a store of images", why, remedy })
        };
        if !nix::unistd::Uid::effective().is_root() {
            let why = "layers of images have device nodes for deleted files".into();
            return unavailable(why, "run the host as root, or unpack the image into a folder");
        }
        let failed = |source| Error::failed("opening a store of images", &folder, source);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed)?;
        let found = fs::metadata(&folder).map_err(failed)?;
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            let why = format!("{} is another's, or others may write to it", folder.display());
            return unavailable(why, "take a folder of root's");
        }
        for name in [LAYERS, PARTS] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder.join(name))
                .map_err(failed)?;
        }
        let store = Self { folder, limits: ImageLimits::default() };
        store.sweep()?;
        Ok(store)
    }

    /// Sets the limits of unpacking.
    #[must_use]
    pub fn with_limits(mut self, limits: ImageLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Imports an image from a layout, a folder or a tar file, and unpacks the layers that the
    /// store lacks. `reference` chooses one of several images
    /// (`org.opencontainers.image.ref.name`). Blocks until the layers are unpacked.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an image that is broken, malicious or beyond the limits. Nothing of
    /// the failed layer stays.
    pub fn import(
        &self,
        layout: impl AsRef<Path>,
        reference: Option<&str>,
    ) -> Result<OciImage, Error> {
        let reference = reference.map_or(ImageReference::Only, ImageReference::Name);
        let packed = PackedImage::open(layout, reference, ARCHITECTURE)?;
        if !["", ARCHITECTURE].contains(&packed.architecture()) {
            return Err(broken(packed.architecture(), "the image is for other processors"));
        }
        let command = packed.entry_point().into_iter().chain(packed.command());
        let mut image = OciImage {
            layers: Vec::new(),
            command: command.collect(),
            environment: packed.environment(),
            working_directory: packed.working_directory(),
            left_out: 0,
        };
        for layers in packed.folders(LAYERS_MAX) {
            let (folder, left_out) = self.layer(&packed, &layers)?;
            image.layers.push(folder);
            image.left_out += left_out;
        }
        Ok(image)
    }

    /// Removes the layers for which `keep` returns false. A layer that a live sandbox uses must be
    /// kept.
    ///
    /// # Errors
    ///
    /// If a layer cannot be removed.
    pub fn retain(&self, keep: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let folder = self.folder.join(LAYERS);
        let failed = |source| Error::failed("removing a layer", &folder, source);
        for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
            if !keep(&entry.path()) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Returns a folder of layers and the number of entries left out. Unpacks the layers if they
    /// are missing.
    fn layer(&self, packed: &PackedImage, layers: &LayerFolder) -> Result<(PathBuf, u64), Error> {
        let folder = self.folder.join(LAYERS).join(&layers.name);
        if folder.is_dir() {
            return Ok((folder, 0));
        }
        let part = Part::make(&self.folder.join(PARTS))?;
        let places = layers.places.clone();
        let left_out = packed.unpack_layers(places, &part.folder, self.limits)?.left_out;
        match fs::rename(&part.folder, &folder) {
            Ok(()) => {}
            // Another process has unpacked the same layer.
            Err(_) if folder.is_dir() => {}
            Err(source) => return Err(Error::failed("keeping a layer", folder, source)),
        }
        Ok((folder, left_out))
    }

    /// Removes the parts of interrupted imports.
    fn sweep(&self) -> Result<(), Error> {
        let folder = self.folder.join(PARTS);
        let failed = |source| Error::failed("sweeping a store of images", &folder, source);
        let _gate = gate(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|it| it == "lock") {
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
                // A held lock means that a process is working on the part.
                match file.try_lock() {
                    Ok(()) => Part { lock: path.clone(), folder: path.with_extension("") }.remove(),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(failed(error)),
                }
            }
        }
        Ok(())
    }
}

/// A layer that is being unpacked. It is removed on drop.
#[derive(Debug)]
struct Part {
    lock: PathBuf,
    folder: PathBuf,
}

impl Part {
    /// Creates a lock and a folder. This process holds the lock while it works on the part.
    fn make(parts: &Path) -> Result<Held, Error> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let folder = parts.join(format!("{}-{number}", std::process::id()));
        let lock = folder.with_extension("lock");
        let failed = |source| Error::failed("unpacking a layer", &folder, source);
        // The gate keeps sweeps away between creating and locking the file.
        let _gate = gate(parts).map_err(failed)?;
        let file = File::create(&lock).map_err(failed)?;
        file.lock().map_err(failed)?;
        fs::DirBuilder::new().mode(0o755).create(&folder).map_err(failed)?;
        Ok(Held { part: Self { lock, folder }, _lock: file })
    }

    fn remove(&self) {
        // The lock stays until its folder is gone, so that the next sweep finds what cannot be
        // removed now.
        let gone = match fs::remove_dir_all(&self.folder) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        if gone {
            drop(fs::remove_file(&self.lock));
        }
    }
}

/// Excludes others from creating and sweeping parts while the returned file is open.
fn gate(parts: &Path) -> io::Result<File> {
    let file = File::create(parts.join("gate"))?;
    file.lock()?;
    Ok(file)
}

/// A part with its lock.
struct Held {
    part: Part,
    _lock: File,
}

impl std::ops::Deref for Held {
    type Target = Part;

    fn deref(&self) -> &Part {
        &self.part
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.part.remove();
    }
}

/// The processors that the Linux backend runs on.
const ARCHITECTURE: &str = "amd64";
const LAYERS: &str = "layers";
const PARTS: &str = "parts";
