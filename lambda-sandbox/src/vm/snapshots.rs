//! Snapshots of machines whose sandbox has ended its init. A snapshot is a folder of three files
//! beside the images: state, memory, and the memory's checksum. It is kept under a digest of all
//! that the saved machine depends on, so that another kernel, base, code, size or processor never
//! meets it.
//!
//! The files are written in a folder of another name, which is renamed when all of them are on
//! disk. So a host or a machine that ends in the middle leaves no snapshot. The checksum is
//! compared when a host uses a snapshot for the first time: later changes by the disk are not
//! noticed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::image::{Images, hexadecimal, identity};
use super::settings::Settings;
use super::sums;
use super::unfinished::{self, Unfinished};
use crate::{Error, SandboxSpec, TimeLimits, VmSize};

/// The snapshots of one folder of images.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    images: Images,
    kept_max: usize,
    /// Held while a snapshot is made, so that each is made once.
    making: Arc<Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>>,
    /// The memory files whose checksum was right.
    checked: Arc<Mutex<BTreeMap<Key, [u64; 7]>>>,
    /// What a saved processor depends on.
    processor: Arc<str>,
}

/// The name of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String);

/// The files of a snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) state: File,
    pub(super) memory: File,
}

/// A snapshot whose files are being written. Dropping it deletes the files, unless
/// [`Snapshots::keep`] has taken them.
#[derive(Debug)]
pub(super) struct Writing {
    folder: Unfinished,
    pub(super) files: Snapshot,
}

impl Snapshots {
    pub(super) fn new(images: Images, kept_max: usize) -> Self {
        let processor = processor("/proc/cpuinfo".as_ref(), "/proc/version".as_ref()).into();
        Self { images, kept_max, making: Arc::default(), checked: Arc::default(), processor }
    }

    /// Returns what must be held while the snapshot with this key is looked for and made.
    pub(super) fn turn(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(making.entry(key.clone()).or_default())
    }

