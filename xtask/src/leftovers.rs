//! What a run could leave behind on the machine: our control groups, mounts, processes in namespaces of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What there is of each kind at one moment, by name.
#[derive(Debug)]
pub(crate) struct Snapshot {
    found: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the machine.
    pub(crate) fn take() -> Self {
        let mut found = BTreeSet::new();
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut found);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // Fields 5 and later: the mount point, and what is mounted there.
        found.extend(mounts.lines().filter_map(|line| {
            Some(format!("mount {}", line.splitn(5, ' ').nth(4)?.split(" - ").next()?))
        }));
        namespaced_processes(&mut found);
        Self { found }
    }

    /// Looks again until nothing is there that was not `before`, for ten seconds at the most: the kernel
    /// tears namespaces down after their last process is gone.
    pub(crate) fn settled(before: &Self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::take();
            if now.found.is_subset(&before.found) || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Prints what `after` has and this has not; tells whether there is nothing.
    pub(crate) fn compare(&self, after: &Self) -> bool {
        for name in after.found.difference(&self.found) {
            println!("left behind: {name}");
        }
        after.found.is_subset(&self.found)
    }
}

fn cgroups(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth > CGROUP_DEPTH_MAX {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Others on the machine make groups, too, and at any time.
            if entry.file_name().to_string_lossy().starts_with(OUR_GROUPS) {
                found.insert(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), depth + 1, found);
        }
    }
}

/// Adds every process that lives in another pid or network namespace than ours.
fn namespaced_processes(found: &mut BTreeSet<String>) {
    let namespace = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let differs = |kind: &str| {
            let theirs = namespace(&pid, kind);
            theirs.is_some() && theirs != namespace("self", kind)
        };
        if differs("pid") || differs("net") {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.insert(format!("process {pid} {}", name.trim()));
        }
    }
}

/// What the names of the sandbox crate's groups and of its tests' begin with.
const OUR_GROUPS: &str = "lambda-sandbox-";
const CGROUP_DEPTH_MAX: usize = 8;
