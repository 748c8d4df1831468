//! Scratch space on disk: a file system of its own for each sandbox, in a sparse file without a
//! name, over a loop device.
//!
//! What it holds is not charged to the sandbox's memory for good: the kernel writes pages back when
//! the memory limit is near. The kernel frees file and device with the last descriptor, even if the
//! host is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::Error;
use crate::linux::root::inside::Inside;
use crate::linux::start::plan::{SCRATCH, Step};
use crate::linux::sys;

/// One sandbox's scratch space.
#[derive(Debug)]
pub(in crate::linux) struct Disk {
    /// The mount, which is attached to the sandbox's root. It is held here so that a thread of the
    /// host unmounts the file system, and the end of the sandbox's init does not wait for that.
    mount: Option<OwnedFd>,
    thread: Sender<Work>,
}

impl Disk {
    /// Returns the step that attaches it to a sandbox's root.
    pub(in crate::linux) fn step(&self) -> Result<Step, Error> {
        let mount = self.mount.as_ref().map_or(-1, |mount| mount.as_raw_fd());
        Ok(Step::Attach { mount, target: Inside::new(Path::new("/"), Path::new(SCRATCH))? })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            // The thread ends after the last disk.
            drop(self.thread.send(Work::End(mount)));
        }
    }
}

/// The size of a scratch space: bytes and files.
pub(in crate::linux) type Size = (u64, u64);

/// Makes scratch spaces. Those of the sizes in use are made ahead.
#[derive(Debug)]
pub(in crate::linux) struct Disks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// The user and group of each scratch space's folder.
    owner: u32,
    thread: Sender<Work>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Size, Arc<EmptyImage>>,
    /// Ready disks by size. The size that was used last comes last.
    ready: Vec<(Size, Vec<Disk>)>,
}

#[derive(Debug)]
enum Work {
    /// Makes disks of this size ahead.
    Fill(Size),
    /// Unmounts a disk.
    End(OwnedFd),
    /// Answers when all work that was queued before is done.
    Mark(Sender<()>),
}

/// An empty file system, as its length and its bytes that are not zero.
#[derive(Debug)]
struct EmptyImage {
    length: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Disks {
    /// Starts with files in `folder`, for scratch spaces that belong to `owner`. Makes a disk, to
    /// find out whether this machine can.
    pub(in crate::linux) fn start(folder: &Path, owner: u32) -> Result<Self, Error> {
        if let Err(source) = File::open("/dev/loop-control") {
            let remedy = "load the kernel's module `loop`, or set no scratch folder";
            return Err(unavailable(format!("/dev/loop-control: {source}"), remedy));
        }
        let (thread, queue) = channel();
        let state = Mutex::default();
        let inner = Arc::new(Inner { folder: folder.to_owned(), owner, thread, state });
        drop(inner.make(USUAL)?);
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("sandbox-scratch".into())
            .spawn(move || work_off(&queue, &weak))
            .map_err(|source| Error::step("starting the scratch thread", source))?;
        inner.fill_soon(USUAL);
        Ok(Self(inner))
    }

    /// Returns a disk that was made ahead, if there is one.
    pub(in crate::linux) fn take_ready(&self, size: Size) -> Option<Disk> {
        let taken = self.0.state().ready_of(size).pop();
        self.0.fill_soon(size);
        taken
    }

    /// Makes a disk. Blocks for some milliseconds.
    pub(in crate::linux) fn maker(
        &self,
        size: Size,
    ) -> impl FnOnce() -> Result<Disk, Error> + Send + 'static {
        let inner = Arc::clone(&self.0);
        move || inner.make(size)
    }

    /// Waits, for `limit` at most, until ended disks are unmounted, with those made ahead.
    pub(in crate::linux) fn wait(&self, limit: Duration) {
        self.0.state().ready.clear();
        let (reply, done) = channel();
        drop(self.0.thread.send(Work::Mark(reply)));
        let _late = done.recv_timeout(limit);
    }
}

