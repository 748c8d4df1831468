//! Mounts that are attached to no mount namespace of the host. Threads with a mount namespace of
//! their own make them, and hand them on as descriptors.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// Runs work that changes the namespaces of its thread on a new thread, and returns its result.
pub(in crate::linux) fn apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    let thread = thread.map_err(|source| Error::step("starting a thread", source))?;
    thread.join().unwrap_or(Err(Error::Ended))
}

/// Gives the calling thread a new mount namespace with a new tmpfs at `stage`, and returns the
/// namespace.
pub(in crate::linux) fn own_tmpfs(
    stage: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<OwnedFd, Error> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Error::step("making a mount namespace", errno))?;
    let path = "/proc/thread-self/ns/mnt";
    let namespace = File::open(path)
        .map_err(|source| Error::failed("opening a mount namespace", path, source))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| Error::step("making mounts private", errno))?;
    mount(Some("tmpfs"), stage, Some("tmpfs"), flags, Some(options))
        .map_err(|errno| Error::failed("mounting", stage, errno.into()))?;
    Ok(namespace.into())
}

/// Makes the mount at `stage` the root of the calling thread's mount namespace, and detaches all
/// other mounts of that namespace (pivot_root(2), NOTES).
pub(in crate::linux) fn make_root(stage: &Path) -> Result<(), Error> {
    let pivot = || {
        nix::unistd::chdir(stage)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")
    };
    pivot().map_err(|errno| Error::failed("changing the root", stage, errno.into()))
}

/// Returns a detached copy of the root of another mount namespace. Runs on a thread of its own.
pub(in crate::linux) fn copy_of_root(namespace: OwnedFd) -> Result<OwnedFd, Error> {
    apart("sandbox-mount", move || {
        unshare(CloneFlags::CLONE_FS)
            .map_err(|errno| Error::step("entering a mount namespace", errno))?;
        setns(&namespace, CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Error::step("entering a mount namespace", errno))?;
        copy_of(Path::new("/"))
    })
}

/// Returns a detached copy of the mount at `path` (open_tree(2) with `OPEN_TREE_CLONE`).
pub(in crate::linux) fn copy_of(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |source| Error::failed("copying a mount", path, source);
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|nul| failed(nul.into()))?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: open_tree reads the NUL-terminated path, alive for the call.
    let copy = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    match RawFd::try_from(copy) {
        // SAFETY: the descriptor was made above and nobody else owns it.
        Ok(copy @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
        _ => Err(failed(io::Error::last_os_error())),
    }
}

/// Sets attributes (`MOUNT_ATTR_*`) of a detached mount. `path`, from which it was copied, appears
/// in errors only.
pub(in crate::linux) fn restrict(
    mount: &OwnedFd,
    attributes: u64,
    path: &Path,
) -> Result<(), Error> {
    set(mount, [attributes, 0, libc::MS_PRIVATE, 0], path)
}

/// As [`restrict`], and shows the owners of files as the user namespace `owners` maps them.
pub(in crate::linux) fn restrict_mapped(
    mount: &OwnedFd,
    attributes: u64,
    owners: RawFd,
    path: &Path,
) -> Result<(), Error> {
    let owners = u64::from(owners.cast_unsigned());
    set(mount, [attributes | libc::MOUNT_ATTR_IDMAP, 0, libc::MS_PRIVATE, owners], path)
}

/// Sets a `struct mount_attr`: set, clear, propagation, user namespace. With private propagation
/// a later mount below `path` does not appear in `mount`.
fn set(mount: &OwnedFd, attributes: [u64; 4], path: &Path) -> Result<(), Error> {
    let (empty, size) = (c"".as_ptr(), size_of_val(&attributes));
    let (file, flags) = (mount.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: mount_setattr reads the empty path and a `mount_attr` of four words, both alive for
    // the call.
    let set = unsafe {
        libc::syscall(libc::SYS_mount_setattr, file, empty, flags, attributes.as_ptr(), size)
    };
    if set == 0 {
        Ok(())
    } else {
        Err(Error::failed("setting attributes of a mount", path, io::Error::last_os_error()))
    }
}
