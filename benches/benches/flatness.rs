//! Measures how the start of a sandbox grows with its host: with resident memory, open descriptors,
//! mounts and live sandboxes.
//!
//! ```text
//! cargo bench -p benches --features sandbox --bench flatness [-- STARTS [BLOCKS]]
//! ```
//!
//! For each load, blocks of starts without it and with it alternate, so that a disturbance hits
//! both. Mounts are made in a mount namespace of this process alone. Needs root and 9 GiB of free
//! memory.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::{WAITING_RUNTIME, median, static_program};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Exit, Idle, Limits, Root, Sandbox, SandboxSpec};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

type Failure = Box<dyn Error>;

/// Starts per block, and blocks per load, each once without and once with it.
const STARTS: usize = 60;
const BLOCKS: usize = 5;
/// Pause before each start, after which pools are full again. Real starts have pauses too.
const PAUSE: Duration = Duration::from_millis(10);
const MEMORY_BYTES: usize = 8 << 30;
const DESCRIPTORS: usize = 10_000;
const MOUNTS: usize = 1_000;
const SANDBOXES: usize = 1_000;

/// The load of the host process. Sandboxes and mounts are released by `unload`.
enum Load {
    Memory(Vec<u8>),
    Descriptors(Vec<File>),
    Mounts(Vec<PathBuf>),
    Sandboxes(Vec<Sandbox<Idle>>),
}

const LOADS: [&str; 4] =
    ["8 GiB resident", "10,000 descriptors", "1,000 mounts", "1,000 live idle sandboxes"];

fn main() -> Result<(), Failure> {
    // Done before any thread starts, so that all threads are in the new mount namespace.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(compare())
}

async fn compare() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (starts, blocks) = (numbers.next().unwrap_or(STARTS), numbers.next().unwrap_or(BLOCKS));
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    for mount_point in ["proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(mount_point))?;
    }
    for (name, source) in [("true", "fn main() {}"), ("runtime", WAITING_RUNTIME)] {
        let program = static_program(folder.path(), name, source)?;
        std::fs::copy(program, root.join(name))?;
    }
    let backend = LinuxBackend::new()?;
    starts_of(&backend, &root, starts).await?;
    println!("| beside | median ms without | with | ratio | ratios of the blocks |");
    println!("|---|---|---|---|---|");
    for (number, name) in LOADS.into_iter().enumerate() {
        let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..blocks {
            let mut plain = starts_of(&backend, &root, starts).await?;
            let load = load(number, &backend, &root, folder.path()).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut loaded = starts_of(&backend, &root, starts).await?;
            unload(load).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            ratios.push(median(&mut loaded) / median(&mut plain));
            without.extend(plain);
            with.extend(loaded);
        }
        let (without, with) = (median(&mut without), median(&mut with));
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let ratio = with / without;
        println!("| {name} | {without:.2} | {with:.2} | {ratio:.2} | {least:.2} to {most:.2} |");
    }
    Ok(())
}

async fn starts_of(
    backend: &LinuxBackend,
    root: &Path,
    starts: usize,
) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::with_capacity(starts);
    for _ in 0..starts {
        tokio::time::sleep(PAUSE).await;
        let spec = spec(root, "/true");
        let began = Instant::now();
        let (finished, ended) = backend.create(spec).await?.run_to_exit().await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        ended.destroy().await?;
        if finished.exit != Exit::Status(0) {
            return Err(finished.exit.to_string().into());
        }
    }
    Ok(times)
}

fn spec(root: &Path, program: &str) -> SandboxSpec {
    let root = Root { directory: Some(root.to_owned()), ..Root::default() };
    let mut spec = SandboxSpec::new(root, [program]);
    spec.limits = Limits { cpus: 1.0, ..Limits::default() };
    spec
}

async fn load(
    number: usize,
    backend: &LinuxBackend,
    root: &Path,
    folder: &Path,
) -> Result<Load, Failure> {
    Ok(match number {
        0 => Load::Memory(vec![1; MEMORY_BYTES]),
        1 => {
            let files = (0..DESCRIPTORS).map(|_| File::open("/dev/null"));
            Load::Descriptors(files.collect::<Result<_, _>>()?)
        }
        2 => {
            let mounts = (0..MOUNTS).map(|number| mounted(folder, number));
            Load::Mounts(mounts.collect::<Result<_, _>>()?)
        }
        _ => {
            let mut sandboxes = Vec::with_capacity(SANDBOXES);
            for _ in 0..SANDBOXES {
                let created = backend.create(spec(root, "/runtime")).await?;
                let (idle, _) = created.init().await.map_err(|failure| format!("{failure:?}"))?;
                sandboxes.push(idle);
            }
            Load::Sandboxes(sandboxes)
        }
    })
}

fn mounted(folder: &Path, number: usize) -> Result<PathBuf, Failure> {
    let path = folder.join("mounts").join(number.to_string());
    std::fs::create_dir_all(&path)?;
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(path)
}

async fn unload(load: Load) -> Result<(), Failure> {
    match load {
        Load::Memory(bytes) => drop(bytes),
        Load::Descriptors(files) => drop(files),
        Load::Mounts(paths) => {
            for path in paths {
                umount2(&path, MntFlags::MNT_DETACH)?;
            }
        }
        Load::Sandboxes(sandboxes) => {
            for sandbox in sandboxes {
                sandbox.destroy().await?;
            }
        }
    }
    Ok(())
}
