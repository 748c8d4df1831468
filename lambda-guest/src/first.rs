//! Process 1 of the guest: mounts, the start of the agent, and the collection of orphans.

use std::convert::Infallible;
use std::io;
use std::process::Command;

use nix::mount::MsFlags;
use nix::sys::reboot::RebootMode;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use crate::mounts::mount_at;

/// The argument of the second process.
pub(crate) const AGENT: &str = "agent";

/// Prepares the guest, starts the agent, and collects orphans until it ends.
///
/// # Errors
///
/// What could not be done, or how the agent ended.
pub(crate) fn run() -> io::Result<Infallible> {
    for (kind, target) in MOUNTS {
        mount_at(kind, kind, target, MsFlags::empty())?;
    }
    // Not the first process: collecting orphans would take the ends of the agent's own children.
    let agent = Command::new("/proc/self/exe").arg(AGENT).env_clear().spawn()?;
    let agent = Pid::from_raw(i32::try_from(agent.id()).map_err(io::Error::other)?);
    loop {
        match wait()? {
            WaitStatus::Exited(process, status) if process == agent => {
                return Err(io::Error::other(format!("the agent ended with status {status}")));
            }
            WaitStatus::Signaled(process, signal, _) if process == agent => {
                return Err(io::Error::other(format!("{signal} ended the agent")));
            }
            _ => {}
        }
    }
}

/// Ends the machine. The kernel's option `reboot=t` makes it a reset.
pub(crate) fn reboot() {
    // It returns only if it fails, and then the end of process 1 makes the kernel panic.
    let _never = nix::sys::reboot::reboot(RebootMode::RB_AUTOBOOT);
}

/// The file systems of the guest. The kernel has mounted `/dev`. `/run` is there for the mount
/// points of sandboxes.
const MOUNTS: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];
