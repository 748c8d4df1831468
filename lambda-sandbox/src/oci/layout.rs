//! The files of an image layout, in a folder or in a tar file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::broken;
use super::document::{Descriptor, Digest};
use crate::Error;

/// The most bytes of a JSON document.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The most files of a layout in a tar file.
const FILES_MAX: usize = 10_000;

/// The files of an image layout that lie elsewhere than on this machine's disk, as in a registry.
pub trait LayoutFiles: fmt::Debug + Send {
    /// Opens a file by its name in the layout: `index.json`, or `blobs/sha256/` with 64 hexadecimal
    /// digits. What is read is checked by size and digest afterwards. Blocks.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] for a file that is not there; any other error otherwise.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read>>;
}

/// An image layout.
#[derive(Debug)]
pub(super) enum Layout {
    Files(Box<dyn LayoutFiles>),
    Folder(PathBuf),
    /// The tar file, with the offset and length of each file of the layout in it.
    Tar(PathBuf, BTreeMap<String, (u64, u64)>),
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::failed("opening an image", path, source);
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let mut places = BTreeMap::new();
        let mut archive = tar::Archive::new(File::open(path).map_err(failed)?);
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").to_owned();
            places.insert(name, (entry.raw_file_position(), entry.size()));
            if places.len() > FILES_MAX {
                return Err(broken(path.display().to_string(), format!("over {FILES_MAX} files")));
            }
        }
        Ok(Self::Tar(path.to_owned(), places))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Tar(path, _) => path,
            Self::Files(_) => Path::new(""),
        }
    }

    /// Opens a file of the layout.
    fn read(&self, name: &str) -> Result<Box<dyn Read>, Error> {
        let failed = |source| Error::failed("reading an image", self.path().join(name), source);
        match self {
            Self::Files(files) => files.open(name).map_err(failed),
            Self::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(failed)?;
                if !file.metadata().map_err(failed)?.is_file() {
                    return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
                }
                Ok(Box::new(file))
            }
            Self::Tar(path, places) => {
                let place = places.get(name);
                let (offset, length) =
                    place.ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                Ok(Box::new(file.take(*length)))
            }
        }
    }

    /// Reads `index.json`.
    pub(super) fn index<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let file = self.read("index.json")?;
        parse("index.json", &self.whole("index.json", file, DOCUMENT_BYTES_MAX)?)
    }

    /// Reads the JSON document of a descriptor, and checks its size and digest.
    pub(super) fn document<T: DeserializeOwned>(&self, at: &Descriptor) -> Result<T, Error> {
        let mut blob = self.blob(at)?;
        let content = self.whole(&at.digest, &mut blob, DOCUMENT_BYTES_MAX)?;
        blob.finish()?;
        parse(&at.digest, &content)
    }

    fn whole(&self, name: &str, file: impl Read, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        file.take(bytes_max + 1)
            .read_to_end(&mut content)
            .map_err(|source| Error::failed("reading an image", self.path(), source))?;
        if content.len() as u64 > bytes_max {
            return Err(broken(name, format!("a document is longer than {bytes_max} bytes")));
        }
        Ok(content)
    }

    /// Opens the blob of a descriptor.
    pub(super) fn blob(&self, at: &Descriptor) -> Result<Blob, Error> {
        let digest = at.digest()?;
        let file = self.read(&format!("blobs/sha256/{}", digest.digits()))?;
        Ok(Blob { digest, size: at.size, file: Hashed::new(file.take(at.size.saturating_add(1))) })
    }
}

fn parse<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(content).map_err(|error| broken(name, error.to_string()))
}

/// A reader that hashes and counts the bytes that it reads.
#[derive(Debug)]
pub(super) struct Hashed<R> {
    reader: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, hash: Sha256::new(), bytes: 0 }
    }

    /// Returns the digest and the number of bytes read.
    pub(super) fn finish(self) -> (Digest, u64) {
        (Digest::of(&self.hash.finalize()), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A blob whose size and digest are checked at the end of reading.
pub(super) struct Blob {
    digest: Digest,
    size: u64,
    file: Hashed<io::Take<Box<dyn Read>>>,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Blob {
    /// Reads the rest, and checks size and digest.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        io::copy(&mut self.file, &mut io::sink())
            .map_err(|source| Error::step("reading an image", source))?;
        let (digest, bytes) = self.file.finish();
        if bytes != self.size {
            let why = format!("{} bytes are due", self.size);
            return Err(broken(self.digest.digits(), why));
        }
        if digest != self.digest {
            return Err(broken(self.digest.digits(), "its content has another digest"));
        }
        Ok(())
    }
}