    /// Opens the snapshot with this key, if there is one. Blocks.
    pub(super) fn open(&self, key: &Key) -> Result<Option<Snapshot>, Error> {
        let folder = self.folder(key);
        let open = |name| {
            let path = folder.join(name);
            match File::open(&path) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::failed("opening a snapshot", path, source)),
            }
        };
        let (Some(state), Some(memory), Some(sum)) = (open(STATE)?, open(MEMORY)?, open(SUM)?)
        else {
            // A part of it may be there.
            self.forget(key);
            return Ok(None);
        };
        self.check(key, &memory, &sum).inspect_err(|_| self.forget(key))?;
        // When it was used last. That it cannot be noted makes it go earlier.
        drop(
            OpenOptions::new()
                .write(true)
                .open(folder.join(STATE))
                .and_then(|file| file.set_modified(SystemTime::now())),
        );
        Ok(Some(Snapshot { state, memory }))
    }

    /// Checks a memory file, once for each host.
    fn check(&self, key: &Key, memory: &File, sum: &File) -> Result<(), Error> {
        let at = || self.folder(key).join(MEMORY);
        let failed = |source| Error::failed("checking the memory of a snapshot", at(), source);
        let found = identity(&memory.metadata().map_err(failed)?);
        if self.checked().get(key) == Some(&found) {
            return Ok(());
        }
        let expected = io::read_to_string(sum).map_err(failed)?;
        if sums::of(memory).map_err(failed)?.to_string() != expected {
            return Err(failed(io::Error::other("its checksum is wrong")));
        }
        let mut checked = self.checked();
        if checked.len() > CHECKED_MAX {
            checked.clear();
        }
        checked.insert(key.clone(), found);
        Ok(())
    }

    fn checked(&self) -> MutexGuard<'_, BTreeMap<Key, [u64; 7]>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the files of a new snapshot. Blocks.
    pub(super) fn begin(&self) -> Result<Writing, Error> {
        let within = self.images.folder();
        let failed = |source| Error::failed("making the files of a snapshot", within, source);
        let folder = Unfinished::folder(within, EXTENSION).map_err(failed)?;
        let make = |name| new_file(&folder.path.join(name)).map_err(failed);
        let files = Snapshot { state: make(STATE)?, memory: make(MEMORY)? };
        Ok(Writing { folder, files })
    }

    /// Keeps a snapshot that was written, and removes those that were not used for longest beyond
    /// the most that are kept. Blocks.
    pub(super) fn keep(&self, writing: Writing, key: &Key) -> Result<(), Error> {
        let folder = self.folder(key);
        writing.finish().map_err(|source| {
            Error::failed("writing a snapshot to disk", &writing.folder.path, source)
        })?;
        match fs::rename(&writing.folder.path, &folder) {
            Ok(()) => {
                // This host has just written it.
                if let Ok(found) = writing.files.memory.metadata() {
                    self.checked().insert(key.clone(), identity(&found));
                }
            }
            // Another host has made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(source) => return Err(Error::failed("keeping a snapshot", folder, source)),
        }
        let synced = File::open(self.images.folder()).and_then(|within| within.sync_all());
        synced.map_err(|source| Error::failed("keeping a snapshot", &folder, source))?;
        let mut kept: Vec<(SystemTime, PathBuf)> = self.kept()?;
        kept.sort();
        let beyond = kept.len().saturating_sub(self.kept_max.max(1));
        // Machines that run from them go on: they have the files open.
        kept.drain(..beyond).for_each(|(_, old)| unfinished::remove(&old));
        Ok(())
    }

    /// Removes a snapshot from which no machine can be restored. Blocks.
    pub(super) fn forget(&self, key: &Key) {
        unfinished::remove(&self.folder(key));
        self.checked().remove(key);
    }

    /// Returns the folders of all snapshots, with when each was used last.
    fn kept(&self) -> Result<Vec<(SystemTime, PathBuf)>, Error> {
        let at = self.images.folder();
        let failed = |source| Error::failed("reading a folder of snapshots", at, source);
        let mut kept = Vec::new();
        for entry in fs::read_dir(at).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|it| it == EXTENSION) {
                let used = fs::metadata(path.join(STATE)).and_then(|it| it.modified());
                kept.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
        }
        Ok(kept)
    }

    fn folder(&self, key: &Key) -> PathBuf {
        self.images.folder().join(format!("{}.{EXTENSION}", key.0))
    }
}

impl Writing {
    /// Adds the checksum, and waits until all files are on disk.
    fn finish(&self) -> io::Result<()> {
        let Snapshot { state, memory } = &self.files;
        let mut sum = new_file(&self.folder.path.join(SUM))?;
        sum.write_all(sums::of(memory)?.to_string().as_bytes())?;
        let folder = File::open(&self.folder.path)?;
        [state, memory, &sum, &folder].into_iter().try_for_each(File::sync_all)
    }
}

/// Makes a file that only its owner can read and write, since it holds the memory of a function.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

impl Snapshots {
    /// Returns the key of a sandbox: by its name for the snapshot, its specification with the
    /// images as the guest sees them, the size of its machine, the programs, and this processor.
    /// Blocks.
    pub(super) fn key(
        &self,
        name: &str,
        spec: &SandboxSpec,
        images: &[PathBuf],
        size: VmSize,
        settings: &Settings,
    ) -> Result<Key, Error> {
        let mut digest = Sha256::new();
        for path in [&settings.kernel, &settings.guest, &settings.monitor] {
            let found = fs::metadata(path);
            let failed = |source| Error::failed("looking at a part of a machine", path, source);
            for number in identity(&found.map_err(failed)?) {
                digest.update(number.to_le_bytes());
            }
        }
        let SandboxSpec { function, root, command, environment, limits, .. } = spec;
        // The time of an init that is over does not matter.
        let times = TimeLimits { init: TimeLimits::default().init, ..spec.times };
        let (folder, guest_bytes) = (&spec.working_directory, settings.guest_bytes);
        let parts = (name, function, root, command, environment, folder);
        // Texts of these types have all of their fields.
        let text = format!("{parts:?} {limits:?} {times:?} {images:?} {size:?} {guest_bytes}");
        digest.update(text);
        digest.update(self.processor.as_bytes());
        Ok(Key(hexadecimal(&digest.finalize())))
    }
}

