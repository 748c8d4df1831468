//! Limits and usage by control groups of version 1 (v1), version 2 (v2) or both. The mounted
//! hierarchies are read from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::linux::group::block_io::Disk;
use crate::linux::group::counters::Counters;
use crate::linux::group::cpuset;
use crate::linux::group::files::{field, read, set, set_if_there};
use crate::supervise::Sample;
use crate::{BlockIo, Error, Limits, Pressure, Stall};

/// A resource that a group limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Controller {
    /// Memory, in bytes.
    Memory,
    /// Processor time.
    Cpu,
    /// Accounting of processor time (v1; v2 counts it in every group).
    CpuAcct,
    /// The number of processes.
    Pids,
    /// The set of processors.
    CpuSet,
    /// I/O of block devices.
    Io,
    /// Freezing and thawing (v1; v2 can do it in every group).
    Freezer,
}

/// The controllers with their names in v1 and in v2. v2 has no `cpuacct` and no `freezer`: it
/// counts processor time and freezes in every group.
pub(in crate::linux) const CONTROLLERS: [(Controller, &str, Option<&str>); 7] = [
    (Controller::Memory, "memory", Some("memory")),
    (Controller::Cpu, "cpu", Some("cpu")),
    (Controller::CpuAcct, "cpuacct", None),
    (Controller::Pids, "pids", Some("pids")),
    (Controller::CpuSet, "cpuset", Some("cpuset")),
    (Controller::Io, "blkio", Some("io")),
    (Controller::Freezer, "freezer", None),
];

/// The control group hierarchies that are mounted on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// The folder of each v1 controller.
    pub v1: BTreeMap<Controller, PathBuf>,
    /// The folder of the v2 hierarchy.
    pub v2: Option<PathBuf>,
    /// The controllers that are available in the v2 hierarchy.
    pub v2_controllers: BTreeSet<Controller>,
}

impl Hierarchies {
    /// Reads the hierarchies from `/proc/self/mountinfo` and `cgroup.controllers`.
    ///
    /// # Errors
    ///
    /// If `/proc/self/mountinfo` cannot be read.
    pub fn detect() -> Result<Self, Error> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path)
            .map_err(|source| Error::failed("looking for control groups", path, source))?;
        let mut found = Self::parse(&text);
        if let Some(v2) = &found.v2 {
            found.v2_controllers = Self::controllers_of(v2);
        }
        Ok(found)
    }

    /// Returns the controllers that a v2 group can enable for its children (`cgroup.controllers`).
    pub(in crate::linux) fn controllers_of(v2: &Path) -> BTreeSet<Controller> {
        let words = fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        (CONTROLLERS.iter())
            .filter(|(_, _, name)| name.is_some_and(|name| words.contains(&name)))
            .map(|(controller, ..)| *controller)
            .collect()
    }

    /// Parses the text of a `mountinfo` file (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount_point) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => found.v2 = found.v2.or(Some(mount_point)),
                (Some("cgroup"), Some(options)) => {
                    for (controller, name, _) in CONTROLLERS {
                        if options.split(',').any(|option| option == name) {
                            let entry = found.v1.entry(controller);
                            entry.or_insert_with(|| mount_point.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Returns whether control groups can limit this resource on this machine.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.v1.contains_key(&controller) || self.v2_controllers.contains(&controller)
    }

    /// Returns `v1`, `v2`, `hybrid` (both) or `none`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.v1.is_empty(), self.v2.is_some()) {
            (true, true) => "v2",
            (false, true) => "hybrid",
            (false, false) => "v1",
            (true, false) => "none",
        }
    }

    /// Returns the folders in which a host makes its groups, each once.
    pub(in crate::linux) fn roots(&self) -> BTreeSet<PathBuf> {
        self.v1.values().chain(&self.v2).cloned().collect()
    }
}

