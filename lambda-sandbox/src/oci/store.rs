//! Unpacked layers, kept by digest.

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

/// A folder of unpacked layers, each by its digest and unpacked once. Stores of several processes may share it.
#[derive(Debug, Clone)]
pub struct ImageStore {
    folder: PathBuf,
    limits: ImageLimits,
}

impl ImageStore {
    /// Opens a store in a folder, which is made if need be, and removes what crashed imports have left in it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] without root, or where others may write to the folder.
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

    /// Sets how much is unpacked at most.
    #[must_use]
    pub fn with_limits(mut self, limits: ImageLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Unpacks an image of a layout, a folder or a tar file, as far as its layers are not there yet. `reference` names one of
    /// several images (`org.opencontainers.image.ref.name`). Blocks as long as that takes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an image that is broken, malicious or beyond the limits; nothing of the layer stays then.
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

    /// Removes the layers that `keep` does not want; what a sandbox shows stays mounted, but is not to be removed before its end.
    ///
    /// # Errors
    ///
    /// When one cannot be removed.
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

    /// Returns the folder of a layer, unpacked now if it is not there, and how much was left out.
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
        // An archive ends before its stream does: what is behind it counts to the digest.
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
            // Another process has been faster with the same.
            Err(_) if place.is_dir() => {}
            Err(source) => return Err(Error::failed("keeping a layer", place, source)),
        }
        Ok((place, unpacker.left_out()))
    }

    /// Removes what imports that have ended in the middle have left.
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
                // Whose lock is held works on it.
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

/// A layer that is being unpacked; removed when dropped.
#[derive(Debug)]
struct Part {
    lock: PathBuf,
    folder: PathBuf,
}

impl Part {
    /// Makes a folder and, before it, a lock that is held as long as this process works on it.
    fn make(parts: &Path) -> Result<Held, Error> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let folder = parts.join(format!("{}-{number}", std::process::id()));
        let lock = folder.with_extension("lock");
        let failed = |source| Error::failed("unpacking a layer", &folder, source);
        // Nobody sweeps between the lock's making and its holding.
        let _gate = gate(parts).map_err(failed)?;
        let file = File::create(&lock).map_err(failed)?;
        file.lock().map_err(failed)?;
        fs::DirBuilder::new().mode(0o755).create(&folder).map_err(failed)?;
        Ok(Held { part: Self { lock, folder }, _lock: file })
    }

    fn remove(&self) {
        // What cannot be removed is the next sweep's: the lock stays until its folder is gone.
        let gone = match fs::remove_dir_all(&self.folder) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        if gone {
            drop(fs::remove_file(&self.lock));
        }
    }
}

/// Keeps others from making and sweeping parts while it is held.
fn gate(parts: &Path) -> io::Result<File> {
    let file = File::create(parts.join("gate"))?;
    file.lock()?;
    Ok(file)
}

/// A part, and the lock on it.
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

/// Returns the tar stream of a layer.
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
/// Indexes that lead from one to the next.
const INDEXES_MAX: usize = 3;
