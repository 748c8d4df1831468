//! A store of unpacked layers, by digest.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::document::{Configuration, Descriptor, Digest, Index, Manifest};
use super::layout::{Hashed, Layout};
use super::limits::ImageLimits;
use super::unpack::Unpacker;
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
        let layout = Layout::open(layout.as_ref())?;
        let mut index: Index = layout.index()?;
        let mut chosen = index.choose(reference)?.clone();
        for _ in 0..INDEXES_MAX {
            if !chosen.is_index() {
                break;
            }
            index = layout.document(&chosen)?;
            chosen = index.choose(None)?.clone();
        }
        let manifest: Manifest = layout.document(&chosen)?;
        let configuration: Configuration = layout.document(&manifest.config)?;
        let contents = configuration.layers()?;
        let count = manifest.layers.len();
        if count != contents.len() || count == 0 || count > LAYERS_MAX {
            let why = format!("1 to {LAYERS_MAX} layers, as many as digests of their contents");
            return Err(broken(format!("{count} layers"), why));
        }
        let mut image = OciImage {
            layers: Vec::new(),
            command: configuration.command(),
            environment: configuration.environment(),
            working_directory: configuration.working_directory(),
            left_out: 0,
        };
        for (layer, content) in manifest.layers.iter().zip(&contents) {
            let (folder, left_out) = self.layer(&layout, layer, content)?;
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

    /// Returns the folder of a layer and the number of entries left out. Unpacks the layer if it is
    /// missing.
    fn layer(
        &self,
        layout: &Layout,
        layer: &Descriptor,
        content: &Digest,
    ) -> Result<(PathBuf, u64), Error> {
        let place = self.folder.join(LAYERS).join(content.digits());
        if place.is_dir() {
            return Ok((place, 0));
        }
        let part = Part::make(&self.folder.join(PARTS))?;
        let mut blob = layout.blob(layer)?;
        let limit = self.limits.layer_bytes_max;
        let plain = decompressed(&layer.media_type, &mut blob)?;
        let mut tar = Hashed::new(plain.take(limit.saturating_add(1)));
        let mut unpacker = Unpacker::new(&part.folder, self.limits)?;
        let unpacked = unpacker.unpack(&mut tar);
        // The stream goes on after the end of the archive. The rest counts for the digest too.
        let rest = unpacked.and_then(|()| {
            io::copy(&mut tar, &mut io::sink())
                .map_err(|source| broken(content.digits(), source.to_string()))
        });
        let (digest, bytes) = tar.finish();
        if bytes > limit {
            return Err(broken(content.digits(), format!("a layer of more than {limit} bytes")));
        }
        rest?;
        blob.finish()?;
        if digest != *content {
            return Err(broken(content.digits(), "the layer's content has another digest"));
        }
        match fs::rename(&part.folder, &place) {
            Ok(()) => {}
            // Another process has unpacked the same layer.
            Err(_) if place.is_dir() => {}
            Err(source) => return Err(Error::failed("keeping a layer", place, source)),
        }
        Ok((place, unpacker.left_out()))
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

/// Returns the uncompressed tar stream of a layer.
fn decompressed<'a>(
    media_type: &str,
    blob: &'a mut impl Read,
) -> Result<Box<dyn Read + 'a>, Error> {
    if media_type.ends_with("tar+gzip") || media_type.ends_with("tar.gzip") {
        Ok(Box::new(flate2::read::MultiGzDecoder::new(blob)))
    } else if media_type.ends_with("tar+zstd") {
        let decoder = ruzstd::decoding::StreamingDecoder::new(blob);
        let decoder = decoder.map_err(|error| broken("a zstd layer", error.to_string()))?;
        Ok(Box::new(decoder))
    } else if media_type.ends_with(".tar") {
        Ok(Box::new(blob))
    } else {
        Err(broken(media_type, "a layer is a tar file, plain or compressed by gzip or zstd"))
    }
}

const LAYERS: &str = "layers";
const PARTS: &str = "parts";
/// The most indexes that refer to one another in a chain.
const INDEXES_MAX: usize = 3;
