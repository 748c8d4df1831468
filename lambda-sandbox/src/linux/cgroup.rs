//! Control groups, version 1, version 2 and hybrid: found, never assumed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Limits};

/// Where each controller can be had on this machine, for groups below the one that this process is in.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchies {
    /// The folder of this process's own group, by controller, in version 1 hierarchies.
    v1: BTreeMap<&'static str, PathBuf>,
    /// The folder of this process's own group in the version 2 hierarchy.
    v2: Option<PathBuf>,
    /// Controllers that version 2 gives to groups made there.
    v2_controllers: Vec<String>,
}

/// The controllers that a sandbox cannot do without, and the one that is good to have.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];
const V1_USED: [&str; 5] = ["memory", "cpu", "pids", "cpuacct", "freezer"];

impl Hierarchies {
    /// Looks at this machine.
    pub(crate) fn find() -> Result<Self, Error> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| Error::failed("read", path, error))
        };
        Ok(Self::parse(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
        ))
    }

    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut found = Self {
            v1: BTreeMap::new(),
            v2: None,
            v2_controllers: Vec::new(),
        };
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ').skip(3);
            let (Some(mounted), Some(at)) = (left.next(), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            let folder = |path: &str| {
                // The group's path counts from the hierarchy's root, of which a part may be mounted here.
                let below = path
                    .strip_prefix(mounted.trim_end_matches('/'))
                    .unwrap_or(path);
                Path::new(at).join(below.trim_start_matches('/'))
            };
            match kind {
                Some("cgroup") => {
                    for name in V1_USED {
                        let listed = options.split(',').any(|option| option == name);
                        if let (true, Some(path)) = (listed, own_path(own, name)) {
                            found.v1.insert(name, folder(path));
                        }
                    }
                }
                Some("cgroup2") => {
                    let folder = folder(own_path(own, "").unwrap_or("/"));
                    let controllers = fs::read_to_string(folder.join("cgroup.controllers"));
                    let controllers = controllers.unwrap_or_default();
                    found.v2_controllers =
                        controllers.split_whitespace().map(str::to_owned).collect();
                    found.v2 = Some(folder);
                }
                _ => {}
            }
        }
        found
    }

    /// Returns what is missing for sandboxes to be limited.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let has = |name: &str| {
            self.v1.contains_key(name) || self.v2_controllers.iter().any(|it| it == name)
        };
        NEEDED.into_iter().filter(|name| !has(name)).collect()
    }

    /// Tells in words where a controller is had.
    pub(crate) fn describe(&self, controller: &str) -> String {
        let version = if self.v1.contains_key(controller) {
            "v1"
        } else {
            "v2"
        };
        format!("cgroup {version}, controller {controller}")
    }

    /// Every folder below which groups are made, each once.
    fn parents(&self) -> Vec<&PathBuf> {
        let mut parents: Vec<_> = self.v1.values().chain(&self.v2).collect();
        parents.sort();
        parents.dedup();
        parents
    }

    /// Makes the groups of one sandbox and sets their limits.
    pub(crate) fn make(&self, name: &str, limits: &Limits) -> Result<Group, Error> {
        let group = Group {
            name: name.to_owned(),
            hierarchies: self.clone(),
        };
        // What was made is removed again when a later step fails: by `Group`'s drop.
        for parent in self.parents() {
            let folder = parent.join(name);
            fs::create_dir(&folder)
                .map_err(|error| Error::failed("create cgroup", folder, error))?;
        }
        group.limit(limits)?;
        Ok(group)
    }

    /// Removes the groups of hosts that have ended, and what still runs in them; returns their names.
    pub(crate) fn sweep(&self) -> Result<Vec<String>, Error> {
        let mut swept = std::collections::BTreeSet::new();
        for parent in self.parents() {
            let entries =
                fs::read_dir(parent).map_err(|error| Error::failed("read", parent, error))?;
            for name in entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
            {
                if Owner::of(&name).is_some_and(|owner| !owner.lives()) {
                    swept.insert(name);
                }
            }
        }
        for name in &swept {
            Group {
                name: name.clone(),
                hierarchies: self.clone(),
            }
            .remove()?;
        }
        Ok(swept.into_iter().collect())
    }
}

fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|it| it == controller)
            .then_some(path)
    })
}

/// The process that made a group, told by the group's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// In clock ticks since boot: tells processes apart that had the same number.
    started: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Result<Self, Error> {
        let pid = std::process::id();
        let started = started(pid).ok_or_else(|| {
            Error::failed("read", "/proc/self/stat", io::ErrorKind::InvalidData.into())
        })?;
        Ok(Self { pid, started })
    }

    /// The name of its group number `number`.
    pub(crate) fn group_name(&self, number: u64) -> String {
        format!("{PREFIX}{}-{}-{number}", self.pid, self.started)
    }

    fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { pid, started })
    }

    fn lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may hold blanks and brackets.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The groups of one sandbox, removed on drop.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    hierarchies: Hierarchies,
}

impl Group {
    fn v1(&self, controller: &str, file: &str) -> Option<PathBuf> {
        Some(
            self.hierarchies
                .v1
                .get(controller)?
                .join(&self.name)
                .join(file),
        )
    }

    fn v2(&self, file: &str) -> Option<PathBuf> {
        Some(self.hierarchies.v2.as_ref()?.join(&self.name).join(file))
    }

    fn limit(&self, limits: &Limits) -> Result<(), Error> {
        let quota = quota_us(limits.cpus);
        let memory = limits.memory_bytes.to_string();
        let processes = limits.processes_max.to_string();
        let mut settings = Vec::new();
        for name in NEEDED {
            settings.extend(match (self.hierarchies.v1.contains_key(name), name) {
                (true, "memory") => vec![
                    (self.v1(name, "memory.swappiness"), "0".to_owned()),
                    (self.v1(name, "memory.limit_in_bytes"), memory.clone()),
                ],
                (true, "cpu") => vec![
                    (
                        self.v1(name, "cpu.cfs_period_us"),
                        CPU_PERIOD_US.to_string(),
                    ),
                    (self.v1(name, "cpu.cfs_quota_us"), quota.to_string()),
                ],
                (true, _) => vec![(self.v1(name, "pids.max"), processes.clone())],
                (false, "memory") => vec![
                    (self.v2("memory.max"), memory.clone()),
                    (self.v2("memory.oom.group"), "1".to_owned()),
                ],
                (false, "cpu") => vec![(self.v2("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))],
                (false, _) => vec![(self.v2("pids.max"), processes.clone())],
            });
        }
        for (file, value) in settings {
            let Some(file) = file else { continue };
            fs::write(&file, value).map_err(|error| Error::failed("set limit", file, error))?;
        }
        Ok(())
    }

    /// Opens the files through which a process puts itself into the groups, by writing `0`.
    ///
    /// A process that writes its own `0` to a version 1 `tasks` waits for nobody; a manager that writes a pid to
    /// `cgroup.procs` waits for an RCU grace period.
    pub(crate) fn entrances(&self) -> Result<Vec<File>, Error> {
        let mut paths: Vec<PathBuf> = self
            .hierarchies
            .v1
            .keys()
            .filter_map(|it| self.v1(it, "tasks"))
            .collect();
        paths.sort();
        paths.dedup_by(|a, b| a.parent() == b.parent());
        paths.extend(self.v2("cgroup.procs"));
        let open = |path: PathBuf| {
            let file = OpenOptions::new().write(true).open(&path);
            file.map_err(|error| Error::failed("open cgroup", path, error))
        };
        paths.into_iter().map(open).collect()
    }

    /// Stops or continues everything in the group; returns when it has stopped.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        if let Some(file) = self.v2("cgroup.freeze") {
            let value = if frozen { "1" } else { "0" };
            return fs::write(&file, value).map_err(|error| Error::failed("freeze", file, error));
        }
        let Some(file) = self.v1("freezer", "freezer.state") else {
            return Ok(());
        };
        let value = if frozen { "FROZEN" } else { "THAWED" };
        fs::write(&file, value).map_err(|error| Error::failed("freeze", file, error))
    }

    /// Ends everything in the group at once, frozen or not.
    pub(crate) fn kill(&self) {
        // A group that is gone has nothing to end.
        if let Some(file) = self.v2("cgroup.kill") {
            drop(fs::write(file, "1"));
        }
        if let Some(file) = self.v1("freezer", "freezer.state") {
            drop(fs::write(file, "THAWED"));
        }
    }

    /// How often the memory limit killed a process of the group.
    pub(crate) fn memory_kills(&self) -> u64 {
        let v1 = self.v1("memory", "memory.oom_control");
        let file = v1.or_else(|| self.v2("memory.events"));
        let text = file
            .and_then(|file| fs::read_to_string(file).ok())
            .unwrap_or_default();
        let field = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        field
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or_default()
    }

    pub(crate) fn memory_peak_bytes(&self) -> Option<u64> {
        let v1 = self.v1("memory", "memory.max_usage_in_bytes");
        let text = fs::read_to_string(v1.or_else(|| self.v2("memory.peak"))?).ok()?;
        text.trim().parse().ok()
    }

    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        if let Some(file) = self.v1("cpuacct", "cpuacct.usage") {
            return Some(Duration::from_nanos(
                fs::read_to_string(file).ok()?.trim().parse().ok()?,
            ));
        }
        let text = fs::read_to_string(self.v2("cpu.stat")?).ok()?;
        let us = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(Duration::from_micros(us.trim().parse().ok()?))
    }

