//! The disks of the host beside the root: each is an image of files, mounted read-only when the
//! first sandbox needs it. The host exchanges an image when no sandbox uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::remote::guest;
use lambda_sandbox::{
    Backend, BoxFuture, Capability, Created, Error, Isolation, Root, Sandbox, SandboxSpec, Swept,
};
use nix::mount::{MntFlags, MsFlags, umount2};
use tokio::sync::Mutex;

use crate::mounts::{folder, mount_at};

/// The backend of the guest, with the disks that its sandboxes need.
#[derive(Debug, Clone)]
pub(crate) struct WithDisks {
    backend: LinuxBackend,
    /// The generation of each mounted disk.
    mounted: Arc<Mutex<BTreeMap<u8, u64>>>,
}

impl WithDisks {
    pub(crate) fn new(backend: LinuxBackend) -> Self {
        Self { backend, mounted: Arc::default() }
    }

    /// Mounts the disks of a root that are not mounted yet. Sandboxes that are created at the same
    /// time wait.
    async fn mount_for(&self, root: &Root) -> Result<(), Error> {
        let wanted = disks_of(root);
        let mut mounted = Arc::clone(&self.mounted).lock_owned().await;
        let steps = plan(&mounted, &wanted);
        if steps.is_empty() {
            return Ok(());
        }
        if steps.iter().any(|step| step.old.is_some()) {
            // The backend keeps roots for later sandboxes, which hold old images.
            self.backend.sweep().await?;
        }
        let work = move || mount(&mut mounted, steps);
        tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)?
    }
}

/// Mounts disks. Blocks.
fn mount(mounted: &mut BTreeMap<u8, u64>, steps: Vec<Step>) -> Result<(), Error> {
    for Step { disk, old, new } in steps {
        let device = PathBuf::from(format!("/dev/vd{}", guest::letter(disk)));
        let failed = |step| {
            let device = device.clone();
            move |source| Error::Failed { step, path: Some(device), source }
        };
        if let Some(old) = old {
            let place = guest::place(disk, old);
            umount2(&place, MntFlags::MNT_DETACH)
                .map_err(|errno| failed("unmounting a disk")(errno.into()))?;
            mounted.remove(&disk);
            // An empty folder that cannot be removed harms nothing.
            drop(std::fs::remove_dir(&place));
        }
        wait_until_unused(&device).map_err(failed("waiting until a disk is unused"))?;
        mount_disk(&device, &guest::place(disk, new)).map_err(failed("mounting a disk"))?;
        mounted.insert(disk, new);
    }
    Ok(())
}

/// One disk to be mounted.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    disk: u8,
    /// The generation that is mounted.
    old: Option<u64>,
    new: u64,
}

/// Returns what must be mounted.
fn plan(mounted: &BTreeMap<u8, u64>, wanted: &BTreeSet<(u8, u64)>) -> Vec<Step> {
    let steps = wanted.iter().map(|(disk, new)| (*disk, mounted.get(disk).copied(), *new));
    let steps = steps.filter(|(_, old, new)| *old != Some(*new));
    steps.map(|(disk, old, new)| Step { disk, old, new }).collect()
}

/// Returns the disks with their generations that a root names.
fn disks_of(root: &Root) -> BTreeSet<(u8, u64)> {
    let binds = root.binds.iter().map(|bind| &bind.source);
    let paths = root.directory.iter().chain(&root.layers).chain(binds);
    paths.filter_map(|path| guest::disk_of(path)).collect()
}

/// Waits until nothing has the device mounted: a namespace that is ending may have. An exclusive
/// opening fails until then. Without that a mount would show the earlier image.
fn wait_until_unused(device: &Path) -> io::Result<()> {
    let deadline = Instant::now() + UNUSED_TIME;
    loop {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device);
        match opened {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.map(drop),
        }
    }
}

fn mount_disk(device: &Path, place: &Path) -> io::Result<()> {
    folder(place)?;
    let (disk, place) = (device.display().to_string(), place.display().to_string());
    let mount = |kind| mount_at(&disk, kind, &place, MsFlags::MS_RDONLY);
    mount("erofs").or_else(|error| mount("squashfs").map_err(|_other_kind| error))
}

impl Backend for WithDisks {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            self.mount_for(&spec.root).await?;
            self.backend.create(spec).await
        })
    }

    fn isolation(&self) -> Isolation {
        self.backend.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.backend.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.backend.sweep()
    }
}

/// How long an ended sandbox may hold a disk.
const UNUSED_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_of_a_root_are_found_once_each() {
        let mut root = Root::of_layers([guest::place(0, 1), guest::place(2, 5)])
            .with_bind(guest::place(1, 0).join("file"), "/file")
            .with_bind(guest::place(0, 1), "/again");
        assert_eq!(disks_of(&root), BTreeSet::from([(0, 1), (1, 0), (2, 5)]));
        root = Root::of_directory("/etc").with_bind("/run/disks", "/all");
        assert_eq!(disks_of(&root), BTreeSet::new());
    }

    #[test]
    fn disks_are_mounted_anew_when_their_image_is_another() {
        let mounted = BTreeMap::from([(0, 1), (1, 4)]);
        let step = |disk, old, new| Step { disk, old, new };
        let wanted = BTreeSet::from([(0, 1), (1, 5), (2, 1)]);
        assert_eq!(plan(&mounted, &wanted), [step(1, Some(4), 5), step(2, None, 1)]);
        assert_eq!(plan(&mounted, &BTreeSet::new()), []);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        assert!(wait_until_unused(Path::new("/dev/no-such-disk")).is_err());
    }
}
