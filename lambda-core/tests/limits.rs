//! Every limit and setting of `Config`: it is reached, and it holds.

mod host;

use host::{Host, MIB, SECOND, count, rejected, started, stopped};
use lambda_core::*;

#[test]
fn start_timeout_gives_a_sandbox_up_and_start_retries_max_the_invocation() {
    let mut host = Host::with_worker(100, |config| {
        config.start_timeout = SECOND;
        config.start_retries_max = 2;
    });
    assert_eq!(started(&host.invoke(0)).len(), 1);
    let commands = host.wait(SECOND / 2);
    assert_eq!((started(&commands).len(), rejected(&commands).len()), (0, 0));
    // Two more starts, then the invocation is rejected.
    let commands = host.wait(SECOND * 4);
    assert_eq!(started(&commands).len(), 2);
    assert!(stopped(&commands).contains(&StopReason::StartTimedOut));
    assert!(matches!(rejected(&commands)[..], [RejectReason::SandboxFailed { .. }]));
}

#[test]
fn stop_timeout_says_again_what_nobody_confirmed() {
    let mut host = Host::with_worker(100, |config| config.stop_timeout = SECOND * 7);
    let sandbox = host.run(0).expect("started");
    host.end(1, sandbox);
    assert_eq!(stopped(&host.wait(SECOND * 601)), [StopReason::Idle]);
    assert_eq!(stopped(&host.wait(SECOND * 15)).len(), 2);
    host.tell(Event::SandboxGone { sandbox });
    assert!(host.wait(SECOND * 15).is_empty());
}

#[test]
fn starts_are_limited_by_function_and_by_worker() {
    let mut host = Host::with_worker(100, |config| config.starts_per_function_max = 3);
    let all: Vec<_> = (0..5).flat_map(|_| started(&host.invoke(0))).collect();
    assert_eq!((all.len(), host.engine.waiting()), (3, 5));
    assert_eq!(started(&host.tell(Event::SandboxReady { sandbox: all[0] })).len(), 1);

    let mut host = Host::with_worker(100, |config| config.starts_per_worker_max = 2);
    let all: Vec<_> = (0..5).flat_map(|_| started(&host.invoke(0))).collect();
    assert_eq!((all.len(), host.engine.waiting()), (2, 5));
}

#[test]
fn scaling_starts_max_in_a_scaling_period() {
    let mut host = Host::with_worker(100, |config| {
        config.scaling_starts_max = 2;
        config.scaling_period = SECOND * 10;
    });
    assert!(host.run(0).is_some() && host.run(0).is_some());
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::ScalingRate]);
    host.wait(SECOND);
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::ScalingRate]);
    host.wait(SECOND * 9);
    assert_eq!(started(&host.invoke(0)).len(), 1, "the period is over");
}

#[test]
fn accounts_have_their_concurrency_and_keep_their_unreserved_minimum() {
    let mut host = Host::with_worker(100, |config| {
        config.account_concurrency_max = 3;
        config.account_unreserved_min = 1;
    });
    let reserve = |concurrency| Event::FunctionPut {
        function: FunctionId(1),
        revision: 0,
        settings: FunctionSettings {
            reserved_concurrency: Some(concurrency),
            ..FunctionSettings::new(AccountId(0), MIB)
        },
    };
    assert_eq!(host.try_tell(reserve(3)), Err(EventError::Reserved));
    host.tell(reserve(2));
    assert!(host.run(0).is_some());
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::AccountConcurrency]);
    assert!(host.run(1).is_some() && host.run(1).is_some());
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::ReservedConcurrency]);
    host.tell(Event::AccountPut { account: AccountId(0), concurrency_max: 4 });
    assert!(host.run(0).is_some());
}

