//! The engine's invariants, held by a checker outside it, against a driver that is slow, late, repeats itself, loses
//! workers, makes things fail, lets time stand still and talks nonsense.

use std::time::Duration;

use lambda_core::sim::{Checker, StateSeen};
use lambda_core::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Invoke { function: u32 },
    Ready(Index),
    Fail(Index, bool),
    End(Index, bool),
    Gone(Index),
    Vm(Index, bool),
    Interface(Index, bool),
    Wait { ms: u64 },
    Join { worker: u32 },
    Beat { worker: u32 },
    Drain { worker: u32 },
    Lose { worker: u32 },
    Report { worker: u32, forgets: Option<Index> },
    Put { function: u32, revision: u64, reserved: Option<u32>, provisioned: u32 },
    Remove { function: u32 },
    Network { settle: bool },
    Account { max: u32 },
    Nonsense(u64),
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        12 => (0..4u32).prop_map(|function| Step::Invoke { function }),
        8 => index().prop_map(Step::Ready),
        1 => (index(), any::<bool>()).prop_map(|(at, function)| Step::Fail(at, function)),
        8 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, reusable)| Step::End(at, reusable)),
        4 => index().prop_map(Step::Gone),
        4 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, ready)| Step::Vm(at, ready)),
        4 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, ready)| Step::Interface(at, ready)),
        5 => prop_oneof![Just(0), 1..50u64, 1_000..20_000u64, 50_000..400_000u64].prop_map(|ms| Step::Wait { ms }),
        2 => (0..4u32).prop_map(|worker| Step::Join { worker }),
        1 => (0..4u32).prop_map(|worker| Step::Beat { worker }),
        1 => (0..4u32).prop_map(|worker| Step::Drain { worker }),
        1 => (0..4u32).prop_map(|worker| Step::Lose { worker }),
        1 => (0..4u32, prop::option::of(index())).prop_map(|(worker, forgets)| Step::Report { worker, forgets }),
        2 => (0..4u32, 0..3u64, prop::option::of(0..4u32), 0..3u32).prop_map(
            |(function, revision, reserved, provisioned)| Step::Put { function, revision, reserved, provisioned }),
        1 => (0..4u32).prop_map(|function| Step::Remove { function }),
        1 => any::<bool>().prop_map(|settle| Step::Network { settle }),
        1 => (0..12u32).prop_map(|max| Step::Account { max }),
        1 => (0..100u64).prop_map(Step::Nonsense),
        2 => Just(Step::Again),
    ]
}

/// What kind of fleet it is.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    isolation: Isolation,
    networks: bool,
    leases: bool,
    recycles: bool,
    grows: bool,
}

fn fleet() -> impl Strategy<Value = Fleet> {
    let isolation = prop_oneof![
        Just(Isolation::Sandbox),
        Just(Isolation::VmPerAccount),
        Just(Isolation::VmPerSandbox)
    ];
    (isolation, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(isolation, networks, leases, recycles, grows)| Fleet {
            isolation,
            networks,
            leases,
            recycles,
            grows,
        },
    )
}

const KEEP: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

fn config(fleet: Fleet) -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = 8;
    config.account_unreserved_min = 1;
    config.scaling_starts_max = 5;
    config.starts_per_worker_max = 3;
    config.starts_per_function_max = 4;
    config.waiting_max = 20;
    config.explanations_kept = 4;
    config.worker_lease = fleet.leases.then(|| Duration::from_secs(60));
    config.recycling = fleet.recycles.then(|| Recycling {
        life_min: Duration::from_secs(100),
        life_max: Duration::from_secs(10_000_000),
        drain_max: Duration::from_secs(60),
        replace_ahead: Duration::from_secs(20),
        quiet: Duration::from_secs(30),
    });
    config.fleet = fleet.grows.then(|| Fleet_ {
        zones: vec![Zone(0), Zone(1)],
        workers_max: 3,
        ..Fleet_::default()
    });
    config.vm.shared_memory_bytes = 8 * MIB;
    config.vm.pool_sizes_bytes = vec![4 * MIB];
    config.vm.pool_max = 2;
    config.interface.sandboxes_max = 2;
    config.interface.linger = Duration::from_secs(30);
    config
}

use lambda_core::Fleet as Fleet_;

