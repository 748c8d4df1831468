//! Mounts of the guest.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Mounts a file system without device nodes and set-user-ID programs.
pub(crate) fn mount_at(source: &str, kind: &str, target: &str, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let none: Option<&str> = None;
    mount(Some(source), target, Some(kind), flags, none)
        .map_err(|error| io::Error::other(format!("mounting {kind} at {target}: {error}")))
}

/// Makes a folder for a mount.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
