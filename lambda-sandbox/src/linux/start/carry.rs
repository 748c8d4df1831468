//! Carries out the steps of a new process, between clone and exec. The process still shares the
//! host's memory, so nothing here allocates, takes a lock or returns to the host's code.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

use std::ffi::CStr;
use std::io;
use std::path::PathBuf;

use crate::Error;
use crate::linux::root::inside::{open_in_root, with};
use crate::linux::root::mounts;
use crate::linux::start::plan::Step;
use crate::linux::start::raw::{HERE, NULL, at, call, write_at};

/// Returns the error for a step that failed. Runs in the host after the new process has ended.
pub(in crate::linux) fn failure(step: &Step, source: io::Error) -> Error {
    if source.raw_os_error() == Some(libc::ENODEV)
        && let Step::Image { kind, .. } | Step::Mount { kind, .. } = step
    {
        return Error::Unavailable {
            what: "the root's file system",
            why: format!("the kernel has no {}", kind.to_string_lossy()),
            remedy: "load its module, or take a folder as the root",
        };
    }
    if source.raw_os_error() == Some(libc::EPERM) && matches!(step, Step::HostName(_)) {
        return Error::Unavailable {
            what: "a host name of the sandbox's own",
            why: "a system call filter, as a container has one, refuses sethostname".to_owned(),
            remedy: "start the container with a filter that has sethostname (docker or podman run --security-opt \
                     seccomp=unconfined)",
        };
    }
    match name(step) {
        (step, Some(path)) => Error::failed(step, path, source),
        (step, None) => Error::step(step, source),
    }
}

/// Returns the step's name and path for error messages.
fn name(step: &Step) -> (&'static str, Option<PathBuf>) {
    let path = |text: &CStr| Some(PathBuf::from(text.to_string_lossy().into_owned()));
    match step {
        Step::JoinGroup { path: tasks, .. } => ("joining a control group", path(tasks)),
        Step::MapIds { .. } => ("writing the user's map", None),
        Step::DropBounding => ("giving up capabilities", None),
        Step::BringUpLoopback => ("bringing up the loopback", None),
        Step::Listen(..) => ("listening inside the sandbox", None),
        Step::EnterNetwork(_) => ("entering the network namespace", None),
        Step::EnterIpc(_) => ("entering the ipc namespace", None),
        Step::HideGroups => ("making a cgroup namespace", None),
        Step::EnterRoot(_) => ("taking a copy of the mounted root", None),
        Step::OwnTime(_) => ("making a time namespace", None),
        Step::PrivateMounts => ("making mounts private", None),
        Step::Image { device, .. } => ("mounting the root's image", path(device)),
        Step::Mount { target, .. } => ("mounting", Some(target.path())),
        Step::Show { source, .. } => ("showing a file or folder", path(source)),
        Step::Attributes { target, .. } => ("making a mount read-only", Some(target.path())),
        Step::Stay(inside) => ("looking where a path inside leads", Some(inside.path())),
        Step::Folder(folder) => ("making a folder", Some(folder.path())),
        Step::File(file) => ("making a file", Some(file.path())),
        Step::Content { path: file, .. } => ("writing a file", Some(file.path())),
        Step::Link { path: link, .. } => ("making a link", Some(link.path())),
        Step::Processes(target) => ("mounting", Some(target.path())),
        Step::Mask { name, .. } => ("hiding a part of /proc", path(name)),
        Step::Attach { target, .. } => ("attaching a mount", Some(target.path())),
        Step::Pivot(root) => ("changing the root", path(root)),
        Step::Limit(..) | Step::SoftLimit(..) => ("setting a limit", None),
        Step::Quota { path: file, .. } => ("setting a limit", path(file)),
        Step::HostName(_) => ("setting the host name", None),
        Step::NullInput => ("opening the null device", Some(PathBuf::from("/dev/null"))),
        Step::GoTo(folder) => ("going to the working directory", path(folder)),
        Step::Rules { .. } => ("making landlock's rules", None),
        Step::Allow { path: below, .. } => ("making landlock's rule", path(below)),
    }
}

