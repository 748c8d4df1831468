//! The mounts, files and streams that one sandbox gets in addition to its read-only root. Mounts
//! are made in the host's namespace and passed to the new process as descriptors, which it attaches
//! to its root (open_tree(2), move_mount(2)).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::linux::extras::Extras;
use crate::linux::features::Rights;
use crate::linux::instance::Instance;
use crate::linux::root::detached::{apart, copy_of, own_tmpfs, restrict};
use crate::linux::root::inside::Inside;
use crate::linux::root::volume::Volume;
use crate::linux::shared::{Shared, blocking};
use crate::linux::start::plan::Step;
use crate::linux::start::terminal::TerminalEnd;
use crate::linux::start::wires;
use crate::{Error, SandboxSpec};

/// A detached mount with its target.
#[derive(Debug)]
pub(in crate::linux) struct Attached {
    mount: OwnedFd,
    target: Inside,
}

impl Attached {
    pub(in crate::linux) fn step(&self) -> Step {
        Step::Attach { mount: self.mount.as_raw_fd(), target: self.target.clone() }
    }
}

/// Makes the mounts of `extras` for a sandbox whose user outside is `id`. Each blocks for about a
/// millisecond.
pub(in crate::linux) fn mounts(extras: &Extras, id: u32) -> Result<Vec<Attached>, Error> {
    // They are attached after the root has become the process's own.
    let at = |path: &Path| Inside::new(Path::new("/"), path);
    let mut mounts = Vec::new();
    for bind in &extras.writable_binds {
        let mount = copy_of(&bind.source)?;
        restrict(&mount, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, &bind.source)?;
        mounts.push(Attached { mount, target: at(&bind.target)? });
    }
    for (target, volume) in &extras.volumes {
        mounts.push(Attached { mount: volume.mount()?, target: at(target)? });
    }
    for path in &extras.devices {
        let mount = device(path.clone(), id)?;
        mounts.push(Attached { mount, target: at(path)? });
    }
    Ok(mounts)
}

/// Makes a node of the device at `path` that belongs to user `id`, alone in a new tmpfs that is
/// mounted nowhere else.
fn device(path: PathBuf, id: u32) -> Result<OwnedFd, Error> {
    let found = std::fs::metadata(&path);
    let found = found.map_err(|source| Error::failed("looking for a device", &path, source))?;
    if !found.file_type().is_char_device() {
        let reason = "only character devices can be given";
        return Err(Error::invalid("linux.devices", path.display().to_string(), reason));
    }
    let number = found.rdev();
    apart("sandbox-device", move || {
        let stage = Instance::stage();
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        own_tmpfs(&stage, flags, "size=4k,nr_inodes=4,mode=700")?;
        let node = stage.join("device");
        let failed = |source| Error::failed("making a device", &path, source);
        mknod(&node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), number)
            .map_err(|errno| failed(errno.into()))?;
        std::os::unix::fs::chown(&node, Some(id), Some(id)).map_err(failed)?;
        copy_of(&node)
    })
}

/// The descriptors that a specification adds to one start. They stay open until the new process has
/// them.
#[derive(Debug, Default)]
pub(in crate::linux) struct Passed {
    pub(in crate::linux) mounts: Vec<Attached>,
    pub(in crate::linux) files: Vec<Arc<OwnedFd>>,
    pub(in crate::linux) filters: Option<Arc<OwnedFd>>,
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
}

impl Passed {
    /// Opens the descriptors for a sandbox whose user outside is `id`. Also returns the host's end
    /// of the standard input, if there is one.
    pub(in crate::linux) async fn open(
        shared: &Arc<Shared>,
        spec: &SandboxSpec,
        id: u32,
    ) -> Result<(Self, Option<OwnedFd>), Error> {
        let mut passed = Self::default();
        let mut host_end = None;
        if !spec.stdin.is_empty() {
            let (inside, host) = wires::input()?;
            (passed.stdin, host_end) = (Some(inside), Some(host));
        }
        let extras = &spec.linux;
        if extras.is_empty() {
            return Ok((passed, host_end));
        }
        passed.files.clone_from(&extras.descriptors);
        passed.filters = shared.filters.of(extras.system_calls)?;
        passed.terminal = extras.terminal.as_ref().map(TerminalEnd::take).transpose()?;
        if shared.defences.rights == Rights::Root {
            let extras = extras.clone();
            passed.mounts = blocking(move || mounts(&extras, id)).await?;
        } else if !extras.volumes.is_empty() {
            return Err(Volume::unavailable());
        }
        Ok((passed, host_end))
    }

    /// Returns the descriptor of the program's standard input, or `None` if the input is empty.
    pub(in crate::linux) fn input(&self) -> Option<RawFd> {
        self.terminal.as_ref().or(self.stdin.as_ref()).map(AsRawFd::as_raw_fd)
    }

    /// Replaces the output pipes by the terminal, if there is one.
    pub(in crate::linux) fn outputs(&self, [stdout, stderr, socket]: [RawFd; 3]) -> [RawFd; 3] {
        match self.terminal.as_ref().map(AsRawFd::as_raw_fd) {
            Some(terminal) => [terminal, terminal, socket],
            None => [stdout, stderr, socket],
        }
    }

    /// Returns the init's argument that describes the descriptors: a `d` for each passed file, and
    /// a `t` for a terminal.
    pub(in crate::linux) fn flags(&self) -> String {
        let terminal = if self.terminal.is_some() { "t" } else { "" };
        format!("{}{terminal}", "d".repeat(self.files.len()))
    }
}
