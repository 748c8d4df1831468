//! Available capacity is used: for any scarce resource, on any worker, and before another worker is
//! asked for.

mod host;

use host::{Host, MIB, SECOND, count, rejected, started, stopped};
use lambda_core::*;

const GIB: u64 = 1 << 30;

fn asked(commands: &[Command]) -> usize {
    count(commands, |it| matches!(it, Command::AskWorker { .. }))
}

/// Reports evicted sandboxes and VMs as gone and started VMs as ready. Returns all commands.
fn settle(host: &mut Host, mut commands: Vec<Command>) -> Vec<Command> {
    let mut all = Vec::new();
    while let Some(command) = commands.pop() {
        commands.extend(match command {
            Command::StopSandbox { sandbox, .. } => host.tell(Event::SandboxGone { sandbox }),
            Command::StopVm { vm, .. } => host.tell(Event::VmGone { vm }),
            Command::StartVm { vm, .. } => host.tell(Event::VmReady { vm }),
            _ => Vec::new(),
        });
        all.push(command);
    }
    all
}

/// Four idle sandboxes hold a worker's whole supply of one resource.
fn full_of_idle(change: impl Fn(&mut Capacity, &mut FunctionSettings)) -> Host {
    let mut host = Host::new(|config| config.cpu_percent = 100);
    let mut capacity = Capacity { cpu_milli: 100_000, ..Capacity::of_memory(64 * GIB) };
    let mut settings = FunctionSettings::new(AccountId(0), MIB);
    change(&mut capacity, &mut settings);
    host.join(0, capacity);
    let network = settings.network.unwrap_or(NetworkId(0));
    let subnets = vec![(Zone(0), 9)];
    let made = NetworkSettings { account: AccountId(0), subnets };
    for command in host.tell(Event::NetworkPut { network, settings: made }) {
        if let Command::StartInterface { interface, .. } = command {
            host.tell(Event::InterfaceReady { interface });
        }
    }
    for function in 0..2 {
        host.put(function, |it| *it = settings);
    }
    let made: Vec<_> = (0..4).map(|_| host.run(0).expect("room")).collect();
    for (invocation, sandbox) in (1..).zip(made) {
        host.end(invocation, sandbox);
    }
    host
}

#[test]
fn idle_sandboxes_end_for_whatever_resource_is_short() {
    let memory =
        |capacity: &mut Capacity, _: &mut FunctionSettings| capacity.memory_bytes = 4 * MIB;
    let processors = |capacity: &mut Capacity, settings: &mut FunctionSettings| {
        (capacity.cpu_milli, settings.cpu_milli) = (4000, 1000);
    };
    let slots = |capacity: &mut Capacity, settings: &mut FunctionSettings| {
        (capacity.interface_slots, settings.network) = (4, Some(NetworkId(0)));
    };
    let hosts = [full_of_idle(memory), full_of_idle(processors), full_of_idle(slots)];
    for (kind, mut host) in hosts.into_iter().enumerate() {
        let commands = host.invoke(1);
        assert_eq!(stopped(&commands), [StopReason::Evicted], "{kind}");
        let commands = settle(&mut host, commands);
        assert_eq!((started(&commands).len(), rejected(&commands)), (1, vec![]), "{kind}");
    }
}

#[test]
fn a_worker_is_asked_for_when_processors_are_short() {
    let fleet = FleetSizing { workers_max: 10, ..FleetSizing::default() };
    let mut host = Host::new(|config| (config.cpu_percent, config.fleet) = (100, Some(fleet)));
    host.commands();
    host.join(0, Capacity { cpu_milli: 4000, ..Capacity::of_memory(64 * GIB) });
    for function in 0..2 {
        host.put(function, |it| (it.cpu_milli, it.timeout) = (1000, SECOND * 600));
    }
    for _ in 0..4 {
        host.run(0);
    }
    assert_eq!(asked(&host.invoke(1)), 1);
}

fn vm_of(commands: &[Command]) -> Option<VmId> {
    commands.iter().find_map(|command| match command {
        Command::StartVm { vm, .. } => Some(*vm),
        _ => None,
    })
}

/// Returns a worker with two customers' VMs, each with `each` idle sandboxes.
fn two_customers(gib: u64, each: usize) -> Host {
    let mut host = Host::new(|_| ());
    let isolation = Isolation::VmPerAccount;
    host.join(0, Capacity { isolation, ..Capacity::of_memory(gib * GIB) });
    for function in 0..3 {
        host.put(function, |it| it.account = AccountId(function));
    }
    let mut busy = Vec::new();
    for function in 0..2 {
        for _ in 0..each {
            let mut commands = host.invoke(function);
            if let Some(vm) = vm_of(&commands) {
                commands = host.tell(Event::VmReady { vm });
            }
            let sandbox = started(&commands)[0];
            host.tell(Event::SandboxReady { sandbox });
            busy.push((host.invoked, sandbox));
        }
    }
    // Alternating, so that the longest idle sandboxes of the two customers alternate.
    for nth in 0..each {
        for (invocation, sandbox) in [busy[nth], busy[each + nth]] {
            host.wait(SECOND / 100);
            host.end(invocation, sandbox);
        }
    }
    host
}