#[test]
fn waiting_max_and_sandboxes_max() {
    let mut host = Host::with_worker(100, |config| config.waiting_max = 2);
    assert!(rejected(&host.invoke(0)).is_empty() && rejected(&host.invoke(0)).is_empty());
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::WaitingFull]);

    let mut host = Host::with_worker(100, |config| config.sandboxes_max = 2);
    assert!(host.run(0).is_some() && host.run(0).is_some());
    assert_eq!(host.run(0), None);
    assert_eq!(host.engine.sandboxes(), 2);
}

/// Puts function 0 with at most `most` sandboxes.
fn put_with_most(host: &mut Host, revision: u64, most: u16, provisioned: u32) -> Vec<Command> {
    let mut settings = FunctionSettings::new(AccountId(0), MIB);
    (settings.cpu_milli, settings.timeout) = (100, SECOND * 300);
    settings.sandboxes_max = std::num::NonZeroU16::new(most);
    settings.provisioned_concurrency = provisioned;
    host.tell(Event::FunctionPut { function: FunctionId(0), revision, settings })
}

#[test]
fn sandboxes_max_of_a_function_makes_invocations_wait_for_one() {
    let fleet = FleetSizing { memory_high_percent: 100, ..FleetSizing::default() };
    let mut host = Host::with_worker(2, |config| {
        config.wait_max = SECOND * 30;
        config.scaling_starts_max = 3;
        config.fleet = Some(fleet);
    });
    put_with_most(&mut host, 1, 2, 0);
    let busy = [host.run(0).expect("room"), host.run(0).expect("room")];
    let commands: Vec<_> = (0..3).flat_map(|_| host.invoke(0)).collect();
    assert_eq!(commands, [], "nothing starts, is asked for or is refused");
    let dispatched =
        |commands: &[Command]| count(commands, |it| matches!(it, Command::Dispatch { .. }));
    assert_eq!(dispatched(&host.end(1, busy[0])), 1);
    // A sandbox that ends makes place for another one when it is gone.
    let (invocation, sandbox) = (InvocationId(2), busy[1]);
    let used = Used::default();
    let ended = Event::InvocationEnded { invocation, sandbox, reusable: false, used };
    assert_eq!(host.tell(ended), []);
    host.tell(Event::SandboxGone { sandbox });
    let commands = host.wait(SECOND / 1000);
    assert_eq!(started(&commands).len(), 1);
    host.tell(Event::SandboxReady { sandbox: started(&commands)[0] });
    assert_eq!((host.engine.waiting(), host.wait(SECOND * 29)), (1, vec![]));
    assert_eq!(rejected(&host.wait(SECOND * 2)), [RejectReason::SandboxesMax]);
}

#[test]
fn sandboxes_max_holds_in_a_rollout_and_bounds_provisioned_concurrency() {
    let mut host = Host::with_worker(100, |_| ());
    put_with_most(&mut host, 1, 2, 0);
    let busy = [host.run(0).expect("room"), host.run(0).expect("room")];
    host.end(1, busy[0]);
    let commands = put_with_most(&mut host, 2, 2, 2);
    assert_eq!((started(&commands), stopped(&commands).len()), (vec![], 1), "one old one is idle");
    host.tell(Event::SandboxGone { sandbox: busy[0] });
    assert_eq!(started(&host.wait(SECOND / 1000)).len(), 1);
    let commands = host.end(2, busy[1]);
    assert_eq!((started(&commands), stopped(&commands).len()), (vec![], 1));
    host.tell(Event::SandboxGone { sandbox: busy[1] });
    assert_eq!(started(&host.wait(SECOND / 1000)).len(), 1);
    let mut settings = FunctionSettings::new(AccountId(0), MIB);
    settings.sandboxes_max = std::num::NonZeroU16::new(2);
    settings.provisioned_concurrency = 3;
    let put = Event::FunctionPut { function: FunctionId(0), revision: 3, settings };
    assert_eq!(host.try_tell(put), Err(EventError::Reserved));
}