/// The open files by which a process starts in a group. They are not part of [`Group`], because a
/// live sandbox needs them no longer.
#[derive(Debug, Default)]
pub(in crate::linux) struct Entrance {
    /// The v1 `tasks` files. A process joins by writing `0`, which means itself. Writing a process
    /// id would wait for a grace period of the kernel.
    pub(in crate::linux) tasks: Vec<(PathBuf, OwnedFd)>,
    /// The v2 folder, for CLONE_INTO_CGROUP.
    pub(in crate::linux) v2: Option<OwnedFd>,
}

/// One sandbox's group in each hierarchy. It is not removed on drop, but by [`Group::remove`].
#[derive(Debug, Default)]
pub(in crate::linux) struct Group {
    v1: BTreeMap<Controller, PathBuf>,
    v2: Option<PathBuf>,
    v2_limits: bool,
    folders: BTreeSet<PathBuf>,
    /// The counts at the end of the sandboxes that used the group before.
    before: Sample,
    /// Whether `cgroup.kill` was written. Such a group cannot serve again: the kernel would also
    /// kill a process that is cloned into it from outside later (as of Linux 6.18).
    spent: bool,
    /// The open freezer file. A warm invocation writes it twice, and opening it takes longer than
    /// writing.
    freezer: OnceLock<fs::File>,
}

impl Group {
    /// Makes the groups `host/name` in every hierarchy and sets the limits. On an error it removes
    /// the folders it made.
    pub(in crate::linux) fn make(
        hierarchies: &Hierarchies,
        host: &str,
        name: &str,
        limits: &Limits,
        disks: &BTreeSet<Disk>,
    ) -> Result<Self, Error> {
        let below = |root: &PathBuf| root.join(host).join(name);
        let mut group = Self {
            v1: (hierarchies.v1.iter())
                .map(|(controller, root)| (*controller, below(root)))
                .collect(),
            v2: hierarchies.v2.as_ref().map(below),
            v2_limits: !hierarchies.v2_controllers.is_empty(),
            folders: BTreeSet::new(),
            before: Sample::default(),
            spent: false,
            freezer: OnceLock::new(),
        };
        if group.v2.is_some() {
            // v2 freezes, kills and counts processor time in every group: these v1 groups are not
            // needed.
            group.v1.remove(&Controller::Freezer);
            group.v1.remove(&Controller::CpuAcct);
        }
        if limits.block_io.is_none() {
            group.v1.remove(&Controller::Io);
        }
        if limits.processors.is_none() {
            group.v1.remove(&Controller::CpuSet);
        }
        let made = group
            .make_folders(hierarchies)
            .and_then(|()| group.set(limits))
            .and_then(|()| group.set_processors(hierarchies, limits))
            .and_then(|()| group.set_block_io(limits.block_io.unwrap_or_default(), disks));
        if let Err(error) = made {
            group.remove()?;
            return Err(error);
        }
        Ok(group)
    }

