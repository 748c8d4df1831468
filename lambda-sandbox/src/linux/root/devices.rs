//! The contents of a sandbox's `/dev`, as data.

/// The devices of the host that every sandbox sees in `/dev`.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// The names in every sandbox's `/dev`: devices, links, and the files that mounts of this crate
/// use.
pub(in crate::linux) const OWN_DEVICES: [&str; 12] = [
    "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm", "empty",
    "cgroups",
];
/// The symbolic links in `/dev`, with their targets.
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    // POSIX shared memory and semaphores. They count as scratch space and share its limit.
    ("shm", "/tmp"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
