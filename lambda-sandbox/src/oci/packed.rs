//! An image of a layout whose documents were read and checked, and whose layers are still packed.

use std::ffi::OsString;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::broken;
use super::document::{Configuration, Descriptor, Digest, Index, Manifest};
use super::layout::{Hashed, Layout, LayoutFiles};
use super::limits::ImageLimits;
use super::merge::merge;
use super::reference::ImageReference;
use super::unpack::Unpacker;
use crate::Error;

/// The most layers of an image. Lambda takes as many.
pub const IMAGE_LAYERS_MAX: usize = 127;

/// An image of a layout. Its documents were read and checked; its layers are still packed.
///
/// For hosts that keep the layers themselves; others import images into an
/// [`ImageStore`](super::ImageStore).
#[derive(Debug)]
pub struct PackedImage {
    layout: Layout,
    digest: Digest,
    layers: Vec<Descriptor>,
    contents: Vec<Digest>,
    configuration: Configuration,
}

impl PackedImage {
    /// Reads an image from a layout, a folder or a tar file. `architecture` is that of the image
    /// chosen where there are several: `amd64`, `arm64`. A single image is taken whatever its
    /// architecture is. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`io::ErrorKind::NotFound`] if there is no such layout, image or
    /// document; [`Error::Invalid`] for an image that is broken or beyond the limits.
    pub fn open(
        layout: impl AsRef<Path>,
        reference: ImageReference<'_>,
        architecture: &str,
    ) -> Result<Self, Error> {
        Self::read(Layout::open(layout.as_ref())?, reference, architecture)
    }

    /// Reads an image from a layout that lies elsewhere; otherwise as [`PackedImage::open`].
    ///
    /// # Errors
    ///
    /// As [`PackedImage::open`].
    pub fn open_files(
        files: Box<dyn LayoutFiles>,
        reference: ImageReference<'_>,
        architecture: &str,
    ) -> Result<Self, Error> {
        Self::read(Layout::Files(files), reference, architecture)
    }

    fn read(
        layout: Layout,
        reference: ImageReference<'_>,
        architecture: &str,
    ) -> Result<Self, Error> {
        let index: Index = layout.index()?;
        let mut chosen = index.choose(reference, architecture)?.clone();
        for _ in 0..INDEXES_MAX {
            if !chosen.is_index() {
                break;
            }
            let index: Index = layout.document(&chosen)?;
            chosen = index.choose(ImageReference::Only, architecture)?.clone();
        }
        let manifest: Manifest = layout.document(&chosen)?;
        let configuration: Configuration = layout.document(&manifest.config)?;
        let contents = configuration.layers()?;
        let count = manifest.layers.len();
        if count != contents.len() || count == 0 || count > IMAGE_LAYERS_MAX {
            let why =
                format!("1 to {IMAGE_LAYERS_MAX} layers, as many as digests of their contents");
            return Err(broken(format!("{count} layers"), why));
        }
        let digest = chosen.digest()?;
        Ok(Self { layout, digest, layers: manifest.layers, contents, configuration })
    }

