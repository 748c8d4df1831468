//! Programs may run on all processors of their host, although the spawn thread binds itself to one
//! for a moment.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{logged, shell, text};
use lambda_sandbox::Backend as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const OURS: Pid = Pid::from_raw(0);

fn places(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count()).filter(|place| set.is_set(*place) == Ok(true)).collect()
}

#[test]
fn programs_run_where_their_host_runs() {
    let all = sched_getaffinity(OURS).expect("processors");
    let Some(last) = places(&all).last().copied() else { panic!("no processor") };
    let mut one = CpuSet::new();
    one.set(last).expect("set");
    for set in [&all, &one] {
        // Threads made from here on inherit the set, including the host's.
        sched_setaffinity(OURS, set).expect("held");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let Some(backend) = common::backend("processors") else { return };
            // Several times: a start must not change the thread for the next one.
            for _ in 0..3 {
                let mut spec = shell("grep Cpus_allowed_list /proc/self/status");
                let log = logged(&mut spec);
                backend.create(spec).await.expect("created").run().await.expect("run");
                let told = text(&log);
                let told = told.trim().rsplit('\t').next().expect("a list").to_owned();
                assert_eq!(listed(&told), places(set), "{told}");
            }
        });
    }
}

/// Reads a list of numbers and ranges (cpuset(7), "List format").
fn listed(list: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let ranges = list.split(',').map(|part| match part.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    });
    ranges.flatten().collect()
}
