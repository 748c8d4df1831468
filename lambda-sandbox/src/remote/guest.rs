//! Constants that the host of a virtual machine and the agent in its guest share: vsock ports, and
//! the folder of the disks.

/// The port of the guest on which the agent serves sandboxes.
pub const AGENT_PORT: u32 = 1024;
/// The port of the host to which the agent connects when it is ready.
pub const READY_PORT: u32 = 1;
/// The folder of the guest with the host's disks beside the root: `b` is the first, then `c`.
pub const DISKS: &str = "/run/disks";
