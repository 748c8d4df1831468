//! Many functions wait for room: each is served within a bound while room falls free, a round over
//! them is done in short calls, and nothing that fits is refused.

mod host;

use std::time::Duration;

use host::{Host, MIB, SECOND};
use lambda_core::*;
use proptest::prelude::*;

/// The number of functions that a round tries.
const ROUND: usize = 64;

#[test]
fn a_round_over_the_backlog_takes_several_calls_and_ends() {
    let mut host = Host::with_worker(1, |config| config.wait_max = SECOND * 600);
    host.run(0).expect("room for one");
    for function in 1..200 {
        host.put(function, |_| ());
        host.invoke(function);
    }
    let mut calls = 0;
    host.now = host.now + SECOND;
    while host.engine.next_timeout().is_some_and(|due| due <= host.now) {
        host.engine.handle_timeout(host.now);
        calls += 1;
        assert!(calls <= ROUND, "the round does not end");
    }
    assert!(calls >= ROUND / 4, "{calls} calls: too many functions in one");
    // A second later the next round begins.
    let next = host.engine.next_timeout().expect("the backlog is not empty");
    assert!(next.since(host.now) <= SECOND && next > host.now);
}

/// Runs what was dispatched for a second each. Returns the longest wait.
fn longest_wait(places: u32, functions: u32, accounts: u32, sizes: &[u8]) -> Duration {
    let mut host = Host::new(|config| {
        config.wait_max = SECOND * 3600;
        config.account_concurrency_max = u32::MAX;
        config.waiting_max = 1 << 16;
    });
    // The largest function fits into an empty worker.
    let memory = u64::from(places.max(4)) * MIB;
    for worker in 0..2 {
        host.join(worker, Capacity::of_memory(memory));
    }
    let mut todo = Vec::new();
    for function in 0..functions {
        let size = sizes[function as usize % sizes.len()];
        host.put(function, |it| {
            it.account = AccountId(function % accounts);
            it.memory_bytes = u64::from(size) * MIB;
            it.timeout = SECOND * 10;
        });
        todo.extend(host.invoke(function));
    }
    let mut running = std::collections::VecDeque::new();
    let mut served = 0;
    while served < functions {
        while let Some(command) = todo.pop() {
            match command {
                Command::StartSandbox { sandbox, .. } => {
                    todo.extend(host.tell(Event::SandboxReady { sandbox }));
                }
                Command::StopSandbox { sandbox, .. } => {
                    todo.extend(host.try_tell(Event::SandboxGone { sandbox }).unwrap_or_default());
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    running.push_back((host.now + SECOND, invocation, sandbox));
                }
                Command::Reject { reason, .. } => panic!("refused: {reason:?}"),
                _ => {}
            }
        }
        let ends = running.front().map(|(at, ..)| *at);
        let timer = host.engine.next_timeout();
        let next = ends.into_iter().chain(timer).min().expect("somebody waits and nothing comes");
        host.now = host.now.max(next);
        assert!(host.now < Time::ZERO + SECOND * 3000, "waits for ever");
        if ends.is_some_and(|at| at <= host.now) {
            let (_, invocation, sandbox) = running.pop_front().expect("it ends");
            served += 1;
            todo.extend(host.end(invocation.0, sandbox));
        } else {
            host.engine.handle_timeout(host.now);
            todo.extend(host.commands());
        }
    }
    host.now.since(Time::ZERO)
}

/// A function that has waited for two seconds gathers room. Its own reservation once counted as a
/// sandbox that it has, and protected the last sandbox of others until the reservation expired: 32
/// functions of one account took seven minutes on two places.
#[test]
fn room_is_gathered_from_the_last_sandboxes_of_others() {
    let waited = longest_wait(1, 32, 1, &[3]);
    assert!(waited <= SECOND * 17, "{waited:?} for 32 seconds of work on two places");
}

fn cases() -> u32 {
    std::env::var_os("PROPTEST_CASES").and_then(|it| it.to_str()?.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Every function that waits for room is served while room falls free: each invocation takes a
    /// second. The last one ends within the time that all of them take one after another, twice,
    /// and some seconds more to gather the room of a large one.
    #[test]
    fn every_blocked_function_is_served_within_a_bound(
        places in 1..8_u32, functions in 1..60_u32, accounts in 1..6_u32,
        sizes in prop::collection::vec(1..=4_u8, 1..6),
    ) {
        let waited = longest_wait(places, functions, accounts, &sizes);
        let bound = SECOND * functions * 2 + SECOND * 30;
        prop_assert!(waited <= bound, "{waited:?} of {bound:?}");
    }

    /// No invocation is refused or left waiting while a worker has room for it. The policy has no
    /// compliance gate, which may refuse a worker with room.
    #[test]
    fn what_fits_is_started(
        workers in prop::collection::vec((1..40_u64, 1..20_u32), 1..90),
        wanted in prop::collection::vec((1..40_u64, 0..2000_u32), 1..40),
    ) {
        let mut host = Host::new(|config| {
            (config.starts_per_worker_max, config.cpu_percent) = (1000, 100);
        });
        let policy = placement::Scored::new("without a gate", 4);
        host.engine = host.engine.with_placement(Box::new(policy));
        let mut free = Vec::new();
        for (worker, (mib, cpus)) in (0..).zip(&workers) {
            let mut capacity = Capacity::of_memory(mib * MIB);
            capacity.cpu_milli = cpus * 100;
            host.join(worker, capacity);
            free.push((mib * MIB, cpus * 100));
        }
        for (function, (mib, cpu_milli)) in (0..).zip(&wanted) {
            host.put(function, |it| (it.memory_bytes, it.cpu_milli) = (mib * MIB, *cpu_milli));
            let fits = free.iter().any(|(memory, cpu)| mib * MIB <= *memory && cpu_milli <= cpu);
            let commands = host.invoke(function);
            let started = commands.iter().find_map(|command| match command {
                Command::StartSandbox { worker, .. } => Some(*worker),
                _ => None,
            });
            prop_assert_eq!(started.is_some(), fits, "{:?}", commands);
            if let Some(WorkerId(worker)) = started {
                let left = &mut free[worker as usize];
                (left.0, left.1) = (left.0 - mib * MIB, left.1 - cpu_milli);
            }
        }
    }

    /// Leases that expire together do not take the fleet: at most the configured part of it is
    /// lost within a lease.
    #[test]
    fn losses_are_braked(workers in 1..200_u32, percent in 0..60_u32, silent in 1..100_u32) {
        let mut host = Host::new(|config| {
            config.worker_lease = Some(SECOND * 10);
            config.losses_max_percent = percent;
        });
        for worker in 0..workers {
            host.join(worker, Capacity::of_memory(MIB));
        }
        let silent = silent.min(workers);
        let mut lost: Vec<Time> = Vec::new();
        for _ in 0..60 {
            for worker in silent..workers {
                let beat = Event::WorkerBeat { worker: WorkerId(worker) };
                host.try_tell(beat).expect("a worker that beats is not lost");
            }
            for command in host.wait(SECOND) {
                if let Command::LoseWorker { worker } = command {
                    prop_assert!(worker.0 < silent, "{worker:?} beats");
                    lost.push(host.now);
                }
            }
        }
        let most = (workers as usize * percent as usize / 100).max(1);
        for (nth, at) in lost.iter().enumerate() {
            let within = lost[nth..].iter().filter(|it| it.since(*at) < SECOND * 8).count();
            prop_assert!(within <= most, "{within} within a lease, of at most {most}");
        }
        prop_assert!(!lost.is_empty(), "a silent worker is never lost");
    }
}
