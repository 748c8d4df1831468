//! A driver that is slow and late, repeats itself, loses workers, makes things fail, stops and sets
//! back the clock, and sends invalid events; with its engine, and the checker between them.

use std::num::NonZeroU16;
use std::time::Duration;

use lambda_core::FleetSizing;
use lambda_core::sim::{Checker, StateSeen, Violation};
use lambda_core::*;
use proptest::prelude::*;

/// An action of the driver.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Invoke {
        function: u32,
    },
    Ready(u16),
    Fail(u16, bool),
    End(u16, bool),
    Gone(u16),
    Vm(u16, bool),
    Interface(u16, bool),
    /// Reports an interface as full, or as one with room.
    Full(u16, bool),
    Wait {
        ms: u64,
    },
    Join {
        worker: u32,
    },
    Beat {
        worker: u32,
    },
    Drain {
        worker: u32,
    },
    Lose {
        worker: u32,
    },
    Report {
        worker: u32,
        forgets: Option<u16>,
    },
    Put {
        function: u32,
        revision: u64,
        reserved: Option<u32>,
        provisioned: u32,
    },
    Remove {
        function: u32,
    },
    Network {
        settle: bool,
    },
    Account {
        max: u32,
    },
    Weight {
        account: u32,
        weight: u32,
    },
    /// Withdraws one of the last invocations.
    Withdraw {
        function: u32,
        back: u64,
    },
    /// Begins or ends the pressure on a worker.
    Press {
        worker: u32,
        pressed: bool,
    },
    /// Announces the end of a worker.
    Ends {
        worker: u32,
        ms: u64,
    },
    Nonsense(u64),
    Again,
    /// Repeats an earlier event.
    Late(u16),
    /// Gives the next event an earlier time.
    Back {
        ms: u64,
    },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let index = any::<u16>;
    prop_oneof![
        12 => (0..4u32).prop_map(|function| Step::Invoke { function }),
        8 => index().prop_map(Step::Ready),
        1 => (index(), any::<bool>()).prop_map(|(at, function)| Step::Fail(at, function)),
        8 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, reusable)| Step::End(at, reusable)),
        4 => index().prop_map(Step::Gone),
        4 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, ready)| Step::Vm(at, ready)),
        4 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, ready)| Step::Interface(at, ready)),
        2 => (index(), any::<bool>()).prop_map(|(at, full)| Step::Full(at, full)),
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
        1 => (0..3u32, 0..5u32).prop_map(|(account, weight)| Step::Weight { account, weight }),
        2 => (0..4u32, 0..12u64).prop_map(|(function, back)| Step::Withdraw { function, back }),
        1 => (0..4u32, 0..90_000u64).prop_map(|(worker, ms)| Step::Ends { worker, ms }),
        2 => (0..4u32, any::<bool>()).prop_map(|(worker, pressed)| Step::Press { worker, pressed }),
        1 => (0..100u64).prop_map(Step::Nonsense),
        2 => Just(Step::Again),
        2 => index().prop_map(Step::Late),
        1 => (1..100_000u64).prop_map(|ms| Step::Back { ms }),
    ]
}

/// The kind of fleet of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) isolation: Isolation,
    pub(crate) networks: bool,
    pub(crate) leases: bool,
    pub(crate) recycles: bool,
    pub(crate) grows: bool,
}

pub(crate) fn fleet() -> impl Strategy<Value = Fleet> {
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

pub(crate) const KEEP: Duration = Duration::from_secs(10);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn config(fleet: Fleet) -> Config {
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
        life_max: Duration::from_secs(600),
        drain_max: Duration::from_secs(60),
        replace_ahead: Duration::from_secs(20),
        quiet: Duration::from_secs(30),
    });
    config.fleet = fleet.grows.then(|| FleetSizing {
        zones: vec![Zone(0), Zone(1)],
        workers_max: 3,
        ..FleetSizing::default()
    });
    config.vm.shared_memory_bytes = 8 * MIB;
    config.vm.pool_sizes_bytes = vec![4 * MIB];
    config.vm.pool_max = 2;
    config.interface.sandboxes_max = 2;
    config.interface.linger = Duration::from_secs(30);
    config
}

/// An engine, its checker, and a driver that carries out steps.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) checker: Checker,
    fleet: Fleet,
    pub(crate) now: Time,
    /// How far the next event's time is set back.
    back: Duration,
    invoked: u64,
    past: Vec<Event>,
    pub(crate) log: Vec<Command>,
}

impl World {
    pub(crate) fn new(fleet: Fleet) -> Self {
        let config = config(fleet);
        let engine = Engine::new(config.clone(), 7).with_idle_policy(Box::new(FixedIdle(KEEP)));
        let checker = Checker::new(config, Some(KEEP));
        let now = Time::ZERO;
        let (back, past, log) = (Duration::ZERO, Vec::new(), Vec::new());
        Self { engine, checker, fleet, now, back, invoked: 0, past, log }
    }

    pub(crate) fn settings(&self, function: u32, revision: u64) -> FunctionSettings {
        let mut settings = FunctionSettings::new(
            AccountId(function / 2),
            (1 + u64::from(function) + revision) * MIB,
        );
        settings.timeout = Duration::from_secs(5);
        settings.cpu_milli = 300;
        settings.labels = if function == 2 { 1 } else { 0 };
        settings.sandboxes_max = NonZeroU16::new(if function == 1 { 2 } else { 0 });
        settings.network = (self.fleet.networks && function == 3).then_some(NetworkId(0));
        settings
    }

