//! Images of a root's folders, which guests mount as disks. An image is made once for a folder and
//! kept in a cache, under a digest of the names, sizes, times, modes and owners of its files.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::settings::Settings;
use crate::{Error, Root};

/// The cache of images.
#[derive(Debug, Clone)]
pub(super) struct Images {
    folder: Arc<Path>,
    /// Held while an image is made, so that each is made once.
    making: Arc<Mutex<()>>,
}

/// Numbers unfinished images of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Images {
    /// Opens the cache, and makes its folder.
    pub(super) fn open(settings: &Settings) -> Result<Self, Error> {
        let folder = &settings.images;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::failed("making a folder for images", folder, source))?;
        Ok(Self { folder: folder.as_path().into(), making: Arc::default() })
    }

    /// Returns a root whose parts are images.
    pub(super) async fn of_root(&self, root: &Root) -> Result<ImageRoot, Error> {
        let (images, root) = (self.clone(), root.clone());
        let work = move || images.translate(root);
        tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)?
    }

    fn translate(&self, mut root: Root) -> Result<ImageRoot, Error> {
        if let Some(directory) = &mut root.directory {
            *directory = self.of_path(directory)?;
        }
        root.directory = root.image.take().or(root.directory);
        for layer in &mut root.layers {
            *layer = self.of_path(layer)?;
        }
        let mut files = Vec::new();
        for bind in &mut root.binds {
            files.push(!fs::metadata(&bind.source).is_ok_and(|found| found.is_dir()));
            bind.source = self.of_path(&bind.source)?;
        }
        let root = ImageRoot { root, files };
        let count = root.images().len();
        if count > DISKS_MAX {
            let reason = format!("a machine has at most {DISKS_MAX} disks beside the guest's root");
            return Err(Error::invalid("root", format!("{count} folders"), reason));
        }
        Ok(root)
    }

    /// Returns the image of a folder, or of a folder with a file under the name [`FILE`].
    fn of_path(&self, path: &Path) -> Result<PathBuf, Error> {
        let failed = |source| Error::failed("looking at a part of the root", path, source);
        let path = fs::canonicalize(path).map_err(failed)?;
        let mut digest = Sha256::new();
        describe(&path, OsStr::new(""), &mut digest).map_err(failed)?;
        let mut name = String::new();
        for byte in digest.finalize() {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        let image = self.folder.join(format!("{name}.erofs"));
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !image.exists() {
            self.make(&path, &image)?;
        }
        Ok(image)
    }

    fn make(&self, path: &Path, image: &Path) -> Result<(), Error> {
        let failed = |source| Error::failed("making an image of a root", path, source);
        let unfinished = Unfinished(self.unfinished("image"));
        let staged;
        let source = if path.is_dir() {
            path
        } else {
            staged = Unfinished(self.unfinished("folder"));
            fs::create_dir(&staged.0).map_err(failed)?;
            fs::copy(path, staged.0.join(FILE)).map_err(failed)?;
            &staged.0
        };
        let mut command = Command::new(MAKER);
        command.args(["-T0", "--quiet"]).arg(&unfinished.0).arg(source);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| Error::Unavailable {
            what: "a maker of images",
            why: format!("{MAKER}: {error}"),
            remedy: "install erofs-utils",
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let end: String = text.chars().take(500).collect();
            return Err(failed(io::Error::other(format!("{MAKER}: {}: {end}", output.status))));
        }
        fs::rename(&unfinished.0, image).map_err(failed)
    }

    fn unfinished(&self, kind: &str) -> PathBuf {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{UNFINISHED}{}-{number}-{kind}", std::process::id()))
    }

    /// Removes what ended hosts have begun to make.
    pub(super) fn sweep(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::failed("reading a folder of images", &*self.folder, source);
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(UNFINISHED) else { continue };
            let process = rest.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(process).exists() {
                drop(Unfinished(path.clone()));
                removed.push(path.display().to_string());
            }
        }
        Ok(removed)
    }
}

/// A root whose folder, layers and binds are images of the host.
#[derive(Debug)]
pub(super) struct ImageRoot {
    root: Root,
    /// Of each bind, whether it is a file: then the image holds it under the name [`FILE`].
    files: Vec<bool>,
}

impl ImageRoot {
    /// Returns the images in order, each once.
    pub(super) fn images(&self) -> Vec<PathBuf> {
        let binds = self.root.binds.iter().map(|bind| &bind.source);
        let mut images: Vec<PathBuf> = Vec::new();
        for image in self.root.directory.iter().chain(&self.root.layers).chain(binds) {
            if !images.contains(image) {
                images.push(image.clone());
            }
        }
        images
    }

    /// Returns the root as a guest sees it that has the images at these places.
    pub(super) fn inside(self, place: impl Fn(&Path) -> PathBuf) -> Root {
        let Self { mut root, files } = self;
        for path in root.directory.iter_mut().chain(&mut root.layers) {
            *path = place(path);
        }
        for (bind, is_file) in root.binds.iter_mut().zip(files) {
            bind.source = place(&bind.source);
            if is_file {
                bind.source.push(FILE);
            }
        }
        root
    }
}

/// Adds a file, or a folder with all that is in it, to a digest.
fn describe(path: &Path, name: &OsStr, digest: &mut Sha256) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    digest.update(name.as_bytes());
    digest.update([0]);
    for number in identity(&found) {
        digest.update(number.to_le_bytes());
    }
    if found.is_symlink() {
        digest.update(fs::read_link(path)?.as_os_str().as_bytes());
    }
    digest.update([0]);
    if found.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            describe(&path.join(&name), &name, digest)?;
        }
        // A folder's end, so that moving a file out of it changes the digest.
        digest.update([1]);
    }
    Ok(())
}

/// Returns what changes with a file's content, mode or owner. A folder's size and times are left
/// out, because they change with the names in it, which are in the digest.
fn identity(found: &Metadata) -> [u64; 7] {
    let [size, seconds, nanoseconds, inode] = if found.is_dir() {
        [0; 4]
    } else {
        let times = [found.mtime(), found.mtime_nsec()].map(i64::cast_unsigned);
        [found.size(), times[0], times[1], found.ino()]
    };
    let owner = u64::from(found.uid()) << 32 | u64::from(found.gid());
    [u64::from(found.mode()), owner, found.rdev(), size, seconds, nanoseconds, inode]
}

/// A file or folder that is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.0.is_dir() {
            drop(fs::remove_dir_all(&self.0));
        } else {
            drop(fs::remove_file(&self.0));
        }
    }
}

const MAKER: &str = "mkfs.erofs";
/// The name of a file in the image that is made for it alone.
const FILE: &str = "file";
const UNFINISHED: &str = "unfinished-";
/// Disks beside the guest's root.
pub(super) const DISKS_MAX: usize = 13;