#[test]
fn ids_are_below_their_limits() {
    let mut host = Host::new(|config| {
        config.functions_max = 2;
        config.workers_max = 2;
        config.accounts_max = 2;
        config.networks_max = 2;
    });
    let settings = |account| FunctionSettings::new(AccountId(account), MIB);
    let function = |id, account| Event::FunctionPut {
        function: FunctionId(id),
        revision: 0,
        settings: settings(account),
    };
    let worker =
        |id| Event::WorkerJoined { worker: WorkerId(id), capacity: Capacity::of_memory(MIB) };
    let account = |id| Event::AccountPut { account: AccountId(id), concurrency_max: 1 };
    let network = |id| Event::NetworkPut {
        network: NetworkId(id),
        settings: NetworkSettings { account: AccountId(0), subnets: Vec::new() },
    };
    for event in [function(1, 1), worker(1), account(1), network(1)] {
        assert!(host.try_tell(event).is_ok());
    }
    for event in [function(2, 0), function(0, 2), worker(2), account(2), network(2)] {
        assert_eq!(host.try_tell(event.clone()), Err(EventError::TooMany), "{event:?}");
    }
}

#[test]
fn memory_and_processor_time_are_given_away_up_to_their_percentage() {
    for (memory_percent, wanted) in [(100, 4), (150, 6)] {
        let mut host = Host::with_worker(4, |config| config.memory_percent = memory_percent);
        assert_eq!((0..10).filter(|_| host.run(0).is_some()).count(), wanted);
        assert_eq!(rejected(&host.invoke(0)), []);
    }
    for (cpu_percent, wanted) in [(100, 10), (300, 30)] {
        let mut host = Host::new(|config| config.cpu_percent = cpu_percent);
        // Without the compliance gate, which would keep the busy processors within the real ones.
        host.engine = host.engine.with_placement(Box::new(placement::baselines::LeastLoaded));
        host.join(0, Capacity { cpu_milli: 1000, ..Capacity::of_memory(1 << 30) });
        host.put(0, |_| ());
        let refused = |host: &Host| {
            let fleet = host.engine.fleet();
            fleet.workers().next().map(|it| it.cpu_share())
        };
        assert_eq!((0..40).filter(|_| host.run(0).is_some()).count(), wanted);
        assert_eq!(refused(&host), Some(1.0));
    }
}

#[test]
fn worker_lease_ends_without_a_beat() {
    let mut host = Host::with_worker(100, |config| config.worker_lease = Some(SECOND * 10));
    host.wait(SECOND * 8);
    host.tell(Event::WorkerBeat { worker: WorkerId(0) });
    assert!(host.wait(SECOND * 9).is_empty());
    let worker = WorkerId(0);
    assert_eq!(host.wait(SECOND * 2), [Command::LoseWorker { worker }]);
    assert_eq!(host.try_tell(Event::WorkerBeat { worker }), Err(EventError::Unknown));
}

#[test]
fn recycling_asks_ahead_goes_quiet_and_drains_in_the_window() {
    let recycling = Recycling {
        life_min: SECOND * 1000,
        life_max: SECOND * 2000,
        drain_max: SECOND * 100,
        replace_ahead: SECOND * 50,
        quiet: SECOND * 200,
    };
    let mut host = Host::new(|config| config.recycling = Some(recycling));
    host.join(0, Capacity::of_memory(100 * MIB));
    host.join(1, Capacity::of_memory(100 * MIB));
    let (mut asked, mut drained) = (Vec::new(), Vec::new());
    while host.now < Time::ZERO + recycling.life_max {
        for command in host.wait(SECOND) {
            match command {
                Command::AskWorker { .. } => asked.push(host.now),
                Command::DrainWorker { worker } => drained.push((worker, host.now)),
                _ => {}
            }
        }
    }
    assert_eq!((asked.len(), drained.len()), (2, 2));
    for (ask, (_, drain)) in asked.iter().zip(&drained) {
        assert!(drain.since(*ask) >= recycling.replace_ahead, "{ask:?} {drain:?}");
        let latest = recycling.life_max - recycling.drain_max;
        let life = drain.since(Time::ZERO);
        assert!((recycling.life_min..=latest + SECOND).contains(&life), "{life:?}");
    }
    assert_ne!(drained[0].1, drained[1].1);
}