    fn make_folders(&mut self, hierarchies: &Hierarchies) -> Result<(), Error> {
        let wanted: BTreeSet<PathBuf> = self.v1.values().chain(&self.v2).cloned().collect();
        for folder in wanted {
            let result = match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let v2 = self.v2.as_ref() == Some(&folder);
                    make_host_group(&folder, v2.then_some(hierarchies))?;
                    fs::create_dir(&folder)
                }
                result => result,
            };
            result.map_err(|source| Error::failed("making a control group", &folder, source))?;
            self.folders.insert(folder);
        }
        Ok(())
    }

    fn set(&self, limits: &Limits) -> Result<(), Error> {
        let processes = (u64::from(limits.processes_max) + 1).min(PROCESSES_MAX);
        let quota = quota_us(limits.cpus);
        if let Some(memory) = self.v1.get(&Controller::Memory) {
            set(memory, "memory.limit_in_bytes", limits.memory_bytes)?;
            set_if_there(memory, "memory.memsw.limit_in_bytes", limits.memory_bytes)?;
            set_if_there(memory, "memory.swappiness", 0)?;
            // v1 counts the memory of sockets apart from the rest; v2 counts all together.
            let sockets = limits.memory_bytes / SOCKETS_PART;
            set_if_there(memory, "memory.kmem.tcp.limit_in_bytes", sockets)?;
        }
        if let Some(cpu) = self.v1.get(&Controller::Cpu) {
            set(cpu, "cpu.cfs_period_us", PERIOD_US)?;
            set(cpu, "cpu.cfs_quota_us", quota)?;
            if let Some(weight) = limits.cpu_weight {
                set(cpu, "cpu.shares", cpuset::shares(weight))?;
            }
        }
        if let Some(pids) = self.v1.get(&Controller::Pids) {
            set(pids, "pids.max", processes)?;
        }
        if let (Some(v2), true) = (&self.v2, self.v2_limits) {
            set_if_there(v2, "memory.max", limits.memory_bytes)?;
            set_if_there(v2, "memory.swap.max", 0)?;
            set_if_there(v2, "memory.oom.group", 1)?;
            set_if_there(v2, "cpu.max", format!("{quota} {PERIOD_US}"))?;
            set_if_there(v2, "pids.max", processes)?;
            if let Some(weight) = limits.cpu_weight {
                set_if_there(v2, "cpu.weight", weight)?;
            }
        }
        Ok(())
    }

    /// Sets the limit of processor time, in vCPUs (seconds per second of wall time). Does nothing
    /// without a controller for it.
    pub(in crate::linux) fn set_cpus(&self, cpus: f64) -> Result<(), Error> {
        let quota = quota_us(cpus);
        if let Some(cpu) = self.v1.get(&Controller::Cpu) {
            set(cpu, "cpu.cfs_quota_us", quota)?;
        }
        if let (Some(v2), true) = (&self.v2, self.v2_limits) {
            set_if_there(v2, "cpu.max", format!("{quota} {PERIOD_US}"))?;
        }
        Ok(())
    }

    fn set_processors(&self, hierarchies: &Hierarchies, limits: &Limits) -> Result<(), Error> {
        let Some(processors) = &limits.processors else {
            return Ok(());
        };
        let v2 =
            self.v2.as_ref().filter(|_| hierarchies.v2_controllers.contains(&Controller::CpuSet));
        match (self.v1.get(&Controller::CpuSet), v2) {
            (Some(v1), _) => cpuset::set_v1(v1, processors),
            (None, Some(v2)) => cpuset::set_v2(v2, processors),
            (None, None) => Err(cpuset::unavailable()),
        }
    }

    fn set_block_io(&self, limits: BlockIo, disks: &BTreeSet<Disk>) -> Result<(), Error> {
        let set_limits =
            || limits.named().into_iter().filter_map(|(v1, v2, limit)| Some((v1, v2, limit?)));
        for (major, minor) in disks {
            for (v1_name, v2_name, limit) in set_limits() {
                if let Some(v1) = self.v1.get(&Controller::Io) {
                    let file = format!("blkio.throttle.{v1_name}_device");
                    set(v1, &file, format!("{major}:{minor} {limit}"))?;
                } else if let (Some(v2), true) = (&self.v2, self.v2_limits) {
                    set_if_there(v2, "io.max", format!("{major}:{minor} {v2_name}={limit}"))?;
                }
            }
        }
        Ok(())
    }

    /// Returns the time that processes of the group have stalled (PSI). Only v2 groups count it.
    pub(in crate::linux) fn pressure(&self) -> Option<Pressure> {
        let v2 = self.v2.as_ref()?;
        let stall = |file: &str| Stall::parse(&read(&v2.join(file))?);
        let (cpu, memory, io) =
            (stall("cpu.pressure")?, stall("memory.pressure")?, stall("io.pressure")?);
        Some(Pressure { cpu, memory, io })
    }

    /// Returns the group's current memory in bytes and its current number of processes.
    pub(in crate::linux) fn live(&self) -> (Option<u64>, Option<u32>) {
        let v2 = self.v2.as_ref().filter(|_| self.v2_limits);
        let number = |folder: Option<&PathBuf>, file: &str| {
            read(&folder?.join(file))?.trim().parse::<u64>().ok()
        };
        let memory = number(self.v1.get(&Controller::Memory), "memory.usage_in_bytes");
        let processes = number(self.v1.get(&Controller::Pids), "pids.current");
        (
            memory.or_else(|| number(v2, "memory.current")),
            processes.or_else(|| number(v2, "pids.current")).and_then(|it| it.try_into().ok()),
        )
    }

    /// Opens the files by which a process starts in the group.
    pub(in crate::linux) fn entrance(&self) -> Result<Entrance, Error> {
        let open = |path: &Path, options: &fs::OpenOptions| {
            let file = options.open(path);
            file.map_err(|source| Error::failed("opening a control group", path, source))
        };
        let folders: BTreeSet<&PathBuf> = self.v1.values().collect();
        let tasks = folders.into_iter().map(|folder| {
            let path = folder.join("tasks");
            let file = open(&path, fs::OpenOptions::new().write(true))?;
            Ok((path, file.into()))
        });
        let v2 = self.v2.as_ref().map(|folder| open(folder, fs::OpenOptions::new().read(true)));
        Ok(Entrance {
            tasks: tasks.collect::<Result<_, Error>>()?,
            v2: v2.transpose()?.map(Into::into),
        })
    }

    pub(in crate::linux) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (folder, name, value) = match (&self.v2, self.v1.get(&Controller::Freezer), frozen) {
            (Some(v2), _, true) => (v2, "cgroup.freeze", "1"),
            (Some(v2), _, false) => (v2, "cgroup.freeze", "0"),
            (None, Some(v1), true) => (v1, "freezer.state", "FROZEN"),
            (None, Some(v1), false) => (v1, "freezer.state", "THAWED"),
            (None, None, _) => return Ok(()),
        };
        let failed = |source| Error::failed("setting a control group", folder.join(name), source);
        let mut file = match self.freezer.get() {
            Some(file) => file,
            None => {
                let path = folder.join(name);
                let file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
                self.freezer.get_or_init(|| file)
            }
        };
        file.write_all(value.as_bytes()).map_err(failed)
    }

    /// Ends the group's processes after its init was killed. The kernel kills the rest with the
    /// init, one after another. If there are more than [`CROWD_MIN`], they are killed at once
    /// instead.
    pub(in crate::linux) fn end(&mut self) {
        let current = [self.v1.get(&Controller::Pids), self.v2.as_ref().filter(|_| self.v2_limits)]
            .into_iter()
            .flatten()
            .find_map(|folder| read(&folder.join("pids.current"))?.trim().parse::<u32>().ok());
        if current.is_none_or(|current| current > CROWD_MIN) {
            self.spent = true;
            self.kill();
        } else {
            drop(self.freeze(false));
        }
    }

    /// Kills all processes of the group, frozen or not. Write errors are ignored: a group that
    /// cannot be written is gone.
    pub(in crate::linux) fn kill(&self) {
        if let Some(v2) = &self.v2 {
            // Before Linux 5.14 there is no such file. The end of pid 1 kills the rest then.
            drop(fs::write(v2.join("cgroup.kill"), "1"));
        }
        drop(self.freeze(false));
    }

    /// Prepares an empty group for another sandbox with the same limits. Returns whether that was
    /// possible.
    ///
    /// It is not possible if v2 counts the memory, because the peak cannot be reset there; nor if
    /// much memory is still charged to the group. Files that were read stay charged as page cache,
    /// and move to the host's group when this one is removed. The rest is memory that the kernel
    /// frees late or caches for each processor: half a MiB as a rule, which becomes part of the
    /// next peak.
    pub(in crate::linux) fn renew(&mut self) -> bool {
        let empty = match &self.v2 {
            Some(v2) => read(&v2.join("cgroup.events"))
                .is_some_and(|text| field(&text, "populated") == Some(0)),
            None => (self.folders.iter())
                .all(|folder| read(&folder.join("cgroup.procs")).is_some_and(|it| it.is_empty())),
        };
        if self.spent || self.v2_limits || !empty {
            return false;
        }
        if let Some(memory) = self.v1.get(&Controller::Memory) {
            let left = read(&memory.join("memory.usage_in_bytes"));
            let left = left.and_then(|text| text.trim().parse().ok());
            let files = read(&memory.join("memory.stat")).and_then(|text| field(&text, "cache"));
            if left.is_none_or(|left: u64| left > LEFT_BYTES_MAX)
                || files.is_none_or(|files| files > FILES_BYTES_MAX)
                || set(memory, "memory.max_usage_in_bytes", 0).is_err()
            {
                return false;
            }
        }
        self.before = self.counters().counted();
        true
    }

    /// Opens the group's counters. They report the usage of this sandbox only.
    pub(in crate::linux) fn counters(&self) -> Counters {
        let v1 = |controller| self.v1.get(&controller).map(PathBuf::as_path);
        let (memory, processor) = (v1(Controller::Memory), v1(Controller::CpuAcct));
        Counters::open(memory, processor, self.v2.as_deref(), self.before)
    }

    /// Removes the folders. Waits until the kernel has removed the group's processes, which takes a
    /// moment after a kill.
    pub(in crate::linux) fn remove(&self) -> Result<(), Error> {
        self.folders.iter().try_for_each(|folder| remove_folder(folder))
    }
}