    /// Returns the SHA-256 of the image's manifest, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.digest.digits()
    }

    /// Returns the processors that the image says it is for: `amd64`, `arm64`; empty if it does not
    /// say.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.configuration.architecture
    }

    /// Returns the SHA-256 of each layer's uncompressed tar stream, the lowest layer first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.contents.iter().map(Digest::digits)
    }

    /// Divides the layers into at most `folders` folders, the lowest layer first. If there are more
    /// layers, the lowest ones come into one folder, and each of the others into its own. A folder
    /// is named by its layers: the SHA-256 of its layer's uncompressed tar stream, or of those
    /// digests. `folders` is at least 1.
    #[must_use]
    pub fn folders(&self, folders: usize) -> Vec<LayerFolder> {
        let merged = (self.contents.len() + 1).saturating_sub(folders.max(1)).max(1);
        let mut found = vec![LayerFolder { name: self.name_of(0..merged), places: 0..merged }];
        found.extend((merged..self.contents.len()).map(|place| {
            let places = place..place + 1;
            LayerFolder { name: self.name_of(places.clone()), places }
        }));
        found
    }

    /// Names a folder of these layers.
    fn name_of(&self, places: Range<usize>) -> String {
        match &self.contents[places] {
            [layer] => layer.digits().to_owned(),
            layers => {
                let mut hash = Sha256::new();
                layers.iter().for_each(|it| hash.update(it.digits()));
                Digest::of(&hash.finalize()).digits().to_owned()
            }
        }
    }

    /// Returns the program, before the words of [`PackedImage::command`].
    #[must_use]
    pub fn entry_point(&self) -> Vec<OsString> {
        self.configuration.entry_point()
    }

    /// Returns the arguments of the entry point, or the program with its arguments if there is no
    /// entry point.
    #[must_use]
    pub fn command(&self) -> Vec<OsString> {
        self.configuration.arguments()
    }

    /// Returns the image's environment, as names and values.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.configuration.environment()
    }

    /// Returns the image's working directory.
    #[must_use]
    pub fn working_directory(&self) -> PathBuf {
        self.configuration.working_directory()
    }

    /// Unpacks a layer, by its place in [`PackedImage::layers`], into an empty folder, with
    /// whiteouts in the form of overlayfs. The folder belongs to root, and others may not write to
    /// it. If unpacking fails, what was unpacked stays in the folder. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a layer that is broken, malicious or beyond the limits, or has no
    /// such place; [`Error::Failed`] if a file cannot be read or written, as without root.
    pub fn unpack_layer(
        &self,
        place: usize,
        folder: &Path,
        limits: ImageLimits,
    ) -> Result<UnpackedLayer, Error> {
        let (Some(layer), Some(content)) = (self.layers.get(place), self.contents.get(place))
        else {
            return Err(broken(format!("layer {place}"), "there is none"));
        };
        let mut blob = self.layout.blob(layer)?;
        let limit = limits.layer_bytes_max;
        let plain = decompressed(&layer.media_type, &mut blob)?;
        let mut tar = Hashed::new(plain.take(limit.saturating_add(1)));
        let mut unpacker = Unpacker::new(folder, limits)?;
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
        Ok(UnpackedLayer { bytes, entries: unpacker.entries(), left_out: unpacker.left_out() })
    }
}

impl PackedImage {
    /// Unpacks layers that lie one on another into an empty folder, as an overlay of them would
    /// look, by their places in [`PackedImage::layers`]. The limits are of all of them together.
    /// Otherwise as [`PackedImage::unpack_layer`].
    ///
    /// # Errors
    ///
    /// As [`PackedImage::unpack_layer`].
    pub fn unpack_layers(
        &self,
        places: Range<usize>,
        folder: &Path,
        limits: ImageLimits,
    ) -> Result<UnpackedLayer, Error> {
        let mut whole = UnpackedLayer::default();
        let mut left = limits;
        for place in places.clone() {
            let above = folder.join(ABOVE);
            let failed = |source| match io::Error::kind(&source) {
                io::ErrorKind::AlreadyExists => broken(ABOVE, "a layer has a file of this name"),
                _ => Error::failed("merging layers", folder, source),
            };
            let one = if places.len() == 1 {
                self.unpack_layer(place, folder, left)?
            } else {
                std::fs::DirBuilder::new().mode(0o755).create(&above).map_err(failed)?;
                let one = self.unpack_layer(place, &above, left)?;
                merge(&above, folder).map_err(failed)?;
                std::fs::remove_dir_all(&above).map_err(failed)?;
                one
            };
            left.layer_bytes_max -= one.bytes;
            left.layer_entries_max -= one.entries;
            whole.bytes += one.bytes;
            whole.entries += one.entries;
            whole.left_out += one.left_out;
        }
        Ok(whole)
    }
}

/// A folder for one layer or for several that are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerFolder {
    /// Names its content: 64 hexadecimal digits.
    pub name: String,
    /// The places of its layers in [`PackedImage::layers`], for [`PackedImage::unpack_layers`].
    pub places: Range<usize>,
}

/// What unpacking layers came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackedLayer {
    /// The length of the uncompressed tar streams, in bytes.
    pub bytes: u64,
    /// Entries of the tar streams.
    pub entries: u64,
    /// Devices, pipes and sockets that were left out.
    pub left_out: u64,
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

/// Where a layer is unpacked before it is merged: a whiteout's name, which few layers have.
const ABOVE: &str = ".wh..above";
/// The most indexes that refer to one another in a chain.
const INDEXES_MAX: usize = 3;
