//! Labels: a function's sandboxes start only on workers that have what it needs, and wherever such
//! a worker has room.

mod host;

use std::collections::BTreeMap;

use host::{Host, MIB, SECOND, rejected, started, stopped};
use lambda_core::*;
use proptest::prelude::*;

/// The label of workers with a GPU.
const GPU: u16 = 1;
/// The label of workers with 64-bit Arm processors.
const ARM64: u16 = 2;

fn labelled(mib: u64, labels: u16) -> Capacity {
    Capacity { labels, ..Capacity::of_memory(mib * MIB) }
}

fn workers(commands: &[Command]) -> Vec<u32> {
    let one = |command: &Command| match command {
        Command::StartSandbox { worker, .. } => Some(worker.0),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

fn asked(commands: &[Command]) -> BTreeMap<u16, usize> {
    let mut asked = BTreeMap::new();
    for command in commands {
        if let Command::AskWorker { labels, .. } = command {
            *asked.entry(*labels).or_default() += 1;
        }
    }
    asked
}

#[test]
fn of_many_workers_the_one_with_the_labels_is_found() {
    for seed in 0..50 {
        let engine = Engine::new(Config::default(), seed);
        let mut host = Host { engine, now: Time::ZERO, invoked: 0 };
        for worker in 0..200 {
            let labels = if worker == 77 { GPU | ARM64 } else { 1 << (worker % 2) };
            host.join(worker, labelled(100, labels));
        }
        host.put(0, |it| it.labels = GPU | ARM64);
        host.put(1, |it| it.labels = ARM64);
        assert_eq!(workers(&host.invoke(0)), [77], "seed {seed}");
        let at = workers(&host.invoke(1))[0];
        assert!(at == 77 || at % 2 == 1, "seed {seed}: {at}");
    }
}

#[test]
fn no_worker_with_the_label_is_a_refusal_at_once() {
    let mut host = Host::with_worker(100, |_| ());
    host.put(1, |it| it.labels = GPU);
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::NoCapacity]);
    // A full worker with the label may get room: the invocation waits.
    host.join(1, labelled(1, GPU));
    let sandbox = host.run(1).expect("room");
    let commands = host.invoke(1);
    assert_eq!((rejected(&commands), started(&commands)), (vec![], vec![]));
    host.end(2, sandbox);
    assert_eq!(host.engine.waiting(), 0);
    host.tell(Event::WorkerLost { worker: WorkerId(1) });
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::NoCapacity]);
}

/// Idle sandboxes end for a labelled function on the worker with the label, and not on others.
#[test]
fn only_a_worker_with_the_label_is_cleared() {
    for others in [3, 300] {
        let mut host = Host::new(|config| config.account_concurrency_max = 10_000);
        for worker in 0..others {
            host.join(worker, labelled(4, ARM64));
        }
        host.join(others, labelled(4, GPU));
        host.put(0, |it| it.memory_bytes = 4 * MIB);
        host.put(1, |it| (it.memory_bytes, it.labels) = (4 * MIB, GPU));
        let made: Vec<_> = (0..=others).map(|_| host.run(0).expect("room")).collect();
        for (invocation, sandbox) in (1..).zip(made) {
            host.end(invocation, sandbox);
        }
        let commands = host.invoke(1);
        let ended = commands.iter().find_map(|command| match command {
            Command::StopSandbox { sandbox, worker, .. } => Some((*sandbox, worker.0)),
            _ => None,
        });
        assert_eq!(stopped(&commands), [StopReason::Evicted]);
        let (sandbox, at) = ended.expect("one ends");
        assert_eq!(at, others);
        assert_eq!(workers(&host.tell(Event::SandboxGone { sandbox })), [others]);
    }
}

/// Hundreds of functions that wait for another kind of worker once hid the one that could use the
/// room.
#[test]
fn freed_room_goes_to_a_function_that_can_use_it() {
    let mut host = Host::new(|config| config.account_concurrency_max = 10_000);
    host.join(0, labelled(1, GPU));
    host.join(1, labelled(1, ARM64));
    host.put(1000, |it| (it.labels, it.timeout) = (GPU, SECOND * 900));
    host.put(1001, |it| (it.labels, it.timeout) = (ARM64, SECOND * 900));
    host.run(1000).expect("room");
    let other = host.run(1001).expect("room");
    for function in 0..300 {
        host.put(function, |it| (it.account, it.labels) = (AccountId(1 + function), GPU));
        assert!(rejected(&host.invoke(function)).is_empty());
    }
    host.put(500, |it| (it.account, it.labels) = (AccountId(500), ARM64));
    assert!(rejected(&host.invoke(500)).is_empty());
    let (invocation, used) = (InvocationId(2), Used::default());
    host.tell(Event::InvocationEnded { invocation, sandbox: other, reusable: false, used });
    let commands = host.tell(Event::SandboxGone { sandbox: other });
    assert_eq!(workers(&commands), [1]);
    assert!(matches!(commands[..], [Command::StartSandbox { function: FunctionId(500), .. }]));
}