/// A worker near its end takes a sandbox only if no other worker can.
#[test]
fn recycling_quiet_leaves_new_sandboxes_to_others() {
    let recycling = Recycling {
        life_min: SECOND * 1000,
        life_max: SECOND * 1110,
        drain_max: SECOND * 100,
        replace_ahead: SECOND * 5,
        quiet: SECOND * 500,
    };
    let mut host = Host::new(|config| config.recycling = Some(recycling));
    host.join(0, Capacity::of_memory(100 * MIB));
    host.wait(SECOND * 600);
    host.join(1, Capacity::of_memory(4 * MIB));
    host.put(0, |settings| settings.timeout = SECOND * 1000);
    let mut on = Vec::new();
    for _ in 0..6 {
        for command in host.invoke(0) {
            if let Command::StartSandbox { sandbox, worker, .. } = command {
                on.push(worker.0);
                host.tell(Event::SandboxReady { sandbox });
            }
        }
    }
    assert_eq!(on, [1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_fleet_grows_and_shrinks_between_its_bounds() {
    let fleet = FleetSizing {
        workers_min: 2,
        workers_max: 3,
        memory_high_percent: 50,
        memory_low_percent: 20,
        interval: SECOND * 10,
        ask_again: SECOND * 100,
        ..FleetSizing::default()
    };
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    let asks = |commands: &[Command]| count(commands, |it| matches!(it, Command::AskWorker { .. }));
    assert_eq!(asks(&host.wait(SECOND * 30)), 2);
    // A worker that does not join is asked for again after `ask_again`, not before.
    assert_eq!(asks(&host.wait(SECOND * 60)), 0);
    assert_eq!(asks(&host.wait(SECOND * 40)), 2);
    host.join(0, Capacity::of_memory(4 * MIB));
    host.join(1, Capacity::of_memory(4 * MIB));
    host.put(0, |settings| settings.timeout = SECOND * 900);
    let held: Vec<_> = (0..6).filter_map(|_| host.run(0)).collect();
    assert_eq!((held.len(), asks(&host.wait(SECOND * 11))), (6, 1));
    host.join(2, Capacity::of_memory(4 * MIB));
    let more: Vec<_> = (0..4).filter_map(|_| host.run(0)).collect();
    assert_eq!((more.len(), asks(&host.wait(SECOND * 50))), (4, 0), "no more than workers_max");
    for (invocation, sandbox) in (1..).zip(held.iter().chain(&more)) {
        host.end(invocation, *sandbox);
    }
    let mut commands = host.wait(SECOND * 700);
    for sandbox in held.iter().chain(&more) {
        let _known =
            host.try_tell(Event::SandboxGone { sandbox: *sandbox }).map(|it| commands.extend(it));
    }
    commands.extend(host.wait(SECOND * 100));
    let drained = count(&commands, |it| matches!(it, Command::DrainWorker { .. }));
    assert_eq!((drained, host.engine.fleet().len()), (1, 2), "no fewer than workers_min");
}

fn vms(config: impl FnOnce(&mut VmConfig), isolation: Isolation) -> Host {
    let mut host = Host::new(|all| config(&mut all.vm));
    host.join(0, Capacity { isolation, ..Capacity::of_memory(64 * MIB) });
    host.put(0, |_| ());
    host
}

fn vm_started(commands: &[Command]) -> Vec<(VmId, u64)> {
    let one = |command: &Command| match command {
        Command::StartVm { vm, memory_bytes, .. } => Some((*vm, *memory_bytes)),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

#[test]
fn shared_vms_have_their_size_and_linger() {
    let change = |vm: &mut VmConfig| (vm.shared_memory_bytes, vm.linger) = (2 * MIB, SECOND * 5);
    let mut host = vms(change, Isolation::VmPerAccount);
    let (vm, memory) = vm_started(&host.invoke(0))[0];
    assert_eq!(memory, 2 * MIB);
    let sandbox = started(&host.tell(Event::VmReady { vm }))[0];
    host.tell(Event::SandboxReady { sandbox });
    // The second sandbox fits into the VM, the third needs another VM.
    assert_eq!(vm_started(&host.invoke(0)).len(), 0);
    assert_eq!(vm_started(&host.invoke(0)).len(), 1);
    let mut host = vms(change, Isolation::VmPerAccount);
    let (vm, _) = vm_started(&host.invoke(0))[0];
    let sandbox = started(&host.tell(Event::VmReady { vm }))[0];
    host.tell(Event::SandboxReady { sandbox });
    host.end(1, sandbox);
    host.wait(SECOND * 601);
    host.tell(Event::SandboxGone { sandbox });
    let stops = |commands: &[Command]| count(commands, |it| matches!(it, Command::StopVm { .. }));
    assert_eq!(stops(&host.wait(SECOND * 4)), 0);
    assert_eq!(stops(&host.wait(SECOND * 2)), 1);
}

#[test]
fn a_vm_has_its_time_to_start_and_there_are_no_more_than_may_be() {
    let mut host = vms(|vm| vm.start_timeout = SECOND * 5, Isolation::VmPerSandbox);
    assert_eq!(vm_started(&host.invoke(0)).len(), 1);
    let commands = host.wait(SECOND * 6);
    assert_eq!(count(&commands, |it| matches!(it, Command::StopVm { .. })), 1);
    assert_eq!(vm_started(&commands).len(), 1, "and another one is tried");

    let mut host = vms(|vm| vm.vms_max = 2, Isolation::VmPerSandbox);
    let all: usize = (0..5).map(|_| vm_started(&host.invoke(0)).len()).sum();
    assert_eq!((all, host.engine.vms()), (2, 2));
}

#[test]
fn pools_have_their_sizes_and_no_more_vms_than_may_be() {
    let change = |vm: &mut VmConfig| {
        vm.pool_sizes_bytes = vec![MIB, 4 * MIB];
        vm.start_time = SECOND * 100;
        vm.pool_max = 3;
    };
    let mut host = vms(change, Isolation::VmPerSandbox);
    let first = vm_started(&host.wait(SECOND * 11));
    let mut sizes: Vec<_> = first.iter().map(|(_, memory)| *memory).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [MIB, 4 * MIB], "one of each size before anything is known");
    for (vm, _) in first {
        host.tell(Event::VmReady { vm });
    }
    assert_eq!(host.engine.vms_pooled(), [1, 1]);
    // A start takes a hundred seconds, and one VM is taken in ten: the target would be ten or more,
    // but three are allowed.
    for _ in 0..5 {
        for (vm, _) in vm_started(&host.invoke(0)) {
            host.tell(Event::VmReady { vm });
        }
    }
    for _ in 0..5 {
        for (vm, _) in vm_started(&host.wait(SECOND * 11)) {
            host.tell(Event::VmReady { vm });
        }
    }
    assert_eq!(host.engine.vms_pooled()[0], 3);
}

fn networked(addresses: u32, config: impl FnOnce(&mut InterfaceConfig)) -> (Host, Vec<Command>) {
    let mut host = Host::new(|all| config(&mut all.interface));
    host.join(0, Capacity { interface_slots: 4, ..Capacity::of_memory(64 * MIB) });
    let settings = NetworkSettings { account: AccountId(0), subnets: vec![(Zone(0), addresses)] };
    let commands = host.tell(Event::NetworkPut { network: NetworkId(0), settings });
    host.put(0, |settings| settings.network = Some(NetworkId(0)));
    (host, commands)
}

fn interfaces(commands: &[Command]) -> Vec<InterfaceId> {
    let one = |command: &Command| match command {
        Command::StartInterface { interface, .. } => Some(*interface),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

#[test]
fn interfaces_are_shared_linger_and_have_their_addresses() {
    let change = |it: &mut InterfaceConfig| (it.sandboxes_max, it.linger) = (1, SECOND * 5);
    let (mut host, commands) = networked(2, change);
    let first = interfaces(&commands)[0];
    host.tell(Event::InterfaceReady { interface: first });
    let one = host.run(0).expect("started");
    let second = interfaces(&host.invoke(0))[0];
    let other = started(&host.tell(Event::InterfaceReady { interface: second }))[0];
    host.tell(Event::SandboxReady { sandbox: other });
    // Both addresses are taken.
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::NoNetwork]);
    for (invocation, sandbox) in [(1, one), (2, other)] {
        host.end(invocation, sandbox);
    }
    host.wait(SECOND * 601);
    for sandbox in [one, other] {
        host.tell(Event::SandboxGone { sandbox });
    }
    let stops =
        |commands: &[Command]| count(commands, |it| matches!(it, Command::StopInterface { .. }));
    assert_eq!(stops(&host.wait(SECOND * 4)), 0);
    assert_eq!(stops(&host.wait(SECOND * 2)), 1, "the last of a network stays");
}

#[test]
fn a_full_interface_gets_a_second_and_no_more_sandboxes_until_it_has_room() {
    let (mut host, commands) = networked(2, |_| ());
    let first = interfaces(&commands)[0];
    assert!(host.engine.handle(host.now, Event::InterfaceFull { interface: first }).is_err());
    host.tell(Event::InterfaceReady { interface: first });
    assert!(host.run(0).is_some());
    let second = interfaces(&host.tell(Event::InterfaceFull { interface: first }))[0];
    assert!(interfaces(&host.tell(Event::InterfaceFull { interface: first })).is_empty());
    host.tell(Event::InterfaceReady { interface: second });
    let given = |commands: &[Command]| {
        let one = |command: &Command| match command {
            Command::StartSandbox { interface, .. } => *interface,
            _ => None,
        };
        commands.iter().filter_map(one).collect::<Vec<_>>()
    };
    assert_eq!(given(&host.invoke(0)), [second]);
    // Both addresses are taken, and both interfaces are full.
    assert!(interfaces(&host.tell(Event::InterfaceFull { interface: second })).is_empty());
    assert_eq!(rejected(&host.invoke(0)), [RejectReason::NoNetwork]);
    host.tell(Event::InterfaceRoom { interface: first });
    assert_eq!(given(&host.invoke(0)), [first]);
}

#[test]
fn an_interface_has_its_time_to_come_and_a_worker_its_slots() {
    let (mut host, commands) = networked(9, |it| it.start_timeout = SECOND * 5);
    assert_eq!(interfaces(&commands).len(), 1);
    host.invoke(0);
    let commands = host.wait(SECOND * 6);
    assert_eq!(count(&commands, |it| matches!(it, Command::StopInterface { .. })), 1);
    assert_eq!(interfaces(&commands).len(), 1, "and another one is tried");

    let (mut host, commands) = networked(9, |_| ());
    host.tell(Event::InterfaceReady { interface: interfaces(&commands)[0] });
    assert_eq!((0..9).filter(|_| host.run(0).is_some()).count(), 4, "as many as it has slots");

    let (mut host, _) = networked(9, |it| (it.interfaces_max, it.sandboxes_max) = (1, 1));
    host.invoke(0);
    host.invoke(0);
    assert_eq!(host.engine.interfaces(), 1);
}

#[test]
fn explanations_are_kept_up_to_their_number_and_a_journal_if_wanted() {
    let mut host = Host::with_worker(100, |config| config.explanations_kept = 2);
    (0..5).for_each(|_| drop(host.invoke(0)));
    assert_eq!(host.engine.explanations().count(), 2);
    assert_eq!(host.engine.poll_journal(), None);
    let mut host = Host::with_worker(100, |config| config.journal = true);
    let given = host.invoke(0);
    let written: Vec<_> = std::iter::from_fn(|| host.engine.poll_journal()).collect();
    assert_eq!(written.iter().map(|it| it.command).collect::<Vec<_>>(), given);
}

#[test]
fn functions_that_share_take_out_of_one_reserved_concurrency() {
    let mut host = Host::with_worker(100, |config| {
        config.account_concurrency_max = 10;
        config.account_unreserved_min = 1;
    });
    let put = |id, change: &dyn Fn(&mut FunctionSettings)| {
        let mut settings = FunctionSettings::new(AccountId(0), MIB);
        change(&mut settings);
        Event::FunctionPut { function: FunctionId(id), revision: 0, settings }
    };
    let shares = |it: &mut FunctionSettings| it.shares_with = Some(FunctionId(1));
    host.tell(put(1, &|it| it.reserved_concurrency = Some(3)));
    host.tell(put(2, &shares));
    assert_eq!(
        host.try_tell(put(2, &|it| it.shares_with = Some(FunctionId(2)))),
        Err(EventError::Unknown)
    );
    assert_eq!(
        host.try_tell(put(4, &|it| it.shares_with = Some(FunctionId(2)))),
        Err(EventError::Unknown)
    );
    let first = host.run(2).expect("within what is reserved");
    assert!(host.run(1).is_some() && host.run(2).is_some());
    for function in [1, 2] {
        assert_eq!(rejected(&host.invoke(function)), [RejectReason::ReservedConcurrency]);
    }
    host.end(1, first);
    assert!(host.run(1).is_some());
    assert_eq!(rejected(&host.invoke(2)), [RejectReason::ReservedConcurrency]);

    // What is provisioned for one of them is left to it.
    host.tell(put(3, &|it| {
        (it.shares_with, it.provisioned_concurrency) = (Some(FunctionId(1)), 2)
    }));
    host.tell(put(1, &|it| it.reserved_concurrency = Some(5)));
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::ReservedConcurrency]);
    assert!(rejected(&host.invoke(3)).is_empty() && rejected(&host.invoke(3)).is_empty());
    assert_eq!(rejected(&host.invoke(3)), [RejectReason::ReservedConcurrency]);

    // One that is gone takes nothing any more, whatever of it still runs.
    host.tell(Event::FunctionRemoved { function: FunctionId(2) });
    assert!(host.run(1).is_some());
    assert_eq!(rejected(&host.invoke(1)), [RejectReason::ReservedConcurrency]);
}

#[test]
fn functions_that_share_are_provisioned_within_what_is_reserved_or_left() {
    let mut host = Host::with_worker(100, |config| {
        (config.account_concurrency_max, config.account_unreserved_min) = (10, 1);
    });
    let mut put = |id, reserved, owner: Option<u32>, provisioned| {
        let mut settings = FunctionSettings::new(AccountId(0), MIB);
        settings.reserved_concurrency = reserved;
        settings.shares_with = owner.map(FunctionId);
        settings.provisioned_concurrency = provisioned;
        let function = FunctionId(id);
        let put = Event::FunctionPut { function, revision: 0, settings };
        host.try_tell(put).map(|commands| started(&commands).len())
    };
    assert_eq!(put(1, None, None, 0), Ok(0));
    // Of ten, one stays unreserved.
    assert_eq!(put(2, None, Some(1), 10), Err(EventError::Reserved));
    assert_eq!(put(2, None, Some(1), 3), Ok(3));
    assert_eq!(put(1, Some(2), None, 0), Err(EventError::Reserved));
    assert_eq!(put(1, Some(5), None, 1), Ok(1));
    assert_eq!(put(3, None, Some(1), u32::MAX), Err(EventError::Reserved));
    assert_eq!(put(3, None, Some(1), 2), Err(EventError::Reserved));
    assert_eq!(put(3, None, Some(1), 1), Ok(1));
}
