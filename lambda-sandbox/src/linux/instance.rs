//! One host among those of this machine: its number, its user ids, and the cleanup after crashed
//! hosts.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::linux::features::{INITIAL, Rights};
use crate::linux::group::cgroup::{Hierarchies, remove_folder};

/// Root's folder for locks and mount points.
const HOME: &str = "/run/lambda-sandbox";

/// Returns the folder for locks and mount points. Without root it is the user's own.
fn home() -> PathBuf {
    match Rights::own() {
        Rights::Root => PathBuf::from(HOME),
        // Root without CAP_SYS_ADMIN makes groups in the same folders as root, so it must use the
        // same locks.
        Rights::User { user: 0, .. } if *INITIAL => PathBuf::from(HOME),
        Rights::User { user, .. } => {
            // Root of a user namespace is another user outside, but shares the temporary folder
            // with the machine's root.
            let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let outside = map.split_whitespace().nth(1).filter(|_| user == 0).unwrap_or("");
            let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            (own.filter(|folder| folder.is_absolute() && folder.is_dir()))
                .map(|folder| folder.join("lambda-sandbox"))
                .unwrap_or_else(|| {
                    std::env::temp_dir().join(format!("lambda-sandbox-{user}{outside}"))
                })
        }
    }
}

/// Creates the folder `home`. Fails if it belongs to another user or is writable for others.
fn make_home(home: &Path) -> Result<(), Error> {
    let failed = |source| Error::failed("making a folder", home, source);
    let rights = Rights::own();
    let mode = if home == Path::new(HOME) { 0o755 } else { 0o700 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(home).map_err(failed)?;
    let found = fs::symlink_metadata(home).map_err(failed)?;
    let owner = match rights {
        Rights::Root => 0,
        Rights::User { user, .. } => user,
    };
    if found.is_dir() && found.uid() == owner && found.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(Error::Unavailable {
            what: "a folder for locks",
            why: format!("{} is another's, or others may write to it", home.display()),
            remedy: "remove it",
        })
    }
}
/// The prefix of our control groups' names.
const GROUP_PREFIX: &str = "lambda-sandbox-";
/// The most hosts on a machine at a time.
pub(super) const INSTANCES_MAX: u32 = 1024;
/// The user ids of a host: one for each live sandbox, and [`Instance::owner`].
pub(super) const SLOTS_MAX: u32 = 16_384;
/// The number whose user id no sandbox gets.
const OWNER_SLOT: u32 = 0;

/// A number that no other live host of this machine has, with the lock on it. The kernel releases
/// the lock when the host ends, however that happens.
#[derive(Debug)]
pub(super) struct Instance {
    number: u32,
    /// The first user id of this host: that of [`Instance::owner`].
    id_first: u32,
    _lock: File,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    used: BTreeSet<u32>,
    last: u32,
}

