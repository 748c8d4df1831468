//! What every sandbox has in `/dev`, as data.

/// The devices shown inside.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// What every sandbox's `/dev` has.
pub(in crate::linux) const OWN_DEVICES: [&str; 12] = [
    "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm", "empty",
    "cgroups",
];
/// The links in `/dev`.
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    // POSIX shared memory and semaphores: counted and limited as scratch space.
    ("shm", "/tmp"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
