//! Gray failures: workers that fail their starts, drivers that stall, clocks that are set,
//! functions that never start, partitions that heal.

mod host;

use std::collections::BTreeMap;

use host::{Host, MIB, SECOND, count, rejected, started, stopped};
use lambda_core::*;

const GIB: u64 = 1 << 30;

fn lost(commands: &[Command]) -> usize {
    count(commands, |it| matches!(it, Command::LoseWorker { .. }))
}

/// The result of a load on a fleet whose first workers fail every start.
struct Load {
    refused: usize,
    ran: usize,
    failed: BTreeMap<u32, usize>,
}

/// Applies 250 invocations a second. A start takes 0.3 s, and fails after 5 ms on bad workers. An
/// invocation takes a second, and its sandbox is not reused.
fn load(workers: u32, bad: u32, seconds: u64) -> Load {
    let mut host = Host::new(|config| {
        (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
        config.starts_per_worker_max = 1000;
    });
    for worker in 0..workers {
        host.join(worker, Capacity::of_memory(640 * GIB));
    }
    (0..50).for_each(|function| drop(host.put(function, |it| it.timeout = SECOND * 60)));
    let mut seen = Load { refused: 0, ran: 0, failed: BTreeMap::new() };
    let mut due: BTreeMap<(Time, u64), Event> = BTreeMap::new();
    let mut number = 0;
    for nth in 0..seconds * 250 {
        let at = Time::from_nanos(nth * 4_000_000);
        let mut commands = Vec::new();
        while let Some(entry) = due.first_entry().filter(|it| it.key().0 <= at) {
            host.now = entry.key().0;
            let event = entry.remove();
            carry_out(&mut host, &mut due, &mut number, &mut seen, bad, event);
        }
        host.now = at;
        commands.extend(host.invoke(u32::try_from(nth % 50).expect("small")));
        do_all(&host, &mut due, &mut number, &mut seen, bad, commands);
    }
    seen
}

fn carry_out(
    host: &mut Host,
    due: &mut BTreeMap<(Time, u64), Event>,
    number: &mut u64,
    seen: &mut Load,
    bad: u32,
    event: Event,
) {
    let commands = host.try_tell(event).unwrap_or_default();
    do_all(host, due, number, seen, bad, commands);
}

fn do_all(
    host: &Host,
    due: &mut BTreeMap<(Time, u64), Event>,
    number: &mut u64,
    seen: &mut Load,
    bad: u32,
    commands: Vec<Command>,
) {
    for command in commands {
        *number += 2;
        let mut tell = |millis: u64, event| {
            *number += 1;
            due.insert((host.now + std::time::Duration::from_millis(millis), *number), event);
        };
        match command {
            Command::StartSandbox { sandbox, worker, .. } if worker.0 < bad => {
                *seen.failed.entry(worker.0).or_default() += 1;
                tell(5, Event::SandboxFailed { sandbox, fault: Fault::Worker });
            }
            Command::StartSandbox { sandbox, .. } => tell(300, Event::SandboxReady { sandbox }),
            Command::Dispatch { invocation, sandbox, .. } => {
                seen.ran += 1;
                let (reusable, used) = (false, Used::default());
                tell(1000, Event::InvocationEnded { invocation, sandbox, reusable, used });
                tell(1001, Event::SandboxGone { sandbox });
            }
            Command::Reject { .. } => seen.refused += 1,
            _ => {}
        }
    }
}

#[test]
fn workers_that_fail_their_starts_are_left_alone() {
    for (workers, bad) in [(2, 1), (4, 1), (20, 1), (100, 5)] {
        let seen = load(workers, bad, 120);
        assert_eq!(seen.refused, 0, "{workers} workers");
        assert!(seen.ran > 29_000, "{workers} workers: {} ran", seen.ran);
        let most = seen.failed.values().max().copied().unwrap_or_default();
        assert!(most <= 6, "{workers} workers: {most} starts of one bad worker in two minutes");
    }
}

#[test]
fn a_driver_that_stalls_loses_no_workers() {
    for (workers, seconds) in [(100, 11), (2, 11), (100, 45)] {
        let mut host = Host::new(|config| config.worker_lease = Some(SECOND * 10));
        for worker in 0..workers {
            host.join(worker, Capacity::of_memory(GIB));
        }
        host.now = host.now + SECOND * seconds;
        let mut commands = Vec::new();
        for worker in 0..workers {
            commands.extend(host.tell(Event::WorkerBeat { worker: WorkerId(worker) }));
        }
        assert_eq!(lost(&commands), 0, "{workers} workers, {seconds} s");
    }
}

/// If all workers are silent while the driver is on time, the engine loses at most a fifth of them
/// within each lease.
#[test]
fn losses_are_braked() {
    let mut host = Host::new(|config| config.worker_lease = Some(SECOND * 10));
    for worker in 0..100 {
        host.join(worker, Capacity::of_memory(GIB));
    }
    assert_eq!(lost(&host.wait(SECOND * 15)), 0);
    for _ in 0..4 {
        let lost = lost(&host.wait(SECOND * 10));
        assert!((1..=20).contains(&lost), "{lost}");
    }
    // Workers that send heartbeats again stay.
    let left: Vec<_> = host.engine.fleet().workers().map(|it| it.id()).collect();
    for _ in 0..10 {
        left.iter().for_each(|worker| drop(host.tell(Event::WorkerBeat { worker: *worker })));
        assert_eq!(lost(&host.wait(SECOND * 5)), 0);
    }
}

#[test]
fn a_clock_that_is_set_drains_and_ends_nothing() {
    for (forward, back) in [(6, 0), (11, 0), (365 * 24, 0), (24, 24)] {
        let mut host = Host::new(|config| {
            config.recycling = Some(Recycling::default());
        });
        for worker in 0..10 {
            host.join(worker, Capacity::of_memory(GIB));
        }
        host.put(0, |it| it.timeout = SECOND * 60);
        for _ in 0..20 {
            host.run(0);
        }
        host.now = Time::from_nanos(host.now.as_nanos() + 3_600_000_000_000 * forward);
        host.engine.handle_timeout(host.now);
        let mut commands = host.commands();
        host.now = Time::from_nanos(host.now.as_nanos() - 3_600_000_000_000 * back);
        host.engine.handle_timeout(host.now);
        commands.extend(host.commands());
        assert_eq!(commands, [], "{forward} h");
        // The next deadline is in the driver's time.
        let dispatched = host.run(0).expect("room");
        let commands = host.wait(SECOND * 61);
        let mut timed_out = commands.iter().filter_map(|it| match it {
            Command::TimeOut { sandbox, .. } => Some(*sandbox),
            _ => None,
        });
        assert!(timed_out.any(|it| it == dispatched), "{commands:?}");
    }
}

#[test]
fn a_worker_lost_while_it_made_sandboxes_costs_its_customer_no_rate() {
    let mut host = Host::new(|config| config.scaling_starts_max = 10);
    host.join(0, Capacity::of_memory(GIB));
    host.put(0, |_| ());
    (0..10).for_each(|_| drop(host.invoke(0)));
    host.join(1, Capacity::of_memory(GIB));
    let commands = host.tell(Event::WorkerLost { worker: WorkerId(0) });
    assert_eq!((started(&commands).len(), rejected(&commands)), (10, vec![]));
}

#[test]
fn a_function_that_never_starts_is_tried_ever_later() {
    for provisioned in [0, 1] {
        let mut host = Host::with_worker(64, |_| ());
        let mut commands = host.put(1, |it| it.provisioned_concurrency = provisioned);
        let (mut starts, mut answered) = (0, 0);
        for nth in 0..6000 {
            host.now = Time::from_nanos(nth * 10_000_000);
            host.engine.handle_timeout(host.now);
            commands.extend(host.commands());
            if provisioned == 0 {
                commands.extend(host.invoke(1));
            }
            while let Some(command) = commands.pop() {
                answered += usize::from(matches!(command, Command::Reject { .. }));
                if let Command::StartSandbox { sandbox, .. } = command {
                    starts += 1;
                    let fault = Fault::Function;
                    commands.extend(host.tell(Event::SandboxFailed { sandbox, fault }));
                }
            }
        }
        assert!((3..30).contains(&starts), "{starts} starts in a minute");
        assert!(provisioned > 0 || answered == 6000, "{answered} of 6000 answered");
    }
}

fn report(worker: u32, sandboxes: Vec<ReportedSandbox>) -> Event {
    Event::WorkerReported { worker: WorkerId(worker), vms: Vec::new(), sandboxes }
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_runs() {
    let mut host = Host::new(|config| config.worker_lease = Some(SECOND * 10));
    host.join(0, Capacity::of_memory(GIB));
    host.put(0, |it| it.timeout = SECOND * 900);
    let sandbox = host.run(0).expect("room");
    assert_eq!(lost(&host.wait(SECOND * 31)), 1);
    host.join(0, Capacity::of_memory(GIB));
    let running = ReportedSandbox {
        sandbox,
        function: FunctionId(0),
        revision: 0,
        vm: None,
        interface: None,
        invocation: Some(InvocationId(host.invoked)),
    };
    assert_eq!(stopped(&host.tell(report(0, vec![running]))), []);
    host.end(host.invoked, sandbox);
    let warm = host.invoke(0);
    assert!(matches!(warm[..], [Command::Dispatch { sandbox: it, .. }] if it == sandbox));
    // A later report cannot bring back a sandbox that ended since, nor one that no engine started.
    host.tell(Event::SandboxGone { sandbox });
    let never = ReportedSandbox { sandbox: SandboxId(99), ..running };
    assert_eq!(stopped(&host.tell(report(0, vec![running, never]))), [StopReason::Stray; 2]);
}

#[test]
fn a_successor_makes_nothing_that_still_runs() {
    let mut host = Host::new(|_| ());
    host.engine = Engine::restarted(Config::default(), 1, 1);
    host.join(0, Capacity::of_memory(GIB));
    host.put(0, |it| it.provisioned_concurrency = 50);
    let reported = |id| ReportedSandbox {
        sandbox: SandboxId(id),
        function: FunctionId(0),
        revision: 0,
        vm: None,
        interface: None,
        invocation: None,
    };
    let mut commands = host.tell(report(0, (0..40).map(reported).collect()));
    commands.extend(host.wait(SECOND * 11));
    assert_eq!(started(&commands).len(), 10, "what is missing of 50");
}

#[test]
fn a_drain_has_a_deadline() {
    let mut host = Host::with_worker(64, |_| ());
    host.put(1, |it| it.timeout = SECOND * 86_400);
    for ends in [None, Some(SECOND * 120)] {
        let sandbox = host.run(1).expect("room");
        let worker = WorkerId(u32::from(ends.is_some()));
        let (event, most) = match ends {
            None => (Event::WorkerDraining { worker }, SECOND * 900),
            Some(after) => (Event::WorkerEnds { worker, at: host.now + after }, after),
        };
        host.tell(event);
        assert_eq!(host.wait(most - SECOND), []);
        let ended =
            |it: &Command| matches!(it, Command::TimeOut { sandbox: it, .. } if *it == sandbox);
        assert_eq!(count(&host.wait(SECOND * 2), ended), 1);
        host.tell(Event::SandboxGone { sandbox });
        host.join(1, Capacity::of_memory(64 * MIB));
    }
}

#[test]
fn a_stop_that_is_said_again_has_its_reason() {
    let mut host = Host::with_worker(64, |_| ());
    let sandbox = host.run(0).expect("room");
    host.end(1, sandbox);
    assert_eq!(
        stopped(&host.tell(Event::WorkerDraining { worker: WorkerId(0) })),
        [StopReason::Draining]
    );
    assert_eq!(stopped(&host.wait(SECOND * 61)), [StopReason::Draining]);
}

#[test]
fn idle_sandboxes_of_a_burst_end_one_after_another() {
    let mut host = Host::new(|config| {
        (config.account_concurrency_max, config.starts_per_worker_max) = (u32::MAX, 10_000);
        config.scaling_starts_max = 10_000;
    });
    host.join(0, Capacity::of_memory(64 * GIB));
    host.put(0, |_| ());
    let made: Vec<_> = (0..3000).map(|_| host.run(0).expect("room")).collect();
    for (invocation, sandbox) in (1..).zip(made) {
        host.end(invocation, sandbox);
    }
    let (mut most, mut all) = (0, 0);
    while let Some(due) = host.engine.next_timeout() {
        host.now = host.now.max(due);
        host.engine.handle_timeout(host.now);
        let stopped = stopped(&host.commands()).len();
        (most, all) = (most.max(stopped), all + stopped);
        if all == 3000 {
            break;
        }
    }
    assert!(most <= 512, "{most} in one call");
    assert!(host.now <= Time::ZERO + SECOND * 601);
}

#[test]
fn a_network_is_its_owners() {
    let mut host = Host::with_worker(64, |_| ());
    let network = NetworkId(0);
    let of = |account| NetworkSettings { account: AccountId(account), subnets: vec![(Zone(0), 9)] };
    let mut settings = FunctionSettings::new(AccountId(1), MIB);
    settings.network = Some(network);
    let put = Event::FunctionPut { function: FunctionId(1), revision: 0, settings };
    // The function is put before the network is, so its owner cannot be checked yet.
    host.tell(put.clone());
    host.tell(Event::NetworkPut { network, settings: of(7) });
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::NoNetwork]);
    let put = Event::FunctionPut { function: FunctionId(2), revision: 0, settings };
    assert_eq!(host.try_tell(put), Err(EventError::NotOwner));
    assert_eq!(
        host.try_tell(Event::NetworkPut { network, settings: of(1) }),
        Err(EventError::InUse)
    );
}

#[test]
fn a_journal_has_its_limit_and_a_ledger_no_ghosts() {
    let mut host = Host::with_worker(64, |config| (config.journal, config.journal_max) = (true, 8));
    let one = host.run(0).expect("room");
    let (reusable, used) = (false, Used::default());
    host.tell(Event::InvocationEnded { invocation: InvocationId(1), sandbox: one, reusable, used });
    let failed = started(&host.invoke(0))[0];
    host.tell(Event::SandboxFailed { sandbox: failed, fault: Fault::Function });
    let kept = host.run(0).expect("room");
    let ledger = Ledger::replay(std::iter::from_fn(|| host.engine.poll_journal()));
    assert_eq!((ledger.sandboxes(), ledger.worker_of(kept)), (1, Some(WorkerId(0))));
    assert_eq!(host.engine.journal_dropped(), 0);
    (0..20).for_each(|_| drop(host.invoke(0)));
    assert_eq!(std::iter::from_fn(|| host.engine.poll_journal()).count(), 8);
    assert_eq!(host.engine.journal_dropped(), 12);
}
