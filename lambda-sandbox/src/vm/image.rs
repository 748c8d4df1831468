//! Images of a root's folders, which guests mount as disks. An image is made once for a folder and
//! kept in a cache, under a digest of the names, sizes, times, modes and owners of its files.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{self as unix, DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::unfinished::{self, Unfinished};
use crate::{Error, Root};

/// The cache of images.
#[derive(Debug, Clone)]
pub(super) struct Images {
    folder: Arc<Path>,
    /// Held while an image is made, so that each is made once.
    making: Arc<Mutex<()>>,
}

impl Images {
    /// Opens the cache, and makes its folder.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::failed("making a folder for images", folder, source))?;
        Ok(Self { folder: folder.into(), making: Arc::default() })
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
        let parts: Vec<Part> =
            root.binds.iter().map(|bind| Part::of(&bind.source)).collect::<Result<_, _>>()?;
        // The last bind is what differs from one function to the next.
        let shared = parts.split_last().map_or(&[][..], |(_, others)| others);
        let small: Vec<&Part> = shared.iter().filter(|part| part.is_small()).collect();
        let common = if small.len() > 1 { Some(self.of_parts(&small)?) } else { None };
        let (mut within, mut in_common) = (Vec::new(), 0..);
        for ((bind, part), at) in root.binds.iter_mut().zip(&parts).zip(0..) {
            match common.as_ref().filter(|_| at < shared.len() && part.is_small()) {
                Some(common) => {
                    bind.source.clone_from(common);
                    within.push(PathBuf::from(in_common.next().unwrap_or(0).to_string()));
                }
                None if part.is_folder => {
                    bind.source = self.of_path(&part.path)?;
                    within.push(PathBuf::new());
                }
                None => {
                    bind.source = self.of_parts(&[part])?;
                    within.push(PathBuf::from("0"));
                }
            }
        }
        let root = ImageRoot { root, within };
        let count = root.images().len();
        if count > DISKS_MAX {
            let reason = format!("a machine has at most {DISKS_MAX} disks beside the guest's root");
            return Err(Error::invalid("root", format!("{count} folders"), reason));
        }
        Ok(root)
    }

    /// Returns the image of a folder.
    fn of_path(&self, path: &Path) -> Result<PathBuf, Error> {
        let part = Part::of(path)?;
        self.find(part.digest, |image| self.make(&part.path, image))
    }

    /// Returns the image of files and folders together, which have numbers as their names in it.
    fn of_parts(&self, parts: &[&Part]) -> Result<PathBuf, Error> {
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part.digest));
        digest.update([parts.len().to_le_bytes()[0], 2]);
        self.find(digest.finalize().into(), |image| {
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| Error::failed("copying a part of the root", path, source)
            };
            let staged =
                Unfinished::folder(&self.folder, "folder").map_err(failed(&self.folder))?;
            for (part, number) in parts.iter().zip(0_u32..) {
                let to = staged.path.join(number.to_string());
                copy(&part.path, &to).map_err(failed(&part.path))?;
            }
            self.make(&staged.path, image)
        })
    }

    /// Returns the image with this digest, which is made if it is not there.
    fn find(
        &self,
        digest: [u8; 32],
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let image = self.folder.join(format!("{}.erofs", hexadecimal(&digest)));
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !image.exists() {
            make(&image)?;
        }
        Ok(image)
    }

    fn make(&self, source: &Path, image: &Path) -> Result<(), Error> {
        let failed = |error| Error::failed("making an image of a root", source, error);
        let unfinished = Unfinished::file(&self.folder, "image").map_err(failed)?;
        let mut command = Command::new(MAKER);
        command.args(["-T0", "--quiet"]).arg(&unfinished.path).arg(source);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| no_maker(format!("{MAKER}: {error}")))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let end: String = text.chars().take(500).collect();
            return Err(failed(io::Error::other(format!("{MAKER}: {}: {end}", output.status))));
        }
        fs::rename(&unfinished.path, image).map_err(failed)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what ended hosts have begun to make.
    pub(super) fn sweep(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::failed("reading a folder of images", &*self.folder, source);
        unfinished::sweep(&self.folder).map_err(failed)
    }
}

/// Returns an error if the program that makes images is not there.
pub(super) fn missing_maker() -> Option<Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(MAKER).is_file());
    (!is_there).then(|| no_maker(format!("{MAKER} is not on the path")))
}

fn no_maker(why: String) -> Error {
    Error::Unavailable { what: "a maker of images", why, remedy: "install erofs-utils" }
}

/// A root whose folder, layers and binds are images of the host.
#[derive(Debug)]
pub(super) struct ImageRoot {
    root: Root,
    /// Where each bind is in its image.
    within: Vec<PathBuf>,
}

/// A file or folder of the host.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    is_folder: bool,
    digest: [u8; 32],
    /// The sizes of its files together.
    bytes: u64,
    count: u32,
}

impl Part {
    fn of(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::failed("looking at a part of the root", path, source);
        let path = fs::canonicalize(path).map_err(failed)?;
        let is_folder = fs::metadata(&path).map_err(failed)?.is_dir();
        let mut part = Self { path, is_folder, digest: [0; 32], bytes: 0, count: 0 };
        let (path, mut digest) = (part.path.clone(), Sha256::new());
        part.describe(&path, OsStr::new(""), &mut digest).map_err(failed)?;
        part.digest = digest.finalize().into();
        Ok(part)
    }

