//! Finds what a run left behind on the machine: control groups of sandboxes, mounts, and processes
//! in other namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The names of all control groups, mounts and processes of these kinds at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    found: BTreeSet<String>,
}

impl Snapshot {
    /// Reads the current state of the machine.
    pub(crate) fn take() -> Self {
        let mut found = BTreeSet::new();
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut found);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // Field 5 is the mount point. The fields from it to the separator ` - ` hold its options.
        found.extend(mounts.lines().filter_map(|line| {
            Some(format!("mount {}", line.splitn(5, ' ').nth(4)?.split(" - ").next()?))
        }));
        namespaced_processes(&mut found);
        Self { found }
    }

    /// Takes snapshots until one has nothing that is not in `before`, for 10 s at most: the kernel
    /// destroys a namespace some time after its last process has ended. Returns the last snapshot.
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

    /// Prints each name of `after` that this snapshot lacks. Returns whether there is none.
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
            // Only our own groups count: other programs of the machine make groups at any time.
            if entry.file_name().to_string_lossy().starts_with(OUR_GROUPS) {
                found.insert(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), depth + 1, found);
        }
    }
}

/// Adds every process in another pid or network namespace than this one's.
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

/// The prefix of the control groups of `lambda-sandbox` and of its tests.
const OUR_GROUPS: &str = "lambda-sandbox-";
const CGROUP_DEPTH_MAX: usize = 8;
