//! One step of a new process, and what it needs.

use std::ffi::CString;
use std::os::fd::RawFd;

use crate::SmallFile;
use crate::linux::root::inside::Inside;

/// One step of a new process, before it executes the init.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Joins a control group of version 1.
    JoinGroup {
        /// The open descriptor of the group's `tasks` file.
        tasks: RawFd,
        /// The file's path, for errors.
        path: CString,
    },
    /// Writes the id maps of the process's new user namespace, in which it becomes user 1000.
    MapIds {
        /// The line for `uid_map`.
        user: Vec<u8>,
        /// The line for `gid_map`.
        group: Vec<u8>,
    },
    /// Drops every capability from the bounding set, so that no executed program can gain one.
    DropBounding,
    /// Brings up the loopback interface of the process's network namespace.
    BringUpLoopback,
    /// Listens on this TCP port of 127.0.0.1, and sends the listener over this unix socket.
    Listen(u16, RawFd),
    /// Enters the network namespace with this descriptor.
    EnterNetwork(RawFd),
    /// Enters the ipc namespace with this descriptor.
    EnterIpc(RawFd),
    /// Makes a cgroup namespace, in which the process's groups appear as roots.
    HideGroups,
    /// Makes a time namespace, which the init enters at exec, with these offsets
    /// (`/proc/PID/timens_offsets`).
    OwnTime(Vec<u8>),
    /// Enters a copy of the mount namespace with this descriptor, with the sandbox's root.
    EnterRoot(RawFd),
    /// Makes all mounts private (mount_namespaces(7)), so that nothing propagates to the host.
    PrivateMounts,
    /// Mounts an image from a block device, read-only.
    Image {
        /// The path of the device.
        device: CString,
        /// The type of file system.
        kind: CString,
        /// The mount point.
        target: Inside,
    },
    /// Mounts a new file system.
    Mount {
        /// The type of file system.
        kind: CString,
        /// The mount point.
        target: Inside,
        /// Flags (`MS_*`).
        flags: u64,
        /// Options of the file system, comma-separated.
        options: CString,
    },
    /// Binds a file or folder of the host into the root.
    Show {
        /// The path on the host.
        source: CString,
        /// The mount point.
        target: Inside,
        /// The mount's attributes (`MOUNT_ATTR_*`).
        attributes: u64,
        /// Whether the mounts below `source` are bound too.
        whole: bool,
        /// A user namespace: files of user 0 appear as files of the id that it maps 0 to. If the
        /// file system cannot map owners (`MOUNT_ATTR_IDMAP`), they keep theirs.
        owners: Option<RawFd>,
    },
    /// Sets attributes (`MOUNT_ATTR_*`) of a mount in the root.
    Attributes {
        /// The mount point.
        target: Inside,
        /// The attributes to set.
        attributes: u64,
    },
    /// Checks by openat2(RESOLVE_BENEATH) that a path stays in the root, whose links may lead out.
    Stay(Inside),
    /// Attaches a detached mount that the host made.
    Attach {
        /// The mount's descriptor.
        mount: RawFd,
        /// The mount point.
        target: Inside,
    },
    /// Makes a folder if it does not exist.
    Folder(Inside),
    /// Makes an empty file if it does not exist.
    File(Inside),
    /// Makes a file. It must not exist.
    Content {
        /// The path of the file.
        path: Inside,
        /// Its content.
        content: Vec<u8>,
        /// Its mode, such as `0o644`.
        mode: u32,
    },
    /// Makes a symbolic link.
    Link {
        /// The link's text.
        points_to: CString,
        /// The path of the link.
        path: Inside,
    },
    /// Mounts `/proc` and makes it the working directory, for [`Step::Mask`].
    Processes(Inside),
    /// Binds another file or folder, with the mounts below it, over an entry of `/proc`.
    Mask {
        /// The path of the file or folder that is visible afterwards.
        source: CString,
        /// The entry that is hidden, relative to `/proc`.
        name: CString,
    },
    /// Makes the mount at this path the root and detaches the old root.
    Pivot(CString),
    /// Sets the soft and hard limit of a resource (`RLIMIT_*`) to the same value.
    Limit(u32, u64),
    /// Sets a limit that a program may raise: `RLIMIT_*`, the soft limit, the hard limit.
    SoftLimit(u32, u64, u64),
    /// Writes a limit of the user namespace (`/proc/sys/user`) or a setting of the network
    /// namespace. If the file cannot be written, the user's own limit or the machine's setting
    /// stays in force.
    Quota {
        /// The path of the file.
        path: CString,
        /// The text to write.
        value: Vec<u8>,
    },
    /// Sets the host name of the sandbox.
    HostName(CString),
    /// Creates a landlock ruleset, whose descriptor follows those given to the init.
    /// [`Step::Allow`] adds rules; the init enforces the ruleset.
    Rules {
        /// The rights (`LANDLOCK_ACCESS_FS_*`) that are refused where no rule gives them.
        handled: u64,
        /// The scopes (`LANDLOCK_SCOPE_*`).
        scoped: u64,
    },
    /// Adds a rule to the ruleset: rights below a path.
    Allow {
        /// The path inside the sandbox.
        path: CString,
        /// The rights (`LANDLOCK_ACCESS_FS_*`).
        rights: u64,
    },
    /// Opens the sandbox's null device as the program's input, for programs that open `/dev/stdin`.
    NullInput,
    /// Changes to the program's working directory.
    GoTo(CString),
}

impl Step {
    /// Writes a small file of a root at `path`.
    pub(super) fn content(path: Inside, file: &SmallFile) -> Self {
        let mode = if file.executable { 0o755 } else { 0o644 };
        Self::Content { path, content: file.content.clone(), mode }
    }
}