pub(in crate::linux) fn carry_out(step: &Step) -> libc::c_long {
    match step {
        Step::JoinGroup { tasks, .. } => {
            call(libc::SYS_write, [*tasks as usize, at(c"0"), 1, 0, 0])
        }
        Step::MapIds { user, group } => map_ids(user, group),
        Step::DropBounding => drop_bounding(),
        Step::BringUpLoopback => bring_up_loopback(),
        Step::Listen(port, to) => listen(*port, *to),
        Step::EnterNetwork(file) => enter(*file, libc::CLONE_NEWNET),
        Step::EnterIpc(file) => enter(*file, libc::CLONE_NEWIPC),
        Step::HideGroups => {
            let kind = libc::CLONE_NEWCGROUP as usize;
            call(libc::SYS_unshare, [kind, 0, 0, 0, 0])
        }
        Step::EnterRoot(file) => enter_root(*file),
        Step::PrivateMounts => {
            let flags = (libc::MS_REC | libc::MS_PRIVATE) as usize;
            call(libc::SYS_mount, [0, at(c"/"), 0, flags, 0])
        }
        Step::Pivot(root) => pivot(root),
        Step::Limit(resource, value) => {
            let limit = [*value, *value];
            let address = limit.as_ptr().addr();
            call(libc::SYS_prlimit64, [0, *resource as usize, address, 0, 0])
        }
        Step::SoftLimit(resource, soft, hard) => {
            let limit = [*soft, *hard];
            let address = limit.as_ptr().addr();
            call(libc::SYS_prlimit64, [0, *resource as usize, address, 0, 0])
        }
        Step::Quota { path, value } => {
            let written = write_to(path, libc::O_WRONLY, value);
            // The old value stays if the kernel lacks the file, refuses to write it, or rejects the
            // value.
            let kept = [libc::ENOENT, libc::EROFS, libc::EACCES, libc::EPERM, libc::EINVAL];
            let kept = written < 0 && kept.contains(&nix::errno::Errno::last_raw());
            if kept { 0 } else { written }
        }
        Step::HostName(name) => {
            let length = name.as_bytes().len();
            call(libc::SYS_sethostname, [at(name), length, 0, 0, 0])
        }
        Step::GoTo(folder) => {
            with(open_in_root(folder), |folder| call(libc::SYS_fchdir, [folder, 0, 0, 0, 0]))
        }
        Step::NullInput => null_input(),
        Step::OwnTime(offsets) => {
            let kind = libc::CLONE_NEWTIME as usize;
            match call(libc::SYS_unshare, [kind, 0, 0, 0, 0]) {
                0 => write_to(c"/proc/self/timens_offsets", libc::O_WRONLY, offsets),
                result => result,
            }
        }
        Step::Rules { handled, scoped } => begin_rules(*handled, *scoped),
        Step::Allow { path, rights } => allow(path, *rights),
        mount => mounts::carry_out(mount),
    }
}

fn write_to(path: &CStr, flags: i32, content: &[u8]) -> libc::c_long {
    write_at(HERE, path, flags, 0, content)
}

fn null_input() -> libc::c_long {
    let flags = (libc::O_RDWR | libc::O_CLOEXEC) as usize;
    with(call(libc::SYS_openat, [HERE, at(c"/dev/null"), flags, 0, 0]), |file| {
        let place = NULL as usize;
        match call(libc::SYS_dup3, [file, place, libc::O_CLOEXEC as usize, 0, 0]) {
            0.. => 0,
            refused => refused,
        }
    })
}

/// The descriptor of landlock's ruleset: the first number after the five given descriptors. The
/// descriptors that the spawn thread keeps or receives have numbers of 15 and above.
const RULES: usize = 5;

fn begin_rules(handled: u64, scoped: u64) -> libc::c_long {
    // `struct landlock_ruleset_attr`: files, network, scopes. Kernels without the last two accept
    // them if they are 0.
    let attributes = [handled, 0, scoped];
    let address = attributes.as_ptr().addr();
    let made =
        call(libc::SYS_landlock_create_ruleset, [address, size_of_val(&attributes), 0, 0, 0]);
    if made < 0 {
        return made;
    }
    if made as usize != RULES {
        for (number, arguments) in [
            (libc::SYS_dup3, [made as usize, RULES, libc::O_CLOEXEC as usize, 0, 0]),
            (libc::SYS_close, [made as usize, 0, 0, 0, 0]),
        ] {
            let result = call(number, arguments);
            if result < 0 {
                return result;
            }
        }
    }
    // The kernel opens the ruleset close-on-exec; the init needs it after exec.
    call(libc::SYS_fcntl, [RULES, libc::F_SETFD as usize, 0, 0, 0])
}

fn allow(path: &CStr, rights: u64) -> libc::c_long {
    const PATH_BENEATH: usize = 1;
    with(open_in_root(path), |folder| {
        // `struct landlock_path_beneath_attr` is packed: rights in 8 bytes, the descriptor in 4.
        let rule = [rights, folder as u64];
        let address = rule.as_ptr().addr();
        call(libc::SYS_landlock_add_rule, [RULES, PATH_BENEATH, address, 0, 0])
    })
}