/// Returns what a saved processor depends on: the model, its features, its microcode, and the
/// kernel with its KVM.
fn processor(processors: &Path, kernel: &Path) -> String {
    let text = fs::read_to_string(processors).unwrap_or_default();
    let first = text.lines().take_while(|line| !line.is_empty());
    let names = ["vendor_id", "model name", "model\t", "stepping", "microcode", "flags"];
    let lines = first.filter(|line| names.iter().any(|name| line.starts_with(name)));
    let lines: Vec<&str> = lines.collect();
    format!("{}\n{}", lines.join("\n"), fs::read_to_string(kernel).unwrap_or_default())
}

const STATE: &str = "state";
const MEMORY: &str = "memory";
const SUM: &str = "sum";
/// Checked files that are remembered.
const CHECKED_MAX: usize = 1024;
const EXTENSION: &str = "snapshot";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;

    fn snapshots(folder: &Path, kept_max: usize) -> Snapshots {
        Snapshots::new(Images::open(folder).expect("a folder"), kept_max)
    }

    fn settings(folder: &Path) -> Settings {
        let part = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, name).expect("written");
            path
        };
        Settings::new(part("kernel"), part("guest"), part("monitor"), folder)
    }

    #[test]
    fn each_part_of_a_machine_changes_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(folder.path());
        let keys = snapshots(folder.path(), 1);
        let spec = SandboxSpec::new(Root::of_directory("/b"), ["/run"]).with_env("NAME", "value");
        let size = VmSize::of_memory(128 << 20);
        let key = |name: &str, spec: &SandboxSpec, images: &[&str], size, settings: &Settings| {
            let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
            keys.key(name, spec, &images, size, settings).expect("a key")
        };
        let usual = key("a", &spec, &["/1"], size, &settings);
        assert_eq!(usual, key("a", &spec, &["/1"], size, &settings));
        let mut larger = settings.clone();
        larger.guest_bytes += 4096;
        let smaller = spec.clone().with_memory_mb(127);
        let others = [
            key("b", &spec, &["/1"], size, &settings),
            key("a", &spec.clone().with_env("NAME", "other"), &["/1"], size, &settings),
            key("a", &smaller, &["/1"], size, &settings),
            key("a", &spec.clone().named("other"), &["/1"], size, &settings),
            key("a", &spec, &["/2"], size, &settings),
            key("a", &spec, &["/1"], VmSize::of_memory(64 << 20), &settings),
            key("a", &spec, &["/1"], size, &larger),
        ];
        for other in others {
            assert_ne!(other, usual);
        }
        fs::write(&settings.kernel, "another kernel").expect("written");
        assert_ne!(key("a", &spec, &["/1"], size, &settings), usual);
    }

    #[test]
    fn another_processor_or_kernel_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (processors, kernel) = (folder.path().join("cpuinfo"), folder.path().join("version"));
        let seen = |flags: &str, version: &str| {
            let text = format!("processor\t: 0\nflags\t\t: {flags}\ncpu MHz\t: {version}\n\n");
            fs::write(&processors, text).expect("written");
            fs::write(&kernel, version).expect("written");
            processor(&processors, &kernel)
        };
        let usual = seen("fpu svm", "6.1");
        assert_eq!(seen("fpu svm", "6.1"), usual);
        assert_ne!(seen("fpu", "6.1"), usual);
        assert_ne!(seen("fpu svm", "6.2"), usual);
        assert!(!usual.contains("MHz"), "{usual}");
    }

    #[test]
    fn the_snapshots_that_were_not_used_for_longest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = snapshots(folder.path(), 2);
        let key = |name: &str| Key(name.to_owned());
        let used = |name: &str, seconds| {
            let state = snapshots.folder(&key(name)).join(STATE);
            let file = OpenOptions::new().write(true).open(state).expect("opened");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).expect("set");
        };
        for (name, seconds) in [("a", 20), ("b", 10)] {
            let writing = snapshots.begin().expect("files");
            snapshots.keep(writing, &key(name)).expect("kept");
            used(name, seconds);
        }
        let writing = snapshots.begin().expect("files");
        snapshots.keep(writing, &key("c")).expect("kept");
        let is_there = |name: &str| snapshots.open(&key(name)).expect("looked").is_some();
        assert!(is_there("a") && !is_there("b") && is_there("c"));
        // Another host has made the same.
        let writing = snapshots.begin().expect("files");
        snapshots.keep(writing, &key("a")).expect("used");
        assert!(is_there("a"));
        snapshots.forget(&key("a"));
        assert!(!is_there("a"));
        // One that has lost a file is none, and leaves nothing.
        fs::remove_file(snapshots.folder(&key("c")).join(MEMORY)).expect("removed");
        assert!(!is_there("c") && !snapshots.folder(&key("c")).exists());
        // What was not finished is removed: this host may end here.
        let writing = snapshots.begin().expect("files");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
        assert!(snapshots.images.sweep().expect("swept").is_empty(), "it is being written");
        drop(writing);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[test]
    fn a_changed_memory_file_is_noticed_once_by_each_host_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Key("a".to_owned());
        let make = || {
            let ours = snapshots(folder.path(), 2);
            let mut writing = ours.begin().expect("files");
            writing.files.memory.write_all(&[7; 9000]).expect("written");
            ours.keep(writing, &key).expect("kept");
            ours
        };
        let ours = make();
        assert!(ours.open(&key).expect("looked").is_some());
        let memory = ours.folder(&key).join(MEMORY);
        let mut bytes = fs::read(&memory).expect("read");
        bytes[8999] = 8;
        fs::write(&memory, bytes).expect("written");
        let error = snapshots(folder.path(), 2).open(&key).expect_err("it was changed");
        assert!(error.to_string().contains("checking the memory"), "{error}");
        assert!(!memory.exists());
        // One that was cut, by a host that has used it before.
        let ours = make();
        assert!(ours.open(&key).expect("looked").is_some());
        File::options().write(true).open(&memory).and_then(|it| it.set_len(10)).expect("cut");
        assert!(ours.open(&key).is_err() && !memory.exists());
    }

    /// A host that is killed while it writes a snapshot, at each step: no other host finds the
    /// snapshot, and the next one removes what was written.
    #[test]
    fn a_host_that_is_killed_while_it_writes_leaves_nothing() {
        const NAME: &str = "a_host_that_is_killed_while_it_writes_leaves_nothing";
        let key = Key("a".to_owned());
        if let (Ok(folder), Ok(step)) = (std::env::var("SNAPSHOT_AT"), std::env::var("STOP_AT")) {
            let ours = snapshots(folder.as_ref(), 2);
            let mut writing = ours.begin().expect("files");
            if step != "begun" {
                writing.files.memory.write_all(&[7; 9000]).expect("written");
            }
            if step == "finished" {
                writing.finish().expect("on disk");
            }
            fs::write(Path::new(&folder).join("there"), "").expect("told");
            std::thread::sleep(std::time::Duration::from_secs(60));
            return;
        }
        for step in ["begun", "half", "finished"] {
            let folder = tempfile::tempdir().expect("a folder");
            let test = format!("{}::{NAME}", module_path!().split_once("::").expect("a crate").1);
            let mut host = std::process::Command::new(std::env::current_exe().expect("a path"))
                .args(["--exact", &test, "--nocapture"])
                .envs([("SNAPSHOT_AT", folder.path().as_os_str()), ("STOP_AT", step.as_ref())])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("a host");
            let there = folder.path().join("there");
            let began = std::time::Instant::now();
            while !there.exists() && began.elapsed().as_secs() < 30 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(there.exists(), "{step}");
            let next = snapshots(folder.path(), 2);
            assert!(next.open(&key).expect("looked").is_none(), "{step}");
            assert!(next.images.sweep().expect("swept").is_empty(), "{step}: it is being written");
            host.kill().expect("killed");
            host.wait().expect("waited");
            assert_eq!(next.images.sweep().expect("swept").len(), 1, "{step}");
            assert!(next.open(&key).expect("looked").is_none(), "{step}");
            fs::remove_file(there).expect("removed");
            assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0, "{step}");
        }
    }
}