    pub(crate) fn sandboxes(&self, state: impl Fn(StateSeen) -> bool) -> Vec<SandboxId> {
        let of_state = self.checker.sandboxes.iter().filter(|(_, it)| state(it.state));
        of_state.map(|(id, _)| *id).collect()
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each thing that may happen")]
    fn event(&mut self, step: &Step) -> Option<Event> {
        let pick = |of: &[SandboxId], at: &u16| nth(of, *at);
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
                let (vm, running) = nth(&vms, *at)?;
                if *ready && !running { Event::VmReady { vm } } else { Event::VmGone { vm } }
            }
            Step::Interface(at, ready) => {
                let all: Vec<_> = self.checker.interfaces.keys().copied().collect();
                let interface = nth(&all, *at)?;
                if *ready && !self.checker.interfaces[&interface].ready {
                    Event::InterfaceReady { interface }
                } else {
                    Event::InterfaceGone { interface }
                }
            }
            Step::Full(at, full) => {
                let all: Vec<_> = self.checker.interfaces.keys().copied().collect();
                let interface = nth(&all, *at)?;
                if *full {
                    Event::InterfaceFull { interface }
                } else {
                    Event::InterfaceRoom { interface }
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
                    labels: u16::try_from(worker % 3).unwrap_or(0),
                };
                Event::WorkerJoined { worker: WorkerId(*worker), capacity }
            }
            Step::Beat { worker } => Event::WorkerBeat { worker: WorkerId(*worker) },
            Step::Drain { worker } => Event::WorkerDraining { worker: WorkerId(*worker) },
            Step::Lose { worker } => Event::WorkerLost { worker: WorkerId(*worker) },
            Step::Report { worker, forgets } => self.report(WorkerId(*worker), *forgets),
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
            Step::Weight { account, weight } => {
                Event::AccountWeightSet { account: AccountId(*account), weight: *weight }
            }
            Step::Withdraw { function, back } => Event::InvocationWithdrawn {
                invocation: InvocationId(self.invoked.saturating_sub(*back)),
                function: FunctionId(*function),
            },
            Step::Press { worker, pressed: true } => {
                Event::WorkerPressed { worker: WorkerId(*worker) }
            }
            Step::Press { worker, .. } => Event::WorkerRelieved { worker: WorkerId(*worker) },
            Step::Ends { worker, ms } => Event::WorkerEnds {
                worker: WorkerId(*worker),
                at: self.now + Duration::from_millis(*ms),
            },
            Step::Nonsense(number) => nonsense(*number),
            Step::Again => self.past.last()?.clone(),
            Step::Late(at) => nth(&self.past, *at)?,
            Step::Back { ms } => {
                self.back = Duration::from_millis(*ms);
                return None;
            }
        })
    }

    /// Returns a worker's report; if it `forgets` one, without that sandbox.
    pub(crate) fn report(&self, worker: WorkerId, forgets: Option<u16>) -> Event {
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
            sandboxes.remove(usize::from(forgets) % sandboxes.len());
        }
        let on = self.checker.vms.iter().filter(|(_, it)| it.worker == worker && it.ready);
        let vms: Vec<_> = on
            .map(|(vm, it)| ReportedVm {
                vm: *vm,
                account: it.account(),
                memory_bytes: it.memory_bytes(),
            })
            .collect();
        // Without a VM, its sandboxes are not reported either.
        sandboxes.retain(|it| it.vm.is_none_or(|vm| vms.iter().any(|there| there.vm == vm)));
        Event::WorkerReported { worker, vms, sandboxes }
    }

    /// Carries out a step. Returns the first violation of an invariant.
    pub(crate) fn try_step(&mut self, step: &Step) -> Result<(), Violation> {
        if let Some(event) = self.event(step) {
            return self.tell(event);
        }
        let commands = self.checker.handle_timeout(&mut self.engine, self.now);
        self.log.extend(commands?);
        Ok(())
    }

    /// Passes an event to the engine. Returns the first violation of an invariant.
    pub(crate) fn tell(&mut self, event: Event) -> Result<(), Violation> {
        self.past.push(event.clone());
        let back = std::mem::take(&mut self.back).as_nanos();
        let back = u64::try_from(back).unwrap_or(0);
        let at = Time::from_nanos(self.now.as_nanos().saturating_sub(back));
        let commands = self.checker.handle(&mut self.engine, at, event);
        self.log.extend(commands?);
        Ok(())
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.try_step(step).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

fn nth<T: Clone>(of: &[T], at: u16) -> Option<T> {
    of.get(usize::from(at) % of.len().max(1)).cloned()
}

/// Returns an event about unknown ids, or with invalid settings.
pub(crate) fn nonsense(number: u64) -> Event {
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

/// Puts functions, a network and a worker.
pub(crate) fn start(world: &mut World) -> Result<(), Violation> {
    let put = |function| Step::Put { function, revision: 0, reserved: None, provisioned: 0 };
    let first =
        [Step::Join { worker: 1 }, Step::Network { settle: true }, put(0), put(1), put(2), put(3)];
    first.iter().try_for_each(|step| world.try_step(step))
}

/// Creates a world and carries out the steps.
pub(crate) fn try_run(fleet: Fleet, steps: &[Step]) -> Result<World, Violation> {
    let mut world = World::new(fleet);
    start(&mut world)?;
    steps.iter().try_for_each(|step| world.try_step(step))?;
    Ok(world)
}

pub(crate) fn run(fleet: Fleet, steps: &[Step]) -> World {
    try_run(fleet, steps).unwrap_or_else(|violation| panic!("{violation}"))
}

pub(crate) fn cases(short: u32) -> u32 {
    if std::env::var_os("TEST_LONG").is_some() {
        return 100_000;
    }
    std::env::var_os("PROPTEST_CASES").and_then(|it| it.to_str()?.parse().ok()).unwrap_or(short)
}
