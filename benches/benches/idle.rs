//! Measures live idle sandboxes, which are initialised and frozen: memory of each, rates of
//! creation and destruction, and times of freezing and thawing.
//!
//! ```text
//! cargo bench -p benches --features sandbox --bench idle [-- SANDBOXES]
//! ```
//!
//! The program is static, has a few pages, and asks for an invocation. Needs root. Memory inside
//! and times of freezing need control groups of version 2.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::{WAITING_RUNTIME, median, static_program};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Idle, Limits, Root, Sandbox, SandboxSpec};

type Failure = Box<dyn Error>;

const SANDBOXES: usize = 1000;
/// Pause before memory is read, in which the kernel frees what has ended.
const REST: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Failure> {
    let argument = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let count: usize = argument.unwrap_or(SANDBOXES);
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    for mount_point in ["proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(mount_point))?;
    }
    let program = static_program(folder.path(), "runtime", WAITING_RUNTIME)?;
    fs::copy(program, root.join("runtime"))?;
    let backend = LinuxBackend::new()?;
    // A first round fills the pools and the page cache, and lets the host grow to its working size.
    for sandbox in made(&backend, &root, 20).await?.0 {
        sandbox.destroy().await?;
    }
    tokio::time::sleep(REST).await;

    let before = Memory::now();
    let (sandboxes, took) = made(&backend, &root, count).await?;
    println!("made and initialised: {:.0} a second, one after the other", per_second(count, took));
    tokio::time::sleep(REST).await;
    let grown = Memory::now().since(&before);
    let inside = Inside::of(&backend)?;
    grown.print(&inside, count);
    freezing(&backend)?;
    let began = Instant::now();
    for sandbox in sandboxes {
        sandbox.destroy().await?;
    }
    println!("destroyed: {:.0} a second", per_second(count, began.elapsed()));
    tokio::time::sleep(REST).await;
    let left = Memory::now().since(&before);
    println!(
        "left after {REST:?}: {} KiB of the machine, {} KiB of the host",
        left.machine, left.host
    );
    println!("  it tells of: {:?}", left.kernel);

    let began = Instant::now();
    let turns = count.min(500);
    for _ in 0..turns {
        for sandbox in made(&backend, &root, 1).await?.0 {
            sandbox.destroy().await?;
        }
    }
    let rate = per_second(turns, began.elapsed());
    println!("made, initialised and destroyed in turn: {rate:.0} a second");
    Ok(())
}

async fn made(
    backend: &LinuxBackend,
    root: &Path,
    count: usize,
) -> Result<(Vec<Sandbox<Idle>>, Duration), Failure> {
    let mut sandboxes = Vec::with_capacity(count);
    let began = Instant::now();
    for _ in 0..count {
        let root = Root { directory: Some(root.to_owned()), ..Root::default() };
        let mut spec = SandboxSpec::new(root, ["/runtime"]);
        spec.limits = Limits { cpus: 1.0, ..Limits::default() };
        let created = backend.create(spec).await?;
        let (idle, _) = created.init().await.map_err(|failure| format!("{failure:?}"))?;
        sandboxes.push(idle);
    }
    Ok((sandboxes, began.elapsed()))
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// Memory in KiB: in use on the whole machine up to a constant, resident in this process, and the
/// kernel's own by kind.
struct Memory {
    machine: i64,
    host: i64,
    kernel: Vec<(&'static str, i64)>,
}

/// The lines of `/proc/meminfo` for memory of the kernel.
const KERNEL: [&str; 5] = ["Slab", "KernelStack", "PageTables", "Percpu", "VmallocUsed"];

impl Memory {
    fn now() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The page cache counts as free. Memory that the kernel could reclaim, such as slabs,
        // counts as used.
        let free = ["MemFree", "Buffers", "Cached"].map(|name| kib(&meminfo, name));
        Self {
            machine: kib(&meminfo, "Shmem") - free.iter().sum::<i64>(),
            host: kib(&status, "VmRSS"),
            kernel: KERNEL.map(|name| (name, kib(&meminfo, name))).into(),
        }
    }

    fn since(mut self, before: &Self) -> Self {
        self.machine -= before.machine;
        self.host -= before.host;
        for (now, before) in self.kernel.iter_mut().zip(&before.kernel) {
            now.1 -= before.1;
        }
        self
    }

    fn print(&self, inside: &Inside, count: usize) {
        let each = |kib: i64| kib / i64::try_from(count).unwrap_or(i64::MAX);
        println!("each: {} KiB of the machine, of which", each(self.machine));
        println!("- {} KiB the program", each(inside.program));
        println!("- {} KiB its init", each(inside.init));
        println!("- {} KiB in the host", each(self.host));
        let kernel = self.machine - inside.program - inside.init - self.host;
        println!("- {} KiB the rest: the kernel's", each(kernel));
        let told: Vec<String> =
            self.kernel.iter().map(|(name, kib)| format!("{name} {}", each(*kib))).collect();
        println!("  it tells of: {}", told.join(", "));
    }
}

fn kib(text: &str, name: &str) -> i64 {
    (text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Memory of all processes in sandboxes, in KiB. Each process has its proportional share of shared
/// pages (PSS).
struct Inside {
    program: i64,
    init: i64,
}

impl Inside {
    fn of(backend: &LinuxBackend) -> Result<Self, Failure> {
        let mut inside = Self { program: 0, init: 0 };
        for group in groups(backend) {
            for process in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
                let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
                let program = fs::read_link(format!("/proc/{process}/exe"))?;
                let sum = if program.ends_with("runtime") {
                    &mut inside.program
                } else {
                    &mut inside.init
                };
                *sum += kib(&rollup, "Pss");
            }
        }
        Ok(inside)
    }
}

/// Returns the control groups of sandboxes that the freezer of version 2 can freeze.
fn groups(backend: &LinuxBackend) -> Vec<PathBuf> {
    let groups = backend.groups().into_iter();
    groups.filter(|group| group.join("cgroup.freeze").exists()).collect()
}

/// Thaws and freezes each group, waits until the kernel reports the new state, and prints the
/// times.
fn freezing(backend: &LinuxBackend) -> Result<(), Failure> {
    let (mut thaws, mut freezes) = (Vec::new(), Vec::new());
    for group in groups(backend) {
        for (value, wanted, times) in
            [("0", "frozen 0", &mut thaws), ("1", "frozen 1", &mut freezes)]
        {
            let began = Instant::now();
            fs::write(group.join("cgroup.freeze"), value)?;
            while !fs::read_to_string(group.join("cgroup.events"))?.contains(wanted) {
                std::hint::spin_loop();
            }
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    if thaws.is_empty() {
        println!("no group of version 2 to freeze");
        return Ok(());
    }
    for (name, times) in [("thaw", &mut thaws), ("freeze", &mut freezes)] {
        let median = median(times);
        let last = times[times.len() * 99 / 100];
        println!("{name}: median {median:.0} us, p99 {last:.0} us, until the kernel says so");
    }
    Ok(())
}
