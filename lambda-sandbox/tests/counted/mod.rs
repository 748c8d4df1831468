//! Counts what this process and its sandboxes have on the machine, by kind. What has grown between
//! two counts was leaked.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lambda_sandbox::Backend as _;
use lambda_sandbox::linux::LinuxBackend;

/// A runtime whose threads for blocking work end as soon as they are idle. By default tokio keeps
/// them for ten seconds, which a count of threads would have to wait for.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_keep_alive(Duration::from_millis(1));
    runtime.enable_all().build().expect("a runtime")
}

/// The time without a change after which the counts are settled.
const SETTLED: Duration = Duration::from_millis(500);

/// The counts of each kind. They are equal if nothing was leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Children of this process, including zombies.
    children: usize,
    /// Processes in the host's control groups.
    inside: usize,
    groups: usize,
    mounts: usize,
    /// Namespaces of any kind that this process, its children or its descriptors hold.
    namespaces: usize,
    descriptors: usize,
    threads: usize,
    /// Files in the host's folder, without the hosts' locks, of which one stays for the next host.
    files: usize,
}

impl Counted {
    /// Counts now, including the control groups of `backend`, if given.
    pub(crate) fn now(backend: Option<&LinuxBackend>) -> Self {
        let children = children();
        let groups = backend.map(LinuxBackend::groups).unwrap_or_default();
        let inside = |group: &std::path::PathBuf| {
            fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines().count()
        };
        Self {
            children: children.len(),
            inside: groups.iter().map(inside).sum(),
            groups: groups.len(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count(),
            namespaces: namespaces(&children),
            descriptors: fs::read_dir("/proc/self/fd").expect("descriptors").count(),
            threads: fs::read_dir("/proc/self/task").expect("threads").count(),
            files: files(Path::new("/run/lambda-sandbox")),
        }
    }

    /// Counts until the numbers have not changed for half a second, for at most 20 seconds. A new
    /// host fills its pools, and ended processes take time to go.
    pub(crate) async fn settled(backend: Option<&LinuxBackend>) -> Self {
        let until = Instant::now() + Duration::from_secs(20);
        let (mut last, mut since) = (Self::swept(backend).await, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = Self::swept(backend).await;
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > SETTLED || Instant::now() > until {
                return last;
            }
        }
    }

    /// Counts after a sweep, without the groups and roots that are kept for later sandboxes.
    async fn swept(backend: Option<&LinuxBackend>) -> Self {
        if let Some(backend) = backend {
            // On a host that lacks a kernel feature the sweep may fail.
            drop(backend.sweep().await);
        }
        Self::now(backend)
    }

    /// Counts until the numbers are as in `self`, for at most 20 seconds, because the kernel
    /// releases some things late. Returns the last count.
    pub(crate) async fn again(&self, backend: Option<&LinuxBackend>) -> Self {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut now = Self::swept(backend).await;
            // Fewer threads are no leak: a runtime ends idle threads.
            now.threads = now.threads.max(self.threads);
            if now == *self || Instant::now() > until {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns the processes whose parent is this process.
fn children() -> Vec<String> {
    let parent = format!("\nPPid:\t{}\n", std::process::id());
    (fs::read_dir("/proc").expect("processes").flatten())
        .filter(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            status.contains(&parent)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn namespaces(children: &[String]) -> usize {
    let mut folders: Vec<String> =
        children.iter().map(|child| format!("/proc/{child}/ns")).collect();
    folders.extend(["/proc/self/ns".to_owned(), "/proc/self/fd".to_owned()]);
    let links: BTreeSet<String> = (folders.iter())
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| link.ends_with(']') && !link.starts_with("socket:["))
        .filter(|link| !link.starts_with("pipe:[") && !link.starts_with("anon_inode:["))
        .collect();
    links.len()
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.path().extension() != Some("lock".as_ref()));
    entries.map(|entry| 1 + if entry.path().is_dir() { files(&entry.path()) } else { 0 }).sum()
}