impl State {
    fn ready_of(&mut self, size: Size) -> &mut Vec<Disk> {
        let found = self.ready.iter().position(|(its, _)| *its == size);
        let kept = found.map(|at| self.ready.remove(at).1).unwrap_or_default();
        if self.ready.len() >= SIZES_MAX {
            self.ready.remove(0);
        }
        self.ready.push((size, kept));
        // The entry was pushed just now.
        let last = self.ready.len() - 1;
        &mut self.ready[last].1
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_soon(&self, size: Size) {
        drop(self.thread.send(Work::Fill(size)));
    }

    fn make(&self, size: Size) -> Result<Disk, Error> {
        let image = self.image(size)?;
        let file = unnamed(&self.folder)?;
        image.write(&file).map_err(|source| self.failed("writing a scratch file", source))?;
        let mount =
            mount(&file).map_err(|source| self.failed("mounting a scratch file", source))?;
        let opened = |source| self.failed("opening a scratch space", source);
        sys::change_owner(mount.as_fd(), self.owner).map_err(opened)?;
        sys::change_mode(mount.as_fd(), 0o1777).map_err(opened)?;
        Ok(Disk { mount: Some(mount), thread: self.thread.clone() })
    }

    fn failed(&self, step: &'static str, source: io::Error) -> Error {
        Error::failed(step, &self.folder, source)
    }

    /// Returns the empty file system of this size, and makes it at the first use.
    fn image(&self, size: Size) -> Result<Arc<EmptyImage>, Error> {
        if let Some(image) = self.state().images.get(&size) {
            return Ok(Arc::clone(image));
        }
        let made = Arc::new(self.make_image(size)?);
        let mut state = self.state();
        if state.images.len() >= IMAGES_MAX {
            state.images.pop_first();
        }
        Ok(Arc::clone(state.images.entry(size).or_insert(made)))
    }

    fn make_image(&self, (bytes, files): Size) -> Result<EmptyImage, Error> {
        let inodes = files.saturating_add(INODES_OWN).div_ceil(16) * 16;
        // Inode tables, and the maps and descriptors of blocks.
        let own = inodes.saturating_mul(INODE_BYTES).saturating_add(bytes / 64);
        let length = bytes.saturating_add(own).saturating_add(8 << 20);
        let length = length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        let file = unnamed(&self.folder)?;
        let step = "making a scratch file";
        file.set_len(length).map_err(|source| self.failed(step, source))?;
        format(&file, inodes)?;
        // What is more than `bytes` is reserved for root, whom no sandbox has.
        let surplus = {
            let mount = mount(&file).map_err(|source| {
                let remedy = "set no scratch folder, or use a kernel with ext4";
                unavailable(format!("the kernel does not mount ext4: {source}"), remedy)
            })?;
            let removed =
                nix::unistd::unlinkat(&mount, "lost+found", nix::unistd::UnlinkatFlags::RemoveDir);
            removed.map_err(|errno| self.failed(step, errno.into()))?;
            let free = nix::sys::statvfs::fstatvfs(&mount);
            let free = free.map_err(|errno| self.failed(step, errno.into()))?.blocks_available();
            free.saturating_sub(bytes.div_ceil(BLOCK_BYTES))
        };
        let surplus = u32::try_from(surplus).unwrap_or(u32::MAX);
        file.write_all_at(&surplus.to_le_bytes(), RESERVED_AT)
            .map_err(|source| self.failed(step, source))?;
        EmptyImage::read(&file, length).map_err(|source| self.failed(step, source))
    }

    /// Makes one disk ahead if fewer than [`READY_MAX`] are ready. Returns whether more are wanted.
    fn fill_one(&self, size: Size) -> bool {
        if self.state().ready_of(size).len() >= READY_MAX {
            return false;
        }
        match self.make(size) {
            Ok(disk) => {
                let mut state = self.state();
                let ready = state.ready_of(size);
                ready.push(disk);
                ready.len() < READY_MAX
            }
            Err(error) => {
                tracing::warn!(%error, "no scratch space made ahead");
                false
            }
        }
    }
}

/// Carries out what is queued. Making ahead comes last, and after a pause, so that it does not
/// compete with the start that used a disk.
fn work_off(queue: &Receiver<Work>, inner: &Weak<Inner>) {
    let mut wanted: Option<Size> = None;
    loop {
        let work = match wanted {
            None => queue.recv().ok(),
            Some(size) => match queue.recv_timeout(QUIET_TIME) {
                Ok(work) => Some(work),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    let more = inner.upgrade().is_some_and(|inner| inner.fill_one(size));
                    wanted = wanted.filter(|_| more);
                    continue;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            },
        };
        match work {
            Some(Work::Fill(size)) => wanted = Some(size),
            Some(Work::End(mount)) => {
                sys::drop_file_system(mount.as_fd());
                drop(mount);
            }
            Some(Work::Mark(reply)) => drop(reply.send(())),
            None => return,
        }
    }
}

impl EmptyImage {
    fn read(file: &File, length: u64) -> io::Result<Self> {
        let (mut parts, mut at) = (Vec::new(), 0);
        while let Some((start, end)) = sys::next_data(file, at)? {
            let size = usize::try_from(end - start).unwrap_or(usize::MAX);
            let mut part = vec![0; size];
            file.read_exact_at(&mut part, start)?;
            // Blocks of zeros need not be written.
            for (number, block) in part.chunks(CHUNK_BYTES).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    parts.push((start + (number * CHUNK_BYTES) as u64, block.to_vec()));
                }
            }
            at = end;
        }
        Ok(Self { length, parts })
    }

    fn write(&self, file: &File) -> io::Result<()> {
        file.set_len(self.length)?;
        self.parts.iter().try_for_each(|(at, part)| file.write_all_at(part, *at))
    }
}