#[test]
fn one_idle_vm_ends_for_another_customer_and_no_more_than_that() {
    for (gib, each) in [(9, 1), (8, 10)] {
        let mut host = two_customers(gib, each);
        let commands = host.invoke(2);
        assert_eq!(stopped(&commands).len(), each, "the sandboxes of one VM");
        let commands = settle(&mut host, commands);
        assert!(vm_of(&commands).is_some() && rejected(&commands).is_empty(), "{commands:?}");
    }
}

#[test]
fn of_many_workers_the_one_that_fits_is_found() {
    for seed in 0..50 {
        let mut config = Config::default();
        config.cpu_percent = 100;
        let mut host = Host { engine: Engine::new(config, seed), now: Time::ZERO, invoked: 0 };
        host.put(0, |it| it.cpu_milli = 2000);
        for worker in 0..200 {
            let cpu_milli = if worker == 77 { 4000 } else { 1000 };
            host.join(worker, Capacity { cpu_milli, ..Capacity::of_memory(64 * GIB) });
        }
        assert_eq!(started(&host.invoke(0)).len(), 1, "seed {seed}");
    }
}

#[test]
fn a_burst_asks_for_all_the_workers_that_it_needs() {
    let fleet = FleetSizing { workers_max: 100, ..FleetSizing::default() };
    let mut host = Host::new(|config| {
        (config.fleet, config.account_concurrency_max) = (Some(fleet), 10_000);
    });
    host.commands();
    host.join(0, Capacity::of_memory(10 * MIB));
    host.put(0, |it| it.timeout = SECOND * 7200);
    let mut commands = Vec::new();
    for _ in 0..210 {
        commands.extend(host.invoke(0));
    }
    assert_eq!((started(&commands).len(), asked(&commands)), (10, 20));
    for worker in 1..=20 {
        commands.extend(host.join(worker, Capacity::of_memory(10 * MIB)));
    }
    assert_eq!((started(&commands).len(), rejected(&commands)), (210, vec![]));
}

#[test]
fn without_workers_an_invocation_waits_for_the_one_that_is_asked_for() {
    let fleet = FleetSizing { workers_min: 0, ..FleetSizing::default() };
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    host.commands();
    host.put(0, |_| ());
    assert_eq!(asked(&host.invoke(0)), 1);
    assert_eq!(host.wait(SECOND * 200), []);
    assert_eq!(started(&host.join(0, Capacity::of_memory(GIB))).len(), 1);
}

/// A fleet of one large and some small workers gives no worker back that it would ask for again.
#[test]
fn a_fleet_of_mixed_sizes_does_not_flap() {
    let fleet = FleetSizing { workers_min: 1, interval: SECOND * 10, ..FleetSizing::default() };
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    host.commands();
    host.join(0, Capacity::of_memory(1000 * MIB));
    host.join(1, Capacity::of_memory(100 * MIB));
    host.put(0, |it| (it.memory_bytes, it.timeout) = (30 * MIB, SECOND * 900));
    for _ in 0..9 {
        host.run(0);
    }
    let commands = host.wait(SECOND * 600);
    let drained = count(&commands, |it| matches!(it, Command::DrainWorker { .. }));
    assert!(drained == 0 || asked(&commands) == 0, "{commands:?}");
}

#[test]
fn the_sandboxes_of_a_function_are_spread_over_zones() {
    let mut host = Host::new(|config| config.account_concurrency_max = u32::MAX);
    for worker in 0..30_u32 {
        let zone = Zone(u8::try_from(worker / 10).expect("small"));
        host.join(worker, Capacity { zone, ..Capacity::of_memory(64 * GIB) });
    }
    for function in 0..200 {
        let mut zones = [0; 3];
        for command in host.put(function, |it| it.provisioned_concurrency = 3) {
            if let Command::StartSandbox { worker, .. } = command {
                zones[worker.0 as usize / 10] += 1;
            }
        }
        assert_eq!(zones, [1, 1, 1]);
    }
}

/// A burst at the half hour is expected again an hour later, and not before.
#[test]
fn a_forecast_repeats_the_change_of_an_hour_ago() {
    let mut host = Host::new(|config| {
        config.fleet = Some(FleetSizing { workers_max: 1, ..FleetSizing::default() });
    });
    host.join(0, Capacity::of_memory(32 * MIB));
    host.put(0, |it| it.timeout = SECOND * 10_000);
    (0..10).for_each(|_| assert!(host.run(0).is_some()));
    host.wait(SECOND * 1800);
    let burst: Vec<_> = (0..20).map(|_| (host.run(0).expect("room"), host.invoked)).collect();
    host.wait(SECOND * 30);
    for (sandbox, invocation) in burst {
        let (invocation, reusable, used) = (InvocationId(invocation), false, Used::default());
        host.tell(Event::InvocationEnded { invocation, sandbox, reusable, used });
        host.tell(Event::SandboxGone { sandbox });
    }
    let expected = |host: &Host, minutes: u32| {
        let of = host.engine.forecast(SECOND * 60 * minutes);
        let [zone] = of[..] else { panic!("{of:?}") };
        assert_eq!(zone.now_bytes, 10 * MIB);
        (zone.expected_bytes / MIB, zone.workers)
    };
    assert_eq!(expected(&host, 60), (10, 1), "an hour has not passed");
    host.wait(SECOND * 1800);
    assert_eq!((expected(&host, 0), expected(&host, 20)), ((10, 1), (10, 1)));
    assert_eq!(expected(&host, 40), (30, 2));
    assert_eq!(Engine::new(Config::default(), 1).forecast(SECOND), []);
}
