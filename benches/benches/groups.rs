//! Compares our control groups with cgroups-rs in one run: making a group with its limits, starting
//! a process in it, removing it.
//!
//! ```text
//! cargo bench -p benches --features sandbox --bench groups [-- ROUNDS]
//! ```
//!
//! Both make the same groups: memory, processors and processes. Each round measures each once, in
//! turn, with a pause as between cold starts and without one. On a machine with both versions,
//! cgroups-rs uses version 1 alone; ours has a group of version 2 as well. Needs root.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::error::Error;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use benches::{median, static_program};
use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cgroup_builder::CgroupBuilder;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use lambda_sandbox::Limits;
use lambda_sandbox::linux::measured::MeasuredGroup;
use lambda_sandbox::linux::{Hierarchies, LinuxBackend};

type Failure = Box<dyn Error>;

const ROUNDS: usize = 60;
const MEMORY_BYTES: u64 = 128 << 20;
const PROCESSES: u32 = 64;
const PERIOD_US: u64 = 100_000;

/// Times in microseconds: made with its limits, a process started in it and waited for, removed.
type Times = [f64; 3];

fn main() -> Result<(), Failure> {
    let rounds =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir()?;
    let program = static_program(folder.path(), "true", "fn main() {}")?;
    let mounted = LinuxBackend::probe()?.hierarchies;
    println!("control groups: {}", mounted.kind());
    println!("| | made and limited, us | a process started in it and waited for | removed |");
    println!("|---|---|---|---|");
    for pause in [Duration::ZERO, Duration::from_millis(30)] {
        let mut rows = [const { Vec::<Times>::new() }; 3];
        for round in 0..rounds {
            std::thread::sleep(pause);
            rows[0].push([0.0, started(&program, &[], |_| Ok(()))?, 0.0]);
            std::thread::sleep(pause);
            rows[1].push(ours(&mounted, &program, round)?);
            std::thread::sleep(pause);
            rows[2].push(theirs(&program, round)?);
        }
        let apart = if pause.is_zero() { "hot" } else { "30 ms apart" };
        for (name, row) in ["no group", "ours", "cgroups-rs"].into_iter().zip(&rows) {
            let of = |column: usize| {
                median(&mut row.iter().map(|times| times[column]).collect::<Vec<_>>())
            };
            println!("| {name}, {apart} | {:.0} | {:.0} | {:.0} |", of(0), of(1), of(2));
        }
    }
    MeasuredGroup::remove_host(&mounted, &host())?;
    Ok(())
}

fn host() -> String {
    format!("lambda-sandbox-bench-{}", std::process::id())
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Starts a program and waits for its end. Either the child first writes `0` to these files, or the
/// parent attaches it.
fn started(
    program: &Path,
    tasks: &[RawFd],
    attach: impl FnOnce(u32) -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let tasks = tasks.to_vec();
    let mut command = Command::new(program);
    let join = move || {
        for file in &tasks {
            // SAFETY: the caller keeps the descriptor open until the child has ended.
            let file = unsafe { BorrowedFd::borrow_raw(*file) };
            nix::unistd::write(file, b"0")?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls alone; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(join) };
    let began = Instant::now();
    let mut child = command.spawn()?;
    let attached = attach(child.id());
    child.wait()?;
    attached?;
    Ok(micros(began))
}

fn ours(mounted: &Hierarchies, program: &Path, round: usize) -> Result<Times, Failure> {
    let limits = Limits {
        memory_bytes: MEMORY_BYTES,
        cpus: 1.0,
        processes_max: PROCESSES - 1,
        ..Limits::default()
    };
    let began = Instant::now();
    let group = MeasuredGroup::make(mounted, &host(), &round.to_string(), &limits)?;
    let made = micros(began);
    let ran = started(program, &group.tasks(), |_| Ok(()))?;
    let began = Instant::now();
    group.remove()?;
    Ok([made, ran, micros(began)])
}

fn theirs(program: &Path, round: usize) -> Result<Times, Failure> {
    let began = Instant::now();
    let group: Cgroup = CgroupBuilder::new(&format!("{}-theirs-{round}", host()))
        .set_specified_controllers(["memory", "cpu", "pids"].map(str::to_owned).to_vec())
        .memory()
        .memory_hard_limit(i64::try_from(MEMORY_BYTES)?)
        .done()
        .cpu()
        .quota(i64::try_from(PERIOD_US)?)
        .period(PERIOD_US)
        .done()
        .pid()
        .maximum_number_of_processes(MaxValue::Value(PROCESSES.into()))
        .done()
        .build(hierarchies::auto())?;
    let made = micros(began);
    let ran = started(program, &[], |process| {
        // One that has ended before it could be attached is no failure of the library's.
        drop(group.add_task_by_tgid(CgroupPid::from(u64::from(process))));
        Ok(())
    })?;
    let began = Instant::now();
    group.delete()?;
    Ok([made, ran, micros(began)])
}
