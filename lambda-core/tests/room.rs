//! Room for a sandbox: which idle sandboxes are evicted, and what an invocation waits for, and how
//! long.

mod host;

use host::{Host, MIB, SECOND, count, rejected, started};
use lambda_core::*;

fn evicted(commands: &[Command]) -> Vec<SandboxId> {
    let one = |command: &Command| match command {
        Command::StopSandbox { sandbox, reason: StopReason::Evicted, .. } => Some(*sandbox),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

/// Fills the workers with sandboxes, each of its own function, that become idle one after another.
fn idle(host: &mut Host, sandboxes: u32) -> Vec<SandboxId> {
    let started: Vec<_> = (0..sandboxes)
        .map(|function| {
            host.put(function, |_| ());
            host.run(function).expect("room")
        })
        .collect();
    for (invocation, sandbox) in (1..).zip(&started) {
        host.end(invocation, *sandbox);
        host.wait(SECOND);
    }
    started
}

#[test]
fn of_a_workers_idle_sandboxes_those_go_that_are_longest_idle() {
    let mut host = Host::with_worker(3, |_| ());
    let idle = idle(&mut host, 3);
    host.put(9, |settings| settings.memory_bytes = 2 * MIB);
    assert_eq!(evicted(&host.invoke(9)), idle[..2]);
}

#[test]
fn of_all_workers_that_one_makes_room_whose_idle_sandboxes_are_worth_least() {
    for _ in 0..2 {
        let mut host = Host::new(|_| ());
        (0..4).for_each(|worker| drop(host.join(worker, Capacity::of_memory(MIB))));
        let idle = idle(&mut host, 4);
        host.put(9, |_| ());
        assert_eq!(evicted(&host.invoke(9)), idle[..1]);
    }
}

#[test]
fn what_is_being_stopped_is_room_that_comes() {
    let mut host = Host::with_worker(2, |_| ());
    let idle = idle(&mut host, 2);
    host.put(8, |_| ());
    host.put(9, |_| ());
    assert_eq!(evicted(&host.invoke(8)), idle[..1]);
    // The room of the stopping sandbox is reserved for the other function.
    assert_eq!(evicted(&host.invoke(9)), idle[1..]);
    for (sandbox, function) in idle.into_iter().zip([8, 9]) {
        let commands = host.tell(Event::SandboxGone { sandbox });
        let function = FunctionId(function);
        assert!(
            matches!(commands[..], [Command::StartSandbox { function: of, .. }] if of == function)
        );
    }
}

#[test]
fn an_invocation_waits_for_a_busy_sandbox_of_its_function_longer_than_a_start_may_take() {
    let mut host = Host::with_worker(1, |config| config.start_timeout = SECOND * 10);
    host.put(1, |settings| settings.timeout = SECOND * 100);
    let sandbox = host.run(1).expect("room");
    assert_eq!(host.invoke(1), []);
    assert_eq!(host.wait(SECOND * 50), []);
    let commands = host.end(1, sandbox);
    let dispatched = count(&commands, |it| matches!(it, Command::Dispatch { .. }));
    assert_eq!((dispatched, rejected(&commands).len()), (1, 0));
}

#[test]
fn a_worker_that_has_made_one_makes_what_waits_for_it() {
    let mut host = Host::with_worker(8, |config| config.starts_per_worker_max = 1);
    host.put(1, |_| ());
    host.run(0).expect("room");
    let other = started(&host.invoke(1))[0];
    assert_eq!(host.invoke(0), [], "the worker makes another one");
    let commands = host.tell(Event::SandboxReady { sandbox: other });
    assert_eq!(started(&commands).len(), 1);
}

#[test]
fn a_function_whose_starts_fail_is_provisioned_ever_later() {
    let mut host = Host::with_worker(8, |config| config.start_retries_max = 100);
    let mut commands = host.put(2, |settings| settings.provisioned_concurrency = 1);
    commands.extend(host.wait(SECOND / 100));
    let mut waited = Vec::new();
    for _ in 0..3 {
        let sandbox = started(&commands)[0];
        commands = host.tell(Event::SandboxFailed { sandbox, fault: Fault::Worker });
        let failed = host.now;
        while started(&commands).is_empty() {
            commands = host.wait(SECOND / 10);
        }
        waited.push(host.now.since(failed));
    }
    // The first retry is immediate; each following one is delayed longer.
    assert!(waited.windows(2).all(|pair| pair[0] < pair[1]), "{waited:?}");
    assert!(waited[1] >= SECOND && waited[2] >= SECOND * 2, "{waited:?}");
}

#[test]
fn workers_that_are_asked_for_count_when_more_are_wanted() {
    let fleet = FleetSizing {
        workers_min: 1,
        workers_max: 9,
        interval: SECOND * 10,
        ..FleetSizing::default()
    };
    let high = u64::from(fleet.memory_high_percent);
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    let asked =
        |commands: &[Command]| count(commands, |it| matches!(it, Command::AskWorker { .. }));
    assert_eq!(asked(&host.wait(SECOND)), 1);
    host.join(0, Capacity::of_memory(100 * MIB));
    host.put(0, |settings| {
        (settings.memory_bytes, settings.timeout) = ((high + 1) * MIB, SECOND * 900);
    });
    host.run(0).expect("room");
    assert_eq!(asked(&host.wait(SECOND * 50)), 1, "of twice as much half is enough");
}

#[test]
fn the_worker_that_has_least_is_given_back() {
    let fleet = FleetSizing { workers_min: 1, interval: SECOND * 10, ..FleetSizing::default() };
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    host.put(0, |settings| settings.timeout = SECOND * 900);
    host.join(1, Capacity::of_memory(100 * MIB));
    host.run(0).expect("room");
    for worker in [0, 2] {
        host.join(worker, Capacity::of_memory(100 * MIB));
    }
    let drained = |commands: Vec<Command>| -> Vec<_> {
        let one = |command: Command| match command {
            Command::DrainWorker { worker } => Some(worker.0),
            _ => None,
        };
        commands.into_iter().filter_map(one).collect()
    };
    assert_eq!(drained(host.wait(SECOND * 60)), [0, 2]);
}

/// Workers that certainly have room are found first, however many workers have slightly too little.
#[test]
fn few_workers_with_room_are_found_among_many_with_almost_enough() {
    let mut host = Host::new(|_| ());
    for worker in 0..300 {
        host.join(worker, Capacity::of_memory(1100 << 10));
    }
    host.join(300, Capacity::of_memory(64 * MIB));
    host.put(0, |settings| settings.memory_bytes = 1500 << 10);
    for _ in 0..8 {
        assert!(host.run(0).is_some());
    }
}
