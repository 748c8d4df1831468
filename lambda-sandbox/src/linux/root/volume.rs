//! Volumes: writable folders in memory, limited in size, that a sandbox writes and the host reads.
//!
//! A volume is a tmpfs in a mount namespace without processes. The kernel frees it with the last
//! descriptor, even if the host is killed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::mount::MsFlags;

use crate::Error;
use crate::linux::features::Rights;
use crate::linux::instance::Instance;
use crate::linux::root::detached::{apart, copy_of_root, make_root, own_tmpfs};

/// A writable folder in memory. Clones refer to the same folder. Several sandboxes can use it, one
/// after another or at once.
///
/// Bytes that a sandbox writes count towards that sandbox's memory limit. Files that the host wrote
/// belong to root, and every user inside may change them. Files that a sandbox wrote belong to that
/// sandbox's user: the next sandbox may remove them, and may read or change them only as their mode
/// permits. No content is trusted: [`Volume::read`] follows no link, opens regular files only, and
/// reads no more than its limit.
///
/// Volumes need root: an unprivileged process cannot move a mount to another namespace.
#[derive(Debug, Clone)]
pub struct Volume(Arc<Held>);

#[derive(Debug)]
struct Held {
    namespace: OwnedFd,
    folder: OwnedFd,
}

/// A file or folder in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The path relative to the volume.
    pub path: PathBuf,
    /// The size in bytes of a regular file; 0 for everything else.
    pub bytes: u64,
    /// Whether it is a regular file. [`Volume::read`] refuses everything else.
    pub is_file: bool,
}

impl Volume {
    /// Creates an empty volume that holds at most `bytes_max` bytes and `files_max` files. Blocks
    /// for less than a millisecond.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `bytes_max` is less than a page of 4,096 bytes or `files_max` is 0,
    /// [`Error::Unavailable`] without root.
    pub fn new(bytes_max: u64, files_max: u64) -> Result<Self, Error> {
        if bytes_max < PAGE_BYTES || files_max == 0 || bytes_max > i64::MAX.unsigned_abs() {
            let value = format!("{bytes_max} bytes, {files_max} files");
            return Err(Error::invalid(
                "volume",
                value,
                "at least a page of 4,096 bytes and a file",
            ));
        }
        if Rights::own() != Rights::Root {
            return Err(Self::unavailable());
        }
        let files = files_max.saturating_add(1);
        let options = format!("size={bytes_max},nr_inodes={files},mode=777");
        let held = apart("sandbox-volume", move || {
            let stage = Instance::stage();
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let namespace = own_tmpfs(&stage, flags, &options)?;
            make_root(&stage)?;
            let folder =
                File::open("/").map_err(|source| Error::failed("opening a volume", "/", source))?;
            Ok(Held { folder: folder.into(), namespace })
        })?;
        Ok(Self(Arc::new(held)))
    }