/// Makes the mount at `root` the root, with the old root stacked on top of it, and detaches the old
/// root (pivot_root(2), NOTES).
fn pivot(root: &CStr) -> libc::c_long {
    let here = at(c".");
    let detach = libc::MNT_DETACH as usize;
    for (number, arguments) in [
        (libc::SYS_chdir, [at(root), 0, 0, 0, 0]),
        (libc::SYS_pivot_root, [here, here, 0, 0, 0]),
        (libc::SYS_umount2, [here, detach, 0, 0, 0]),
        (libc::SYS_chdir, [at(c"/"), 0, 0, 0, 0]),
    ] {
        let result = call(number, arguments);
        if result < 0 {
            return result;
        }
    }
    0
}

fn enter(namespace: i32, kind: i32) -> libc::c_long {
    call(libc::SYS_setns, [namespace as usize, kind as usize, 0, 0, 0])
}

fn enter_root(namespace: i32) -> libc::c_long {
    match enter(namespace, libc::CLONE_NEWNS) {
        0 => call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0]),
        result => result,
    }
}

fn map_ids(user: &[u8], group: &[u8]) -> libc::c_long {
    // Without privilege the kernel demands that setgroups(2) is disabled first: a user could
    // otherwise drop a group that denies access.
    for (path, content) in [
        (c"/proc/self/setgroups", &b"deny"[..]),
        (c"/proc/self/uid_map", user),
        (c"/proc/self/gid_map", group),
    ] {
        let result = write_to(path, libc::O_WRONLY, content);
        if result < 0 {
            return result;
        }
    }
    0
}

fn drop_bounding() -> libc::c_long {
    for capability in 0..64 {
        let number = libc::PR_CAPBSET_DROP as usize;
        if call(libc::SYS_prctl, [number, capability, 0, 0, 0]) < 0 {
            // Capabilities are numbered without gaps: this one does not exist, nor does any after
            // it.
            return if capability > 0 { 0 } else { -1 };
        }
    }
    0
}

fn bring_up_loopback() -> libc::c_long {
    let (family, kind) = (libc::AF_INET as usize, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize);
    let socket = call(libc::SYS_socket, [family, kind, 0, 0, 0]);
    if socket < 0 {
        return socket;
    }
    // `struct ifreq`: the name in 16 bytes, then for this request the flags in 2.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    let flags = ((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes();
    request[16..18].copy_from_slice(&flags);
    let address = request.as_ptr().addr();
    let set = call(libc::SYS_ioctl, [socket as usize, libc::SIOCSIFFLAGS as usize, address, 0, 0]);
    if set < 0 { set } else { call(libc::SYS_close, [socket as usize, 0, 0, 0, 0]) }
}

fn listen(port: u16, to: i32) -> libc::c_long {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let socket = call(libc::SYS_socket, [libc::AF_INET as usize, kind as usize, 0, 0, 0]);
    if socket < 0 {
        return socket;
    }
    let listener = socket as usize;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let (place, length) = ((&raw const address).addr(), size_of_val(&address));
    for (number, arguments) in [
        (libc::SYS_bind, [listener, place, length, 0, 0]),
        (libc::SYS_listen, [listener, 128, 0, 0, 0]),
    ] {
        let result = call(number, arguments);
        if result < 0 {
            return result;
        }
    }
    let sent = hand_over(listener, to);
    if sent < 0 { sent } else { call(libc::SYS_close, [listener, 0, 0, 0, 0]) }
}

/// Sends one byte and a descriptor over a socket (unix(7), SCM_RIGHTS).
fn hand_over(file: usize, to: i32) -> libc::c_long {
    let byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    // `struct cmsghdr` with one descriptor: length in 8 bytes, level and type in 4 each, the
    // descriptor in 4, and 4 of padding.
    let level = u64::from(libc::SOL_SOCKET.cast_unsigned());
    let kind = u64::from(libc::SCM_RIGHTS.cast_unsigned());
    let control: [u64; 3] = [20, level | kind << 32, file as u64];
    let message =
        [0, 0, (&raw const part).addr(), 1, control.as_ptr().addr(), size_of_val(&control), 0];
    let flags = libc::MSG_NOSIGNAL as usize;
    call(libc::SYS_sendmsg, [to as usize, message.as_ptr().addr(), flags, 0, 0])
}
