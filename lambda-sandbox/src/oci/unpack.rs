//! Unpacks the tar stream of a layer into a folder, with whiteouts in the form of overlayfs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};

use super::broken;
use super::limits::ImageLimits;
use crate::Error;

/// The most components of a path.
const DEPTH_MAX: usize = 128;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// The state of unpacking one layer.
pub(super) struct Unpacker {
    root: OwnedFd,
    limits: ImageLimits,
    entries: u64,
    bytes: u64,
    left_out: u64,
}

impl Unpacker {
    pub(super) fn new(folder: &Path, limits: ImageLimits) -> Result<Self, Error> {
        let root = File::open(folder)
            .map_err(|source| Error::failed("unpacking a layer", folder, source))?;
        Ok(Self { root: root.into(), limits, entries: 0, bytes: 0, left_out: 0 })
    }

    /// Returns the number of devices, pipes and sockets that were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Returns the number of entries that were read.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn unpack(&mut self, tar: impl Read) -> Result<(), Error> {
        let not_tar = |error: io::Error| broken("a layer", error.to_string());
        let mut archive = Archive::new(tar);
        for entry in archive.entries().map_err(not_tar)? {
            let mut entry = entry.map_err(not_tar)?;
            self.entries += 1;
            if self.entries > self.limits.layer_entries_max {
                let why = format!("a layer of more than {} entries", self.limits.layer_entries_max);
                return Err(broken("a layer", why));
            }
            let path = inside(&entry.path().map_err(not_tar)?)?;
            self.entry(&mut entry, &path).map_err(|error| match error {
                // Errors in the archive are the image's. System errors, such as a full disk, are
                // not.
                Failure::Archive(why) => broken(path.display().to_string(), why),
                Failure::System(source) => Error::failed("unpacking a layer", &path, source),
            })?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), Failure> {
        let header = entry.header();
        let mode = Mode::from_bits_truncate(header.mode()? & 0o1777);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(header.mtime()?.min(TIME_MAX));
        let Some(name) = path.file_name() else {
            return fchmod(&self.root, mode | Mode::from_bits_truncate(0o555)).map_err(Into::into);
        };
        let above = self.folders(path.parent().unwrap_or_else(|| Path::new("")))?;
        if let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(".wh.")) {
            return whiteout(&above, hidden);
        }
        match header.entry_type() {
            EntryType::Directory => {
                make_folder(&above, name)?;
                let folder = self.open(path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
                fchmod(&folder, mode)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_way(&above, name)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let how = how(flags).mode(Mode::from_bits_truncate(0o600));
                let mut file = File::from(openat2(&above, name, how)?);
                // A sparse file is longer than its data in the archive.
                let left = self.limits.layer_bytes_max - self.bytes;
                let written = io::copy(&mut entry.take(left.saturating_add(1)), &mut file)?;
                if written > left {
                    return Err(Failure::Archive("its files are larger than a layer may be"));
                }
                self.bytes += written;
                fchmod(&file, mode)?;
                file.set_modified(modified)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(Failure::Archive("a link to nowhere"))?;
                make_way(&above, name)?;
                symlinkat(&*target, &above, name)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(Failure::Archive("a link to nowhere"))?;
                let target =
                    inside(&target).map_err(|_| Failure::Archive("a link that leads out"))?;
                let other = target.file_name().ok_or(Failure::Archive("a link to the root"))?;
                let folder = target.parent().unwrap_or_else(|| Path::new(""));
                let from = self.open(folder, OFlag::O_DIRECTORY)?;
                make_way(&above, name)?;
                linkat(&from, other, &above, name, AtFlags::empty())?;
            }
            EntryType::XGlobalHeader | EntryType::XHeader => {}
            _ => self.left_out += 1,
        }
        Ok(())
    }

    /// Opens the folder at a path. Creates missing folders on the way.
    fn folders(&self, path: &Path) -> Result<OwnedFd, Failure> {
        match self.open(path, OFlag::O_DIRECTORY) {
            Ok(folder) => return Ok(folder),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut made = PathBuf::new();
        let mut folder = self.open(&made, OFlag::O_DIRECTORY)?;
        for part in path.components() {
            make_folder(&folder, part.as_os_str())?;
            made.push(part);
            folder = self.open(&made, OFlag::O_DIRECTORY)?;
        }
        Ok(folder)
    }

    /// Opens a path with the layer as the root: no link leads out of it (openat2(2),
    /// RESOLVE_IN_ROOT).
    fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(&self.root, path, how(flags | OFlag::O_RDONLY).resolve(resolve))
    }
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC)
}

/// Creates a folder if it does not exist.
fn make_folder(above: &OwnedFd, name: impl AsRef<Path>) -> Result<(), Failure> {
    match mkdirat(above, name.as_ref(), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the file at this name, because the last entry of an archive for a name is the valid one.
fn make_way(above: &OwnedFd, name: impl AsRef<Path>) -> Result<(), Failure> {
    match unlinkat(above, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => Err(Failure::Archive("a folder and a file at once")),
        Err(errno) => Err(errno.into()),
    }
}

/// Hides a name of the lower layers, or all names of the folder, as overlayfs does.
fn whiteout(above: &OwnedFd, hidden: &str) -> Result<(), Failure> {
    match hidden {
        OPAQUE => crate::linux::set_opaque(above.as_fd()).map_err(Failure::System),
        "" | "." | ".." => Err(Failure::Archive("a whiteout of nothing")),
        // Markers of another tool (aufs), which have no meaning here.
        hidden if hidden.starts_with(".wh.") => Ok(()),
        hidden => {
            make_way(above, hidden)?;
            mknodat(above, hidden, SFlag::S_IFCHR, Mode::empty(), 0).map_err(Into::into)
        }
    }
}

/// Returns the path relative to the layer. Fails for `..` and for paths that are too deep or too
/// long.
fn inside(path: &Path) -> Result<PathBuf, Error> {
    let mut found = PathBuf::new();
    let mut depth = 0;
    for part in path.components() {
        match part {
            Component::Normal(name) => found.push(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(broken(path.display().to_string(), "a path that leads out"));
            }
        }
        depth += 1;
    }
    if depth > DEPTH_MAX || found.as_os_str().len() >= PATH_BYTES_MAX {
        let why = format!("deeper than {DEPTH_MAX} folders, or longer than a path can be");
        return Err(broken("a path", why));
    }
    Ok(found)
}

/// Why an entry could not be unpacked.
enum Failure {
    Archive(&'static str),
    System(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The decoders of tar, gzip and zstd report invalid input by these kinds.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => Self::Archive("it is broken or ends too early"),
            _ => Self::System(error),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT | Errno::EEXIST | Errno::ENAMETOOLONG => {
                Self::Archive(errno.desc())
            }
            _ => Self::System(errno.into()),
        }
    }
}

/// The whiteout (without `.wh.`) that hides all names of the folder in lower layers.
const OPAQUE: &str = ".wh..opq";
/// The latest modification time that is stored, in seconds: the end of the year 9999.
const TIME_MAX: u64 = 253_402_300_799;