impl Instance {
    /// Takes a free number whose user ids, counted from `id_base`, no live host uses.
    pub(super) fn claim(id_base: u32) -> Result<Self, Error> {
        make_home(&home())?;
        let points = ["proc", "dev", "tmp", "sys/fs/cgroup"].map(|name| Self::points().join(name));
        for folder in [Self::stage(), Self::empty()].into_iter().chain(points) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&folder)
                .map_err(|source| Error::failed("making a folder", &folder, source))?;
        }
        crate::linux::guard::kernel_settings::write(&Self::kernel_settings())?;
        for number in 0..INSTANCES_MAX {
            let Some(lock) = lock(number)? else {
                continue;
            };
            let id_first = id_base + number * SLOTS_MAX;
            // The ids are written before the others' are read. If two hosts start at once, at least
            // one sees the other's.
            publish(&lock, id_first)
                .map_err(|source| Error::failed("writing a lock", lock_path(number), source))?;
            if !ids_taken(number, id_first)? {
                return Ok(Self { number, id_first, _lock: lock, slots: Mutex::default() });
            }
        }
        Err(Error::Exhausted { what: "hosts on this machine", max: INSTANCES_MAX as usize })
    }

    /// Returns the empty folder on which each sandbox mounts its root, in its own mount namespace.
    pub(super) fn stage() -> PathBuf {
        home().join("stage")
    }

    /// Returns an empty folder that is bound over hidden folders. That costs less than a file
    /// system for each.
    pub(super) fn empty() -> PathBuf {
        home().join("empty")
    }

    /// Returns the folder with mount points that layers may lack.
    pub(super) fn points() -> PathBuf {
        home().join("points")
    }

    /// Returns the folder that sandboxes see as `/proc/sys`.
    pub(super) fn kernel_settings() -> PathBuf {
        home().join("sys")
    }

    /// Returns the number of this host.
    #[cfg(feature = "systemd")]
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the name of this host's control groups.
    pub(super) fn group(&self) -> String {
        group(self.number)
    }

    /// Takes a number for a sandbox. The search starts after the number taken last.
    pub(super) fn take_slot(&self) -> Result<u32, Error> {
        let mut slots = self.slots();
        let free = (1..=SLOTS_MAX)
            .map(|step| (slots.last + step) % SLOTS_MAX)
            .find(|slot| *slot != OWNER_SLOT && !slots.used.contains(slot));
        let slot = free.ok_or(Error::Exhausted {
            what: "live sandboxes of this host",
            max: SLOTS_MAX as usize - 1,
        })?;
        slots.used.insert(slot);
        slots.last = slot;
        Ok(slot)
    }

    pub(super) fn give_slot(&self, slot: u32) {
        self.slots().used.remove(&slot);
    }

    /// Returns the user and group id of the sandbox in `slot`. No other live sandbox of this
    /// machine has it.
    pub(super) fn id(&self, slot: u32) -> u32 {
        self.id_first + slot
    }

    /// Returns the user and group id outside of a sandbox's root. Inside it owns the files shown.
    /// No process has it.
    pub(super) fn owner(&self) -> u32 {
        self.id(OWNER_SLOT)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the control groups of ended hosts, and returns their paths. The kernel has killed
    /// their processes with the host.
    pub(super) fn sweep(&self, hierarchies: &Hierarchies) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for number in numbers(hierarchies) {
            let (own, folders) = (number == self.number, folders(hierarchies, number));
            // A held lock means a live host. Groups with our number that no slot uses are of an
            // earlier host.
            let held = if own { None } else { lock(number)? };
            if !own && held.is_none() {
                continue;
            }
            for folder in folders {
                self.sweep_group(&folder, own, &mut removed)?;
            }
        }
        Ok(removed)
    }

    fn sweep_group(&self, host: &Path, own: bool, removed: &mut Vec<String>) -> Result<(), Error> {
        let entries = match fs::read_dir(host) {
            Ok(entries) => entries,
            // Its host has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::failed("reading a control group", host, source)),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let slot = entry.file_name().to_string_lossy().parse::<u32>().ok();
            let used = own && slot.is_some_and(|slot| self.slots().used.contains(&slot));
            if used || !path.is_dir() {
                continue;
            }
            drop(fs::write(path.join("cgroup.kill"), "1"));
            remove_folder(&path)?;
            removed.push(path.display().to_string());
        }
        if !own {
            remove_folder(host)?;
            removed.push(host.display().to_string());
        }
        Ok(())
    }

    /// Returns the control groups of this host's sandboxes that exist now.
    pub(super) fn groups(&self, hierarchies: &Hierarchies) -> Vec<PathBuf> {
        (folders(hierarchies, self.number).iter())
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(Iterator::flatten)
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Removes this host's own control groups, after its sandboxes have ended.
    pub(super) fn leave(&self, hierarchies: &Hierarchies) {
        for folder in folders(hierarchies, self.number) {
            // A sandbox that has not ended keeps its group. The next sweep removes it.
            if let Err(error) = fs::remove_dir(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "control group stays");
            }
        }
    }
}

fn group(number: u32) -> String {
    format!("{GROUP_PREFIX}{number}")
}

fn folders(hierarchies: &Hierarchies, number: u32) -> Vec<PathBuf> {
    (hierarchies.roots().into_iter())
        .map(|root| root.join(group(number)))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Returns the numbers of all hosts that have groups, live or not.
fn numbers(hierarchies: &Hierarchies) -> BTreeSet<u32> {
    (hierarchies.roots().iter())
        .filter_map(|root| fs::read_dir(root).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix(GROUP_PREFIX)?.parse().ok()?;
            (number < INSTANCES_MAX).then_some(number)
        })
        .collect()
}

fn lock_path(number: u32) -> PathBuf {
    home().join(format!("{number}.lock"))
}

/// Writes the first user id of the host into its lock file.
fn publish(lock: &File, id_first: u32) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all_at(id_first.to_string().as_bytes(), 0)
}

/// Returns whether another live host uses ids of the range that starts at `id_first`.
fn ids_taken(number: u32, id_first: u32) -> Result<bool, Error> {
    for other in (0..INSTANCES_MAX).filter(|other| *other != number) {
        let Ok(text) = fs::read_to_string(lock_path(other)) else {
            continue;
        };
        let theirs = text.parse::<u32>().ok();
        let meets = theirs.is_some_and(|theirs| theirs.abs_diff(id_first) < SLOTS_MAX);
        if meets && lock(other)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(number: u32) -> Result<Option<File>, Error> {
    let path = lock_path(number);
    let failed = |source| Error::failed("locking a host's number", &path, source);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
