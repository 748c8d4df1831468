//! What there is of this process and its sandboxes on the machine, each kind counted: what there is more of
//! afterwards than before was left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lambda_sandbox::Backend as _;
use lambda_sandbox::linux::LinuxBackend;

/// A runtime whose threads for work that blocks go as soon as they have nothing to do: tokio keeps them for ten seconds, which
/// whoever counts threads would have to wait for.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_keep_alive(Duration::from_millis(1));
    runtime.enable_all().build().expect("a runtime")
}

/// How long numbers stay the same before they count as settled.
const SETTLED: Duration = Duration::from_millis(500);

/// Numbers of each kind; equal when nothing was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Children, ended ones that nobody has reaped included.
    children: usize,
    /// Processes in the host's control groups.
    inside: usize,
    groups: usize,
    mounts: usize,
    /// Namespaces of any kind that a child or a descriptor of ours holds, and our own.
    namespaces: usize,
    descriptors: usize,
    threads: usize,
    /// Files in the host's own folder, the locks of all hosts not counted: one stays for the next host.
    files: usize,
}

impl Counted {
    /// Counts, with the control groups where there is a backend.
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

    /// Counts until the numbers have been the same for half a second, for 20 seconds at most: a new host fills its pools, and what ended
    /// before takes its time to go.
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

    /// Counts what is there without what is kept for the next sandbox: groups and roots, and what is open of them.
    async fn swept(backend: Option<&LinuxBackend>) -> Self {
        if let Some(backend) = backend {
            // A host that lacks a part of the kernel may be unable to.
            drop(backend.sweep().await);
        }
        Self::now(backend)
    }

    /// Counts again until all is as it was in `self`, as the kernel takes some things down late; for 20 seconds at
    /// most. Returns the last count.
    pub(crate) async fn again(&self, backend: Option<&LinuxBackend>) -> Self {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut now = Self::swept(backend).await;
            // Fewer than before are no leak: a runtime lets threads go that have nothing to do.
            now.threads = now.threads.max(self.threads);
            if now == *self || Instant::now() > until {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The processes whose parent this process is.
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