    /// Writes a file that every user inside may read, change and execute. Creates missing folders
    /// on the way, and replaces an existing file.
    ///
    /// # Errors
    ///
    /// If the path leads out of the volume or through a file, or if the volume is full.
    pub fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> Result<(), Error> {
        let path = plain(path.as_ref())?;
        let failed = |source| Error::failed("writing to a volume", path, source);
        let mut folder = PathBuf::new();
        for part in path.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            self.make_folder(&folder).map_err(failed)?;
        }
        // Whatever the sandbox left at this path is replaced.
        self.remove(path).map_err(failed)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let mut file = self.open(path, flags, 0o777).map_err(failed)?;
        nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o777))
            .map_err(|errno| failed(errno.into()))?;
        file.write_all(content).map_err(failed)
    }

    /// Reads a regular file of at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// If the file does not exist, is not a regular file, or is larger.
    pub fn read(&self, path: impl AsRef<Path>, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let path = plain(path.as_ref())?;
        let failed = |source| Error::failed("reading from a volume", path, source);
        let file = self.open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let mut content = Vec::new();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut content).map_err(failed)?;
        if content.len() > bytes_max {
            return Err(failed(io::Error::from_raw_os_error(libc::EFBIG)));
        }
        Ok(content)
    }

    /// Lists at most `entries_max` files and folders of the volume, recursively, sorted by path.
    ///
    /// # Errors
    ///
    /// If there are more entries, or a folder cannot be read.
    pub fn list(&self, entries_max: usize) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let failed = |source| Error::failed("listing a volume", &folder, source);
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let opened = self.open(here, flags, 0).map_err(failed)?;
            let names = nix::dir::Dir::from_fd(opened.into()).map_err(|it| failed(it.into()))?;
            for entry in names {
                let entry = entry.map_err(|errno| failed(errno.into()))?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                if found.len() >= entries_max {
                    return Err(failed(io::Error::from_raw_os_error(libc::E2BIG)));
                }
                let path = folder.join(std::ffi::OsStr::from_bytes(name));
                let look = self.open(&path, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(failed)?;
                let metadata = look.metadata().map_err(failed)?;
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                let is_file = metadata.is_file();
                found.push(Entry {
                    path,
                    bytes: if is_file { metadata.len() } else { 0 },
                    is_file,
                });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(in crate::linux) fn unavailable() -> Error {
        Error::Unavailable {
            what: "a volume",
            why: "without root nobody can hand a mount to another namespace".into(),
            remedy: "run the host as root, or take a writable bind",
        }
    }

    /// Returns a detached copy of the volume's mount.
    pub(in crate::linux) fn mount(&self) -> Result<OwnedFd, Error> {
        let namespace = self.0.namespace.try_clone();
        let namespace = namespace.map_err(|source| Error::step("copying a descriptor", source))?;
        copy_of_root(namespace)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let above = self.above(path)?;
        let name = CString::new(path.file_name().unwrap_or_default().as_bytes())?;
        // SAFETY: mkdirat reads the NUL-terminated name, alive for the call; the descriptor is
        // open.
        let made = unsafe { libc::mkdirat(above.as_raw_fd(), name.as_ptr(), 0o777) };
        match made {
            0 => {
                let folder = self.open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                let all = nix::sys::stat::Mode::from_bits_truncate(0o777);
                nix::sys::stat::fchmod(&folder, all).map_err(Into::into)
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                error => Err(error),
            },
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let above = self.above(path)?;
        let name = path.file_name().unwrap_or_default();
        match nix::unistd::unlinkat(&above, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens the parent folder of a path.
    fn above(&self, path: &Path) -> io::Result<File> {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        self.open(above.unwrap_or_else(|| Path::new(".")), libc::O_PATH, 0)
    }

    /// Opens a path in the volume and follows no link (openat2(2)).
    fn open(&self, path: &Path, flags: i32, mode: u64) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = (flags | libc::O_CLOEXEC).cast_unsigned();
        let how = [u64::from(flags), mode, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS];
        let (folder, size) = (self.0.folder.as_raw_fd(), size_of_val(&how));
        for _ in 0..TRIES {
            // SAFETY: openat2 reads the NUL-terminated path and an `open_how` of three words, both
            // alive for the call.
            let opened = unsafe {
                libc::syscall(libc::SYS_openat2, folder, path.as_ptr(), how.as_ptr(), size)
            };
            if let Ok(file @ 0..) = i32::try_from(opened) {
                // SAFETY: the descriptor was made above and nobody else owns it.
                return Ok(unsafe { File::from_raw_fd(file) });
            }
            // EAGAIN: a rename raced with the lookup.
            if io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                break;
            }
        }
        Err(io::Error::last_os_error())
    }
}

/// Checks that a path is relative, not empty, and has no `.` or `..` component.
fn plain(path: &Path) -> Result<&Path, Error> {
    let down = path.components().all(|part| matches!(part, Component::Normal(_)));
    if down && !path.as_os_str().is_empty() && !path.as_os_str().as_bytes().contains(&0) {
        Ok(path)
    } else {
        let reason = "a path in a volume is relative, and has no '.' and '..'";
        Err(Error::invalid("volume path", path.display().to_string(), reason))
    }
}

const PAGE_BYTES: u64 = 4096;
/// Attempts at a lookup that renames by others disturb.
const TRIES: usize = 1000;