    /// Ends what runs in the groups and removes them; waits for both, for two seconds at the most.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for attempt in 0..REMOVE_ATTEMPTS {
            self.kill();
            self.kill_each();
            let mut busy = None;
            for parent in self.hierarchies.parents() {
                let folder = parent.join(&self.name);
                match fs::remove_dir(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => busy = Some(Error::failed("remove cgroup", folder, error)),
                }
            }
            match busy {
                None => return Ok(()),
                Some(error) if attempt + 1 == REMOVE_ATTEMPTS => return Err(error),
                // Processes that were killed leave their groups a moment later.
                Some(_) => std::thread::sleep(REMOVE_PAUSE),
            }
        }
        Ok(())
    }

    /// Version 1 has no `cgroup.kill`.
    fn kill_each(&self) {
        for controller in self.hierarchies.v1.keys() {
            let Some(file) = self.v1(controller, "cgroup.procs") else {
                continue;
            };
            for pid in fs::read_to_string(file).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse() {
                    let pid = Pid::from_raw(pid);
                    // It may have ended meanwhile.
                    kill(pid, Signal::SIGKILL).unwrap_or_default();
                }
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next start's sweep.
        drop(self.remove());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by the clamp"
)]
fn quota_us(cpus: f64) -> u64 {
    (cpus * CPU_PERIOD_US as f64).clamp(1000.0, 1e12) as u64
}

const PREFIX: &str = "lambda-sandbox-";
const CPU_PERIOD_US: u64 = 100_000;
const REMOVE_ATTEMPTS: u32 = 400;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 31 0:30 / /nowhere rw - cgroup2 cgroup2 rw";

    #[test]
    fn finds_controllers_where_they_are() {
        let own = "4:cpu,cpuacct:/a/b\n3:memory:/\n2:pids:/c\n0::/d";
        let found = Hierarchies::parse(HYBRID, own);
        assert_eq!(found.v1["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(found.v1["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/nowhere/d")));
        assert_eq!(found.missing(), [""; 0]);
        assert_eq!(found.parents().len(), 4, "cpu and cpuacct share one");
    }

    #[test]
    fn says_what_is_missing() {
        let found = Hierarchies::parse(HYBRID, "3:memory:/\n0::/d");
        assert_eq!(found.missing(), ["cpu", "pids"]);
    }

    #[test]
    fn owners_are_told_by_name() {
        let this = Owner::this().unwrap();
        let name = this.group_name(7);
        assert_eq!(Owner::of(&name), Some(this));
        assert!(Owner::of(&name).unwrap().lives());
        let other = Owner::of("lambda-sandbox-1-999999999999-0").unwrap();
        assert!(!other.lives());
        assert_eq!(Owner::of("system.slice"), None);
        assert_eq!(Owner::of("lambda-sandbox-x"), None);
    }
}