/// Makes the parent group of all sandboxes of this host. In v2 it enables the controllers for them.
fn make_host_group(sandbox: &Path, v2: Option<&Hierarchies>) -> Result<(), Error> {
    let Some(host) = sandbox.parent() else {
        return Ok(());
    };
    match fs::create_dir(host) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::failed("making a control group", host, error));
        }
        _ => {}
    }
    let Some(hierarchies) = v2 else {
        return Ok(());
    };
    for (controller, _, name) in CONTROLLERS {
        // Few sandboxes ask for cpuset, and each controller makes every group more expensive. It is
        // enabled at its first use.
        let wanted = controller != Controller::CpuSet;
        let there = hierarchies.v2_controllers.contains(&controller);
        if let (true, Some(name)) = (wanted && there, name) {
            for folder in [host.parent().unwrap_or(host), host] {
                set(folder, "cgroup.subtree_control", format!("+{name}"))?;
            }
        }
    }
    Ok(())
}

/// Removes an empty group. Retries while its processes are still exiting (EBUSY).
pub(in crate::linux) fn remove_folder(folder: &Path) -> Result<(), Error> {
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause < PAUSE_MAX => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(source) => {
                return Err(Error::failed("removing a control group", folder, source));
            }
        }
    }
}

/// With more processes and threads than this a group is killed at once.
const CROWD_MIN: u32 = 64;
/// The most memory, in bytes, that may be charged to a group that serves again. Forcing it out
/// (`memory.force_empty`) takes 0.5 to 5 ms, and drops cached files that the next sandbox reads.
const LEFT_BYTES_MAX: u64 = 1024 * 1024;
/// The most of that memory, in bytes, that may be cached files, which stay charged until they are
/// evicted.
const FILES_BYTES_MAX: u64 = 64 * 1024;
/// The pause at which removal gives up. The pauses before it add up to about two seconds.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// v1: the memory of TCP sockets is limited to this fraction (1/16) of the memory limit, on top of
/// it.
const SOCKETS_PART: u64 = 16;
/// The period of processor time quotas, in microseconds.
pub(in crate::linux) const PERIOD_US: u64 = 100_000;
/// The longest quota, in microseconds, that the kernel accepts: 44 bits. No machine could use it
/// up.
const QUOTA_US_MAX: u64 = (1 << 44) - 1;
/// The largest process limit that the kernel accepts: its maximum of process numbers.
const PROCESSES_MAX: u64 = 4_194_304;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked by the specification to be finite and positive; more vCPUs than u64 saturate"
)]
pub(in crate::linux) fn quota_us(cpus: f64) -> u64 {
    ((cpus * 100_000.0) as u64).clamp(1_000, QUOTA_US_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_mountinfo() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 31 0:30 / /cg/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(found.kind(), "hybrid");
        assert_eq!(found.v1[&Controller::Memory], Path::new("/cg/memory"));
        assert_eq!(found.v1[&Controller::Cpu], found.v1[&Controller::CpuAcct]);
        let v2 = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(v2.kind(), "v2");
        assert_eq!(Hierarchies::parse("").kind(), "none");
    }
}