#[test]
fn a_fleet_asks_for_workers_with_the_label_and_for_no_more_of_them_than_are_needed() {
    let fleet = FleetSizing { workers_max: 100, ..FleetSizing::default() };
    let mut host = Host::new(|config| {
        (config.fleet, config.account_concurrency_max) = (Some(fleet), 10_000);
    });
    host.commands();
    host.join(0, labelled(10, ARM64));
    host.put(0, |it| (it.timeout, it.labels) = (SECOND * 7200, ARM64));
    host.put(1, |it| (it.timeout, it.labels) = (SECOND * 7200, GPU));
    let mut commands = Vec::new();
    for _ in 0..60 {
        commands.extend(host.invoke(0));
    }
    assert_eq!((started(&commands).len(), asked(&commands)), (10, [(ARM64, 5)].into()));
    // The size of a worker with a GPU is not known: one is asked for.
    let mut commands = Vec::new();
    for _ in 0..25 {
        commands.extend(host.invoke(1));
    }
    assert_eq!((asked(&commands), rejected(&commands)), ([(GPU, 1)].into(), vec![]));
    // A worker without the label is not the one that was asked for.
    assert_eq!(workers(&host.join(1, labelled(10, ARM64))), [1; 10]);
    let commands = host.join(2, labelled(10, GPU));
    assert_eq!((workers(&commands), asked(&commands)), (vec![2; 10], [].into()));
    assert_eq!(asked(&host.invoke(1)), [(GPU, 2)].into());
    let joined: Vec<_> = (3..5).flat_map(|worker| host.join(worker, labelled(10, GPU))).collect();
    assert_eq!((workers(&joined).len(), rejected(&joined)), (16, vec![]));
}

#[test]
fn a_recycled_worker_is_replaced_by_one_with_its_labels() {
    let recycling = Recycling { quiet: SECOND, ..Recycling::default() };
    let mut host = Host::new(|config| config.recycling = Some(recycling));
    host.join(0, labelled(10, GPU | ARM64));
    let commands = host.wait(SECOND * 3600 * 10);
    assert_eq!(asked(&commands), [(GPU | ARM64, 1)].into());
}

/// Zones whose workers lack the label do not count as those with the fewest sandboxes.
#[test]
fn the_sandboxes_of_a_labelled_function_are_spread_over_the_zones_that_have_the_label() {
    let mut host = Host::new(|config| config.account_concurrency_max = u32::MAX);
    for worker in 0..40_u32 {
        let zone = Zone(u8::try_from(worker / 10).expect("small"));
        let labels = if worker < 30 && worker % 10 == 3 { GPU } else { 0 };
        host.join(worker, Capacity { zone, labels, ..Capacity::of_memory(1 << 36) });
    }
    for function in 0..100 {
        let commands = host.put(function, |it| (it.provisioned_concurrency, it.labels) = (3, GPU));
        for sandbox in started(&commands) {
            host.tell(Event::SandboxReady { sandbox });
        }
        let mut on = workers(&commands);
        on.sort_unstable();
        assert_eq!(on, [3, 13, 23]);
    }
}

/// Of the workers with the label, the score chooses.
#[test]
fn of_two_workers_with_the_label_the_one_with_less_load_is_chosen() {
    let mut host = Host::new(|config| config.account_concurrency_max = u32::MAX);
    for worker in 0..1000 {
        let labels = if worker == 10 || worker == 900 { GPU } else { 0 };
        host.join(worker, Capacity { cpu_milli: 64_000, ..labelled(1 << 20, labels) });
    }
    for function in 0..40 {
        host.put(function, |it| (it.cpu_milli, it.labels) = (1000, GPU));
    }
    let mut on = BTreeMap::new();
    for function in 0..40 {
        let commands = host.invoke(function);
        *on.entry(workers(&commands)[0]).or_insert(0_u32) += 1;
        host.tell(Event::SandboxReady { sandbox: started(&commands)[0] });
    }
    let [one, other] = [10, 900].map(|worker| on.get(&worker).copied().unwrap_or(0));
    assert!(one + other == 40 && one.abs_diff(other) <= 8, "{on:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A sandbox starts if and only if some worker has its labels, its zone and room, and there.
    #[test]
    fn nothing_is_refused_while_a_worker_with_the_labels_has_room(
        seed in any::<u64>(),
        fleet in prop::collection::vec((0..8_u16, 0..4_u8, 1..6_u64), 1..120),
        functions in prop::collection::vec((0..8_u16, 1..6_u64), 1..40),
    ) {
        let engine = Engine::new(Config::default(), seed);
        let mut host = Host { engine, now: Time::ZERO, invoked: 0 };
        let mut free = Vec::new();
        for (worker, (labels, zone, mib)) in (0..).zip(&fleet) {
            host.join(worker, Capacity { zone: Zone(*zone), ..labelled(*mib, *labels) });
            free.push(*mib);
        }
        for (function, (labels, mib)) in (0..).zip(&functions) {
            host.put(function, |it| (it.labels, it.memory_bytes) = (*labels, mib * MIB));
            let on = workers(&host.invoke(function));
            let has = |worker: usize| labels & !fleet[worker].0 == 0;
            let fits = (0..fleet.len()).any(|worker| has(worker) && free[worker] >= *mib);
            prop_assert_eq!(on.len(), usize::from(fits));
            if let Some(worker) = on.first().map(|it| *it as usize) {
                prop_assert!(has(worker) && free[worker] >= *mib, "{worker}");
                free[worker] -= mib;
            }
        }
    }
}
