//! Carries out the steps of a start that mount or that create files in the root, all by descriptor.
//! [`carry`](crate::linux::start::carry) carries out the other steps.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::ffi::CStr;
use std::os::fd::RawFd;

use crate::linux::root::inside::{Inside, with};
use crate::linux::start::plan::Step;
use crate::linux::start::raw::{HERE, at, call, write_at};

pub(in crate::linux) fn carry_out(step: &Step) -> libc::c_long {
    match step {
        Step::Image { device, kind, target } => {
            let flags = (libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV) as usize;
            mount_on(target, [at(device), at(kind), flags, 0])
        }
        Step::Mount { kind, target, flags, options } => {
            mount_on(target, [at(kind), at(kind), *flags as usize, at(options)])
        }
        Step::Show { source, target, attributes, whole, owners } => {
            show(source, target, *attributes, *whole, *owners)
        }
        Step::Attributes { target, attributes } => {
            target.with(|place| set_attributes(place, *attributes, 0, None))
        }
        Step::Stay(path) => path.with(|_| 0),
        Step::Attach { mount, target } => target.with(|place| put(*mount as usize, place)),
        Step::Folder(path) => path.in_folder(|folder, name| {
            or_there(call(libc::SYS_mkdirat, [folder, at(name), 0o755, 0, 0]))
        }),
        Step::File(path) => path.in_folder(|folder, name| {
            or_there(call(libc::SYS_mknodat, [folder, at(name), 0o100_644, 0, 0]))
        }),
        Step::Content { path, content, mode } => path.in_folder(|folder, name| {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            write_at(folder, name, flags, *mode, content)
        }),
        Step::Link { points_to, path } => path.in_folder(|folder, name| {
            call(libc::SYS_symlinkat, [at(points_to), folder, at(name), 0, 0])
        }),
        Step::Processes(target) => processes(target),
        Step::Mask { source, name } => {
            let flags = (libc::MS_BIND | libc::MS_REC) as usize;
            call(libc::SYS_mount, [at(source), at(name), 0, flags, 0])
        }
        _not_a_mount => {
            nix::errno::Errno::set_raw(libc::ENOSYS);
            -1
        }
    }
}

fn or_there(result: libc::c_long) -> libc::c_long {
    if result < 0 && nix::errno::Errno::last_raw() == libc::EEXIST { 0 } else { result }
}

/// Mounts a new file system on a path inside. The process enters the folder and mounts on `.`, so
/// that the folder found is the mount point.
fn mount_on(target: &Inside, [source, kind, flags, options]: [usize; 4]) -> libc::c_long {
    let entered = target.with(|place| call(libc::SYS_fchdir, [place, 0, 0, 0, 0]));
    if entered < 0 {
        return entered;
    }
    let mounted = call(libc::SYS_mount, [source, at(c"."), kind, flags, options]);
    // The working directory must not stay below the mount: the next step starts at the root.
    let failed = nix::errno::Errno::last_raw();
    let left = call(libc::SYS_chdir, [at(c"/"), 0, 0, 0, 0]);
    if mounted < 0 {
        nix::errno::Errno::set_raw(failed);
        return mounted;
    }
    left
}

/// Binds a file or folder to a path inside. The attributes are set before the mount is visible.
fn show(
    source: &CStr,
    target: &Inside,
    attributes: u64,
    whole: bool,
    owners: Option<RawFd>,
) -> libc::c_long {
    let recursive = if whole { libc::AT_RECURSIVE as usize } else { 0 };
    let flags = libc::OPEN_TREE_CLONE as usize | libc::OPEN_TREE_CLOEXEC as usize | recursive;
    with(call(libc::SYS_open_tree, [HERE, at(source), flags, 0, 0]), |tree| {
        let mut set = set_attributes(tree, attributes, recursive, owners);
        if set < 0 && owners.is_some() {
            // The file system cannot map owners, or the mount maps them already.
            set = set_attributes(tree, attributes, recursive, None);
        }
        match set {
            0 => target.with(|place| put(tree, place)),
            result => result,
        }
    })
}

fn set_attributes(
    place: usize,
    attributes: u64,
    recursive: usize,
    owners: Option<RawFd>,
) -> libc::c_long {
    let (mapped, owners) = match owners {
        Some(owners) => (libc::MOUNT_ATTR_IDMAP, owners as u64),
        None => (0, 0),
    };
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attributes: [u64; 4] = [attributes | mapped, 0, 0, owners];
    let flags = libc::AT_EMPTY_PATH as usize | recursive;
    call(libc::SYS_mount_setattr, [place, at(c""), flags, attributes.as_ptr().addr(), 32])
}

/// Attaches a detached mount at an open path (move_mount(2)).
fn put(mount: usize, place: usize) -> libc::c_long {
    const BY_DESCRIPTORS: usize = 0x04 | 0x40;
    let put = call(libc::SYS_move_mount, [mount, at(c""), place, at(c""), BY_DESCRIPTORS]);
    // For a folder on a file, or the reverse, the kernel says only EINVAL. ENOTDIR names the cause.
    if put < 0
        && nix::errno::Errno::last_raw() == libc::EINVAL
        && is_folder(mount) != is_folder(place)
    {
        nix::errno::Errno::set_raw(libc::ENOTDIR);
    }
    put
}

fn is_folder(file: usize) -> bool {
    let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat fills the `stat` behind the pointer, which lives for the call; the descriptor
    // is open.
    let told = unsafe { libc::fstat(file as libc::c_int, found.as_mut_ptr()) };
    // SAFETY: all zero is a valid `stat`, whether the call has filled it or not.
    let mode = unsafe { found.assume_init() }.st_mode;
    let failed = nix::errno::Errno::last_raw();
    nix::errno::Errno::set_raw(if told < 0 { failed } else { libc::EINVAL });
    mode & libc::S_IFMT == libc::S_IFDIR
}

/// Mounts `/proc` and makes it the working directory. The steps that mask its entries name them
/// relative to it, and so act on this mount only.
fn processes(target: &Inside) -> libc::c_long {
    const CREATE: usize = 6;
    let cloexec = 1;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    with(call(libc::SYS_fsopen, [at(c"proc"), cloexec, 0, 0, 0]), |system| {
        let made = call(libc::SYS_fsconfig, [system, CREATE, 0, 0, 0]);
        if made < 0 {
            return made;
        }
        let mount = call(libc::SYS_fsmount, [system, cloexec, attributes as usize, 0, 0]);
        with(mount, |mount| match target.with(|place| put(mount, place)) {
            0 => call(libc::SYS_fchdir, [mount, 0, 0, 0, 0]),
            result => result,
        })
    })
}
