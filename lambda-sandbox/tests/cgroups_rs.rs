//! `cgroups-rs`, an independent implementation, reads the same limits that we set, with control
//! groups of both versions.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use common::shell;
use lambda_sandbox::Backend;
use lambda_sandbox::linux::{Controller, Hierarchies};

const MEMORY_BYTES: u64 = 96 << 20;
const PROCESSES: u32 = 37;
const CPUS: f64 = 0.25;

#[tokio::test]
async fn cgroups_rs_reads_the_limits_that_we_set() {
    let Some(backend) = common::backend("control groups as cgroups-rs reads them") else { return };
    let mut spec = shell("sleep 60");
    spec.limits.memory_bytes = MEMORY_BYTES;
    spec.limits.processes_max = PROCESSES;
    spec.limits.cpus = CPUS;
    let sandbox = backend.create(spec).await.expect("created");
    let found = Hierarchies::detect().expect("mounted");
    let root = found.v1.get(&Controller::Memory).or(found.v2.as_ref()).expect("a hierarchy");
    let groups = backend.groups();
    let own = groups.iter().find_map(|group| group.strip_prefix(root).ok()).expect("its group");
    check(own);
    sandbox.destroy().await.expect("destroyed");
}

fn check(group: &Path) {
    let group = Cgroup::load(hierarchies::auto(), group);
    let memory = group.controller_of::<MemController>().expect("memory").memory_stat();
    assert_eq!(u64::try_from(memory.limit_in_bytes).expect("a limit"), MEMORY_BYTES);
    let processes = group.controller_of::<PidController>().expect("pids");
    // One more than the program's limit: the init.
    let most = processes.get_pid_max().expect("read");
    assert_eq!(most, MaxValue::Value(i64::from(PROCESSES) + 1));
    let cpu = group.controller_of::<CpuController>().expect("cpu");
    let (quota, period) = (cpu.cfs_quota().expect("read"), cpu.cfs_period().expect("read"));
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    let share = quota as f64 / period as f64;
    assert!((share - CPUS).abs() < 1e-6, "{quota} of {period}");
    assert!(group.exists(), "{}", group.path());
    // The init is in the group. While it starts, a process beside it holds its user namespace.
    let deadline = Instant::now() + Duration::from_secs(10);
    while group.procs().len() > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(group.procs().len(), 1);
}
