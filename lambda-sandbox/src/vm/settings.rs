//! The settings of the backend of virtual machines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image;
use crate::Error;

/// The settings of the backend of virtual machines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The guests' kernel: an ELF file with a PVH note.
    pub kernel: PathBuf,
    /// The guests' root: an erofs image whose first process is `lambda-guest`.
    pub guest: PathBuf,
    /// The program `lambda-vmm`.
    pub monitor: PathBuf,
    /// A folder for images of roots, which is made if it does not exist. Images stay there for
    /// later hosts. It must be writable for this user alone.
    pub images: PathBuf,
    /// The most snapshots of sandboxes in the folder of images
    /// ([`SandboxSpec::snapshot`](crate::SandboxSpec::snapshot)). Each takes as much disk as its
    /// machine had used memory. Those that were not used for longest are removed. The default is
    /// 64.
    pub snapshots_max: usize,
    /// Restored machines that are kept ready of each snapshot that was used lately, so that a
    /// sandbox starts faster. They stand still. The default is 0.
    pub clones_ready: usize,
    /// The most memory of all restored machines that are kept ready, in bytes. Each counts with
    /// what it may use at most: the memory of its guest and of its monitor. When there is no room,
    /// those of the snapshots that were not used for longest end. The default is 1 GiB.
    pub ready_bytes_max: u64,
    /// Empty machines in their jails that are kept ready for each of the four sizes that were used
    /// last. Each takes up to 8 MiB. The default is 0.
    pub monitors_ready: usize,
    /// Memory of a guest beyond the sandbox's limit, in bytes, for the kernel and the agent. The
    /// default is 64 MiB.
    pub guest_bytes: u64,
    /// How long each step of a machine's start, and an answer of the guest, may take beyond the
    /// times of the specification. The default is 20 s.
    pub patience: Duration,
    /// Whether the guest's kernel has a console, whose end is part of an error when a machine does
    /// not start. It makes starts slower.
    pub console: bool,
    /// Whether monitors run in sandboxes of the Linux backend, which needs what that needs. The
    /// default is yes. The program `lambda-vmm` must then be a static one.
    pub is_jailed: bool,
}

impl Settings {
    /// Creates settings from a kernel, a guest's root, the monitor's program, and a folder for
    /// images.
    #[must_use]
    pub fn new(
        kernel: impl Into<PathBuf>,
        guest: impl Into<PathBuf>,
        monitor: impl Into<PathBuf>,
        images: impl Into<PathBuf>,
    ) -> Self {
        Self {
            kernel: kernel.into(),
            guest: guest.into(),
            monitor: monitor.into(),
            images: images.into(),
            snapshots_max: 64,
            clones_ready: 0,
            ready_bytes_max: 1 << 30,
            monitors_ready: 0,
            guest_bytes: 64 << 20,
            patience: Duration::from_secs(20),
            console: false,
            is_jailed: true,
        }
    }

    /// Runs monitors as plain processes of the host's user.
    #[must_use]
    pub fn without_jail(mut self) -> Self {
        self.is_jailed = false;
        self
    }

    /// Gives the guests' kernels a console.
    #[must_use]
    pub fn with_console(mut self) -> Self {
        self.console = true;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.missing().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns an [`Error::Unavailable`] for the device, each file and each program that is not
    /// there, or that this user may not open.
    #[must_use]
    pub fn missing(&self) -> Vec<Error> {
        let there = |what, path: &Path, remedy| match std::fs::File::open(path) {
            Ok(_) => None,
            Err(error) => {
                let why = format!("{}: {error}", path.display());
                Some(Error::Unavailable { what, why, remedy })
            }
        };
        let of_kvm =
            "run on a machine with KVM, as a user who may open /dev/kvm, or use the Linux backend";
        let of_guest = "make an erofs image with lambda-guest as /init";
        let found = [
            there("hardware virtualization", Path::new(KVM), of_kvm),
            there("a kernel for guests", &self.kernel, "provide an ELF kernel with CONFIG_PVH"),
            there("a root for guests", &self.guest, of_guest),
            there("the machine monitor", &self.monitor, "build the program lambda-vmm"),
            image::missing_maker(),
        ];
        found.into_iter().flatten().collect()
    }
}

pub(super) const KVM: &str = "/dev/kvm";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("there");
        std::fs::write(&there, "").expect("written");
        let missing = folder.path().join("missing");
        let check = |kernel: &Path, guest: &Path, monitor: &Path| {
            let settings = Settings::new(kernel, guest, monitor, folder.path());
            match settings.check() {
                Err(Error::Unavailable { what, .. }) => what,
                other => panic!("{other:?}"),
            }
        };
        if std::fs::File::open(KVM).is_err() {
            assert_eq!(check(&there, &there, &there), "hardware virtualization");
            return;
        }
        assert_eq!(check(&missing, &there, &there), "a kernel for guests");
        assert_eq!(check(&there, &missing, &there), "a root for guests");
        assert_eq!(check(&there, &there, &missing), "the machine monitor");
    }
}
