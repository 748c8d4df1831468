//! An engine is lost, and the next one adopts what the workers report.

use std::collections::BTreeMap;

use lambda_core::sim::{Checker, StateSeen};
use lambda_core::*;
use proptest::prelude::*;

use super::world::{Fleet, KEEP, Step, World, cases, config, fleet, run, step};

/// Replaces a world's engine, and passes the driver's knowledge and then the workers' reports to
/// the new one. Returns the new engine's commands for each worker that reported.
fn succeed(world: &mut World, kind: Fleet) -> BTreeMap<WorkerId, Vec<Command>> {
    let old = std::mem::replace(&mut world.checker, Checker::new(config(kind), Some(KEEP)));
    let mut engine =
        Engine::restarted(config(kind), 7, 1).with_idle_policy(Box::new(FixedIdle(KEEP)));
    let mut tell = |world: &mut World, event: Event| {
        world.checker.handle(&mut engine, world.now, event).unwrap_or_else(|it| panic!("{it}"))
    };
    if kind.networks {
        let subnets = vec![(Zone(0), 2), (Zone(1), 1)];
        let settings = NetworkSettings { account: AccountId(1), subnets };
        tell(world, Event::NetworkPut { network: NetworkId(0), settings });
    }
    for (function, it) in old.functions.iter().filter(|(_, it)| !it.removed) {
        // Provisioned concurrency is set after all workers have reported.
        let settings = FunctionSettings { provisioned_concurrency: 0, ..it.settings };
        tell(world, Event::FunctionPut { function: *function, revision: it.revision, settings });
    }
    let serving: Vec<_> = old.workers.iter().filter(|(_, it)| !it.draining).collect();
    for (worker, it) in &serving {
        tell(world, Event::WorkerJoined { worker: **worker, capacity: it.capacity });
    }
    let mut answers = BTreeMap::new();
    for (worker, _) in serving {
        let here = |it: &&WorkerId| **it == *worker;
        let sandboxes = (old.sandboxes.iter())
            .filter(|(_, it)| here(&&it.worker) && it.is_there())
            .map(|(id, it)| it.reported(*id));
        let vms = (old.vms.iter())
            .filter(|(_, it)| here(&&it.worker) && it.ready)
            .map(|(id, it)| it.reported(*id));
        let report = Event::WorkerReported {
            worker: *worker,
            vms: vms.collect(),
            sandboxes: sandboxes.collect(),
        };
        answers.insert(*worker, tell(world, report));
    }
    world.engine = engine;
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(2_000)))]

    /// A reported sandbox is adopted or commanded to stop, and its invocation continues or is
    /// rejected. An adopted sandbox has the reported state. The invariants hold afterwards.
    #[test]
    fn adoption_ends_with_the_workers_truth(
        kind in fleet(),
        steps in prop::collection::vec(step(), 0..150),
        more in prop::collection::vec(step(), 0..100),
    ) {
        let mut world = run(kind, &steps);
        let old = world.checker.clone();
        let answers = succeed(&mut world, kind);
        for (id, it) in &old.sandboxes {
            let Some(commands) = answers.get(&it.worker).filter(|_| it.is_there()) else { continue };
            let stopped = commands.iter().any(|command| {
                matches!(command, Command::StopSandbox { sandbox, .. } if sandbox == id)
            });
            let taken = world.checker.sandboxes.get(id);
            prop_assert!(stopped || taken.is_some(), "{id:?} is forgotten: {it:?}");
            let function = &old.functions[&it.function];
            let interface = it.interface.is_none_or(|it| old.interfaces.get(&it).is_some_and(|it| it.ready));
            let current = function.revision == it.revision && !function.removed && interface;
            if current && matches!(it.state, StateSeen::Idle | StateSeen::Busy(_)) {
                prop_assert!(taken.is_some(), "{id:?} is not taken over: {it:?}\n{commands:?}");
            }
            if let (Some(invocation), false) = (it.running(), stopped) {
                let state = taken.map(|it| it.state);
                prop_assert_eq!(state, Some(StateSeen::Busy(invocation)));
            }
        }
        for step in &more {
            world.step(step);
        }
    }
}