    /// Returns whether it goes into one image together with others.
    fn is_small(&self) -> bool {
        self.bytes <= SMALL_BYTES && self.count <= SMALL_COUNT
    }

    /// Adds a file, or a folder with all that is in it, to a digest.
    fn describe(&mut self, path: &Path, name: &OsStr, digest: &mut Sha256) -> io::Result<()> {
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
        self.count += 1;
        self.bytes += if found.is_file() { found.size() } else { 0 };
        if found.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort();
            for name in names {
                self.describe(&path.join(&name), &name, digest)?;
            }
            // A folder's end, so that moving a file out of it changes the digest.
            digest.update([1]);
        }
        Ok(())
    }
}

/// Copies a file, or a folder with all that is in it, with owners and modes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_symlink() {
        unix::symlink(fs::read_link(from)?, to)?;
    } else if found.is_dir() {
        fs::DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        fs::set_permissions(to, found.permissions())?;
    } else if found.is_file() {
        fs::copy(from, to)?;
    } else {
        return Err(io::Error::other(format!("{} is a special file", from.display())));
    }
    match unix::lchown(to, Some(found.uid()), Some(found.gid())) {
        // A host without root owns its copies itself.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        changed => changed,
    }
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
        let Self { mut root, within } = self;
        for path in root.directory.iter_mut().chain(&mut root.layers) {
            *path = place(path);
        }
        for (bind, within) in root.binds.iter_mut().zip(within) {
            bind.source = place(&bind.source);
            if !within.as_os_str().is_empty() {
                bind.source.push(within);
            }
        }
        root
    }
}

/// Returns what changes with a file's content, mode or owner. A folder's size and times are left
/// out, because they change with the names in it, which are in the digest.
pub(super) fn identity(found: &Metadata) -> [u64; 7] {
    let [size, seconds, nanoseconds, inode] = if found.is_dir() {
        [0; 4]
    } else {
        let times = [found.mtime(), found.mtime_nsec()].map(i64::cast_unsigned);
        [found.size(), times[0], times[1], found.ino()]
    };
    let owner = u64::from(found.uid()) << 32 | u64::from(found.gid());
    [u64::from(found.mode()), owner, found.rdev(), size, seconds, nanoseconds, inode]
}

pub(super) fn hexadecimal(digest: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

const MAKER: &str = "mkfs.erofs";
/// Files and folders up to this size share an image: each image takes one of a machine's disks.
const SMALL_BYTES: u64 = 8 << 20;
const SMALL_COUNT: u32 = 4096;
/// Disks beside the guest's root.
pub(super) const DISKS_MAX: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    fn images(folder: &Path) -> Images {
        Images::open(&folder.join("images")).expect("a cache")
    }

    fn file(path: &Path, content: &[u8]) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// Makes images of a root, or `None` if there is no program for that.
    fn translated(images: &Images, root: &Root) -> Option<ImageRoot> {
        match images.translate(root.clone()) {
            Err(Error::Unavailable { why, .. }) => {
                test_support::left_out("images of roots", &why);
                None
            }
            made => Some(made.expect("images")),
        }
    }

    #[test]
    fn small_parts_share_an_image_and_the_last_has_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["etc/hosts", "etc/ssl/certs/a", "etc/ssl/certs/b", "code/bootstrap"] {
            file(&at(name), name.as_bytes());
        }
        unix::symlink("a", at("etc/ssl/certs/link")).expect("a link");
        fs::create_dir_all(at("large")).expect("made");
        let large = fs::File::create(at("large/file")).expect("made");
        large.set_len(SMALL_BYTES + 1).expect("sized");
        let images = images(folder.path());
        let root = Root::empty()
            .with_bind(at("large"), "/usr")
            .with_bind(at("etc/hosts"), "/etc/hosts")
            .with_bind(at("etc/ssl"), "/etc/ssl")
            .with_bind(at("code"), "/var/task");
        let Some(made) = translated(&images, &root) else { return };
        let disks = made.images();
        assert_eq!(disks.len(), 3, "the large folder, the small ones, the code: {disks:?}");
        let number = |image: &Path| disks.iter().position(|disk| disk == image).expect("a disk");
        let inside = made.inside(|image| PathBuf::from(format!("/{}", number(image))));
        let sources: Vec<_> = inside.binds.iter().map(|bind| bind.source.clone()).collect();
        assert_eq!(sources, ["/0", "/1/0", "/1/1", "/2"].map(PathBuf::from));
        // Another function: all but its code are there already.
        file(&at("other/bootstrap"), b"other");
        let mut other = root.clone();
        other.binds[3].source = at("other");
        let again = translated(&images, &other).expect("a maker").images();
        assert_eq!((&again[..2], again[2] == disks[2]), (&disks[..2], false));
        // A change of a small file makes another image.
        file(&at("etc/hosts"), b"changed");
        let changed = translated(&images, &root).expect("a maker").images();
        assert!(changed[1] != disks[1] && changed[0] == disks[0]);
    }

    #[test]
    fn a_root_of_this_machine_fits() {
        let root = Root::of_machine().with_bind("/etc/hostname", "/var/task");
        let small = |path: &Path| Part::of(path).is_ok_and(|part| part.is_small());
        let (last, others) = root.binds.split_last().expect("binds");
        assert_eq!(last.target, Path::new("/var/task"));
        let large = others.iter().filter(|bind| !small(&bind.source)).count();
        assert!(large + 2 <= DISKS_MAX, "{large} large folders");
    }
}