struct World {
    engine: Engine,
    checker: Checker,
    fleet: Fleet,
    now: Time,
    invoked: u64,
    last: Option<Event>,
    log: Vec<Command>,
}

impl World {
    fn new(fleet: Fleet) -> Self {
        let config = config(fleet);
        let engine = Engine::new(config.clone(), 7).with_idle_policy(Box::new(FixedIdle(KEEP)));
        let checker = Checker::new(config, Some(KEEP));
        let now = Time::ZERO;
        Self { engine, checker, fleet, now, invoked: 0, last: None, log: Vec::new() }
    }

    fn settings(&self, function: u32, revision: u64) -> FunctionSettings {
        let mut settings = FunctionSettings::new(
            AccountId(function / 2),
            (1 + u64::from(function) + revision) * MIB,
        );
        settings.timeout = Duration::from_secs(5);
        settings.cpu_milli = 300;
        settings.network = (self.fleet.networks && function == 3).then_some(NetworkId(0));
        settings.trigger = if function == 1 { Trigger::Timer } else { Trigger::Http };
        settings
    }

    fn sandboxes(&self, state: impl Fn(StateSeen) -> bool) -> Vec<SandboxId> {
        let of_state = self.checker.sandboxes.iter().filter(|(_, it)| state(it.state));
        of_state.map(|(id, _)| *id).collect()
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each thing that may happen")]
    fn event(&mut self, step: &Step) -> Option<Event> {
        let pick = |of: &[SandboxId], at: &Index| (!of.is_empty()).then(|| *at.get(of));
        Some(match step {
            Step::Invoke { function } => {
                self.invoked += 1;
                let (invocation, function) = (InvocationId(self.invoked), FunctionId(*function));
                Event::InvocationArrived { invocation, function }
            }
            Step::Ready(at) => {
                let sandbox = pick(&self.sandboxes(|it| it == StateSeen::Starting), at)?;
                Event::SandboxReady { sandbox }
            }
            Step::Fail(at, function) => {
                let sandbox = pick(&self.sandboxes(|it| it == StateSeen::Starting), at)?;
                let fault = if *function { Fault::Function } else { Fault::Worker };
                Event::SandboxFailed { sandbox, fault }
            }
            Step::End(at, reusable) => {
                let busy = self.sandboxes(|it| matches!(it, StateSeen::Busy(_)));
                let sandbox = pick(&busy, at)?;
                let StateSeen::Busy(invocation) = self.checker.sandboxes[&sandbox].state else {
                    return None;
                };
                let used = Used { memory_peak_bytes: Some(MIB), ..Used::default() };
                Event::InvocationEnded { invocation, sandbox, reusable: *reusable, used }
            }
            Step::Gone(at) => {
                let sandbox = pick(&self.sandboxes(|it| it == StateSeen::Stopping), at)?;
                Event::SandboxGone { sandbox }
            }
            Step::Vm(at, ready) => {
                let vms: Vec<_> = self.checker.vms.iter().map(|(id, vm)| (*id, vm.ready)).collect();
                let (vm, running) = (!vms.is_empty()).then(|| *at.get(&vms))?;
                if *ready && !running { Event::VmReady { vm } } else { Event::VmGone { vm } }
            }
            Step::Interface(at, ready) => {
                let all: Vec<_> = self.checker.interfaces.keys().copied().collect();
                let interface = (!all.is_empty()).then(|| *at.get(&all))?;
                if *ready && !self.checker.interfaces[&interface].ready {
                    Event::InterfaceReady { interface }
                } else {
                    Event::InterfaceGone { interface }
                }
            }
            Step::Wait { ms } => {
                self.now = self.now + Duration::from_millis(*ms);
                return None;
            }
            Step::Join { worker } => {
                let capacity = Capacity {
                    memory_bytes: (10 + u64::from(*worker) * 4) * MIB,
                    cpu_milli: 2000,
                    interface_slots: 3,
                    zone: Zone(u8::try_from(*worker % 2).unwrap_or(0)),
                    isolation: self.fleet.isolation,
                };
                Event::WorkerJoined { worker: WorkerId(*worker), capacity }
            }
            Step::Beat { worker } => Event::WorkerBeat { worker: WorkerId(*worker) },
            Step::Drain { worker } => Event::WorkerDraining { worker: WorkerId(*worker) },
            Step::Lose { worker } => Event::WorkerLost { worker: WorkerId(*worker) },
            Step::Report { worker, forgets } => self.report(WorkerId(*worker), forgets.as_ref()),
            Step::Put { function, revision, reserved, provisioned } => {
                let mut settings = self.settings(*function, *revision);
                settings.reserved_concurrency = *reserved;
                settings.provisioned_concurrency = *provisioned;
                let function = FunctionId(*function);
                Event::FunctionPut { function, revision: *revision, settings }
            }
            Step::Remove { function } => Event::FunctionRemoved { function: FunctionId(*function) },
            Step::Network { settle } => {
                let network = NetworkId(0);
                let settings = NetworkSettings {
                    account: AccountId(1),
                    subnets: vec![(Zone(0), 2), (Zone(1), 1)],
                };
                if *settle {
                    Event::NetworkPut { network, settings }
                } else {
                    Event::NetworkRemoved { network }
                }
            }
            Step::Account { max } => {
                Event::AccountPut { account: AccountId(0), concurrency_max: *max }
            }
            Step::Nonsense(number) => nonsense(*number),
            Step::Again => self.last.clone()?,
        })
    }

    /// What a worker has, as it says itself; without one sandbox, if it `forgets` one.
    fn report(&self, worker: WorkerId, forgets: Option<&Index>) -> Event {
        let on = self.checker.sandboxes.iter().filter(|(_, it)| it.worker == worker);
        let mut sandboxes: Vec<_> = on
            .filter(|(_, it)| it.state != StateSeen::Starting)
            .map(|(sandbox, it)| ReportedSandbox {
                sandbox: *sandbox,
                function: it.function,
                revision: it.revision,
                vm: it.vm,
                interface: it.interface,
                invocation: match it.state {
                    StateSeen::Busy(invocation) => Some(invocation),
                    _ => None,
                },
            })
            .collect();
        if let Some(forgets) = forgets.filter(|_| !sandboxes.is_empty()) {
            sandboxes.remove(forgets.index(sandboxes.len()));
        }
        let on = self.checker.vms.iter().filter(|(_, it)| it.worker == worker && it.ready);
        let vms = on.map(|(vm, it)| ReportedVm {
            vm: *vm,
            account: it.account(),
            memory_bytes: it.memory_bytes(),
        });
        Event::WorkerReported { worker, vms: vms.collect(), sandboxes }
    }

    fn step(&mut self, step: &Step) {
        let commands = match self.event(step) {
            Some(event) => {
                self.last = Some(event.clone());
                self.checker.handle(&mut self.engine, self.now, event)
            }
            None => self.checker.handle_timeout(&mut self.engine, self.now),
        };
        self.log.extend(commands.unwrap_or_else(|violation| panic!("{violation}")));
    }
}

/// Events about what nobody knows, and settings that cannot be.
fn nonsense(number: u64) -> Event {
    let sandbox = SandboxId(number << 32 | 77);
    let capacity = Capacity::of_memory(0);
    let small = u32::try_from(number).unwrap_or(0);
    match number % 10 {
        0 => Event::SandboxReady { sandbox },
        1 => Event::SandboxGone { sandbox },
        2 => Event::InvocationEnded {
            invocation: InvocationId(number),
            sandbox,
            reusable: true,
            used: Used::default(),
        },
        3 => Event::WorkerJoined { worker: WorkerId(9), capacity },
        4 => Event::WorkerJoined { worker: WorkerId(u32::MAX), capacity: Capacity::of_memory(MIB) },
        5 => {
            let settings = FunctionSettings::new(AccountId(0), 0);
            Event::FunctionPut { function: FunctionId(small), revision: 0, settings }
        }
        6 => Event::WorkerLost { worker: WorkerId(50 + small) },
        7 => Event::VmGone { vm: VmId(number) },
        8 => Event::InterfaceReady { interface: InterfaceId(number << 40) },
        _ => {
            let settings = FunctionSettings::new(AccountId(u32::MAX), MIB);
            Event::FunctionPut { function: FunctionId(u32::MAX), revision: 0, settings }
        }
    }
}

fn run(fleet: Fleet, steps: &[Step]) -> World {
    let mut world = World::new(fleet);
    let put = |function| Step::Put { function, revision: 0, reserved: None, provisioned: 0 };
    let first =
        [Step::Join { worker: 1 }, Step::Network { settle: true }, put(0), put(1), put(2), put(3)];
    for step in first.iter().chain(steps) {
        world.step(step);
    }
    world
}

fn cases() -> u32 {
    if std::env::var_os("TEST_LONG").is_some() { 100_000 } else { 2_000 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// One function per sandbox, one customer per VM, one invocation at a time, no dispatch to what is draining, failed
    /// or stopped, no stop of a busy one, capacity, slots and every limit at all times, idle sandboxes gone in time, nothing
    /// ends twice, nothing moves that need not: [`Checker`] names each.
    #[test]
    fn safety(fleet in fleet(), steps in prop::collection::vec(step(), 0..250)) {
        run(fleet, &steps);
    }

    /// Every accepted invocation ends, and the state shrinks to nothing with the work.
    #[test]
    fn liveness(fleet in fleet(), steps in prop::collection::vec(step(), 0..250), any_one in any::<Index>()) {
        let mut world = run(fleet, &steps);
        (0..4).for_each(|function| world.step(&Step::Remove { function }));
        world.step(&Step::Network { settle: false });
        let zero = || any_one;
        let patience = world.now + Duration::from_secs(3600);
        while world.now < patience {
            let next = if !world.sandboxes(|it| it == StateSeen::Starting).is_empty() {
                Step::Ready(zero())
            } else if !world.sandboxes(|it| it == StateSeen::Stopping).is_empty() {
                Step::Gone(zero())
            } else if let Some((at, _)) = world.checker.vms.iter().enumerate().find(|(_, (_, vm))| !vm.ready) {
                let (vm, _) = world.checker.vms.iter().nth(at).map(|(id, vm)| (*id, vm.ready)).expect("there");
                let event = if world.engine.now().as_nanos().is_multiple_of(2) { Event::VmReady { vm } } else { Event::VmGone { vm } };
                let taken = world.checker.handle(&mut world.engine, world.now, event);
                let ready = taken.map_err(|violation| TestCaseError::fail(violation.to_string()))?.len();
                // A VM that is being stopped cannot become ready: then it goes.
                if ready == 0 && !world.checker.vms.get(&vm).is_some_and(|vm| vm.ready) {
                    let gone = Event::VmGone { vm };
                    let taken = world.checker.handle(&mut world.engine, world.now, gone);
                    prop_assert!(taken.is_ok(), "{taken:?}");
                }
                continue;
            } else if let Some(interface) = world.checker.interfaces.iter().find(|(_, it)| !it.ready).map(|(id, _)| *id) {
                let gone = Event::InterfaceGone { interface };
                let taken = world.checker.handle(&mut world.engine, world.now, gone);
                prop_assert!(taken.is_ok(), "{taken:?}");
                continue;
            } else {
                let next = world.engine.next_timeout().unwrap_or(patience);
                let wait = next.since(world.now).as_millis() + 1;
                Step::Wait { ms: u64::try_from(wait).unwrap_or(1).min(60_000) }
            };
            world.step(&next);
        }
        prop_assert_eq!(world.checker.open(), 0, "waiting for ever");
        prop_assert_eq!((world.engine.sandboxes(), world.engine.waiting()), (0, 0));
        prop_assert!((0..4).all(|function| !world.engine.knows_function(FunctionId(function))));
        prop_assert_eq!(world.engine.interfaces(), 0);
    }

    /// The same events give the same commands.
    #[test]
    fn determinism(fleet in fleet(), steps in prop::collection::vec(step(), 0..100)) {
        prop_assert_eq!(run(fleet, &steps).log, run(fleet, &steps).log);
    }

    /// A snapshot, restored, goes on as if nothing had been.
    #[test]
    fn snapshots(fleet in fleet(), steps in prop::collection::vec(step(), 0..150), at in any::<Index>()) {
        let at = at.index(steps.len() + 1);
        let mut never_stopped = run(fleet, &steps[..at]);
        let mut restored = run(fleet, &steps[..at]);
        let json = serde_json::to_string(&restored.engine.snapshot()).expect("serialises");
        let snapshot: Snapshot = serde_json::from_str(&json).expect("deserialises");
        restored.engine = Engine::restore(
            snapshot,
            Box::new(placement::Scored::default()),
            Box::new(FixedIdle(KEEP)),
        );
        for step in &steps[at..] {
            never_stopped.step(step);
            restored.step(step);
        }
        prop_assert_eq!(never_stopped.log, restored.log);
    }
}