fn unavailable(why: String, remedy: &'static str) -> Error {
    Error::Unavailable { what: "scratch space on disk", why, remedy }
}

/// Makes a file without a name.
fn unnamed(folder: &Path) -> Result<File, Error> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    options.open(folder).map_err(|source| Error::failed("making a scratch file", folder, source))
}

/// Makes an empty file system without a journal, which a file that ends with its sandbox does not
/// need.
fn format(file: &File, inodes: u64) -> Result<(), Error> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut command = Command::new("mkfs.ext4");
    command
        .args(["-q", "-F", "-b", "4096", "-m", "0", "-I", "256", "-N", &inodes.to_string()])
        .args(["-O", "^has_journal,^resize_inode,^metadata_csum,uninit_bg"])
        .args(["-E", "lazy_itable_init=1,nodiscard"])
        // Descriptors of the host are closed at exec: the program opens the file by this process's.
        .arg(path.replace("self", &std::process::id().to_string()))
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null());
    let output = command.output().map_err(|source| {
        unavailable(format!("mkfs.ext4: {source}"), "install e2fsprogs, or set no scratch folder")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let why = format!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim());
    Err(unavailable(why, "set no scratch folder"))
}

/// Attaches a file to a loop device, and returns a detached mount of it.
fn mount(file: &File) -> io::Result<OwnedFd> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..TRIES {
        let device = PathBuf::from(format!("/dev/loop{}", sys::free_loop(&control)?));
        let open = File::options().read(true).write(true).open(&device)?;
        match sys::configure_loop(&open, file.as_raw_fd().cast_unsigned(), false) {
            // The mount holds the device when this descriptor of it is closed.
            Ok(()) => return sys::detached_mount(c"ext4", &device),
            // Another process was faster.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// The scratch space of most functions: 512 MB.
const USUAL: Size = (512 << 20, 65_536);
/// Disks of one size that are made ahead.
const READY_MAX: usize = 4;
/// Sizes of which disks are made ahead.
const SIZES_MAX: usize = 2;
/// Sizes whose empty file system is kept: some hundred KiB each.
const IMAGES_MAX: usize = 8;
/// The pause before a disk is made ahead.
const QUIET_TIME: Duration = Duration::from_millis(20);
const BLOCK_BYTES: u64 = 4096;
const CHUNK_BYTES: usize = 4096;
const INODE_BYTES: u64 = 256;
/// Inodes that the file system uses itself.
const INODES_OWN: u64 = 16;
/// The place of `s_r_blocks_count_lo` in the file: the superblock begins at 1024.
const RESERVED_AT: u64 = 1024 + 8;
/// Attempts to get a free loop device.
const TRIES: usize = 64;