/// A ledger, built from a journal, knows which sandboxes run on which worker. Its report is adopted
/// as a whole.
#[test]
fn a_journal_replayed_is_adopted() {
    let kind = Fleet {
        isolation: Isolation::Sandbox,
        networks: false,
        leases: false,
        recycles: false,
        grows: false,
    };
    let mut config = config(kind);
    config.journal = true;
    let mut world = World::new(kind);
    world.engine = Engine::new(config.clone(), 3);
    world.checker = Checker::new(config.clone(), None);
    let put = |function| Step::Put { function, revision: 0, reserved: None, provisioned: 0 };
    for step in [Step::Join { worker: 1 }, Step::Join { worker: 2 }, put(0), put(1)] {
        world.step(&step);
    }
    for function in [0, 1, 0, 1, 0] {
        world.step(&Step::Invoke { function });
        world.step(&Step::Ready(0));
    }
    world.step(&Step::End(0, true));
    world.step(&Step::End(1, false));
    world.step(&Step::Gone(0));
    let decisions = std::iter::from_fn(|| world.engine.poll_journal());
    let ledger = Ledger::replay(decisions);
    let old = world.checker.clone();
    let mut engine = Engine::restarted(config, 3, 1);
    for (function, it) in &old.functions {
        let (function, revision, settings) = (*function, it.revision, it.settings);
        engine.handle(world.now, Event::FunctionPut { function, revision, settings }).expect("put");
    }
    for (worker, it) in &old.workers {
        let (worker, capacity) = (*worker, it.capacity);
        engine.handle(world.now, Event::WorkerJoined { worker, capacity }).expect("joined");
        engine.handle(world.now, ledger.report(worker)).expect("reported");
    }
    assert_eq!(std::iter::from_fn(|| engine.poll()).collect::<Vec<_>>(), []);
    // The journal also has the ends that workers reported without a command.
    assert_eq!((ledger.sandboxes(), engine.sandboxes()), (4, 4));
    for (id, it) in &old.sandboxes {
        assert_eq!(ledger.worker_of(*id), Some(it.worker));
    }
}

/// A report was sent before a VM ended, and arrives after its slot has another VM: everything in it
/// is a stray. The checker once took the stopped sandbox for a live one and reported a violation.
#[test]
fn a_report_that_comes_late_brings_nothing_back() {
    let mut engine = Engine::new(Config::default(), 1);
    let mut checker = Checker::new(Config::default(), None);
    let mut tell = |event: Event| {
        checker.handle(&mut engine, Time::ZERO, event).unwrap_or_else(|it| panic!("{it}"))
    };
    let (worker, function, invocation) = (WorkerId(0), FunctionId(0), InvocationId(1));
    let mut capacity = Capacity::of_memory(8 << 30);
    capacity.isolation = Isolation::VmPerAccount;
    tell(Event::WorkerJoined { worker, capacity });
    let settings = FunctionSettings::new(AccountId(0), 128 << 20);
    tell(Event::FunctionPut { function, revision: 0, settings });
    let started = tell(Event::InvocationArrived { invocation, function });
    let [Command::StartVm { vm, memory_bytes, account, .. }] = started[..] else {
        panic!("{started:?}")
    };
    let made = tell(Event::VmReady { vm });
    let [Command::StartSandbox { sandbox, .. }] = made[..] else { panic!("{made:?}") };
    tell(Event::SandboxReady { sandbox });
    let report = Event::WorkerReported {
        worker,
        vms: vec![ReportedVm { vm, account, memory_bytes }],
        sandboxes: vec![ReportedSandbox {
            sandbox,
            function,
            revision: 0,
            vm: Some(vm),
            interface: None,
            invocation: Some(invocation),
        }],
    };
    assert_eq!(tell(report.clone()), []);
    tell(Event::VmGone { vm });
    // The new VM gets the slot of the one that is gone.
    tell(Event::InvocationArrived { invocation: InvocationId(2), function });
    let told = tell(report);
    let strays = [
        Command::StopVm { vm, worker },
        Command::StopSandbox { sandbox, worker, reason: StopReason::Stray },
    ];
    assert!(strays.iter().all(|it| told.contains(it)), "{told:?}");
}

/// The network of an interface is removed, and a report names another sandbox on it than the engine
/// knows. The interface was once removed when the known sandbox was found gone, before the other
/// one was read.
#[test]
fn an_interface_stays_while_a_report_has_sandboxes_on_it() {
    let mut engine = Engine::restarted(Config::default(), 1, 1);
    let (worker, function, network) = (WorkerId(0), FunctionId(0), NetworkId(0));
    let mut tell = |event: Event| {
        engine.handle(Time::ZERO, event).expect("taken");
        std::iter::from_fn(|| engine.poll()).collect::<Vec<_>>()
    };
    let account = AccountId(0);
    let subnets = vec![(Zone(0), 2)];
    tell(Event::NetworkPut { network, settings: NetworkSettings { account, subnets } });
    let mut settings = FunctionSettings::new(account, 128 << 20);
    settings.network = Some(network);
    tell(Event::FunctionPut { function, revision: 0, settings });
    tell(Event::WorkerJoined { worker, capacity: Capacity::of_memory(8 << 30) });
    let interface = InterfaceId(0);
    let report = |sandbox| Event::WorkerReported {
        worker,
        vms: Vec::new(),
        sandboxes: vec![ReportedSandbox {
            sandbox: SandboxId(sandbox),
            function,
            revision: 0,
            vm: None,
            interface: Some(interface),
            invocation: None,
        }],
    };
    assert_eq!(tell(report(0)), []);
    assert_eq!(tell(Event::NetworkRemoved { network }), []);
    assert_eq!(tell(report(1)), []);
    let last = tell(Event::SandboxGone { sandbox: SandboxId(1) });
    assert_eq!(last, [Command::StopInterface { interface }]);
}
