//! Decodes bytes to a driver's actions, applies them to an engine and checks it. Used by the fuzz
//! target and by a test.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::sim::{Checker, Violation};
use lambda_core::*;

/// Plays the actions that the bytes encode. Returns the events and their times.
///
/// # Errors
///
/// Returns the first violation of an invariant.
pub(crate) fn play(bytes: &[u8]) -> Result<Log, (Log, Violation)> {
    let mut bytes = Bytes(bytes);
    let mut driver = Driver::new(&mut bytes);
    while !bytes.0.is_empty() && driver.log.len() < EVENTS_MAX {
        if let Err(violation) = driver.go_on(&mut bytes) {
            return Err((driver.log, violation));
        }
    }
    Ok(driver.log)
}

/// Events and their times. `None`: the engine was lost, and the next one continued.
pub(crate) type Log = Vec<(Time, Option<Event>)>;

/// A driver: an engine, and what the next engine must be told if this one is lost.
struct Driver {
    config: Config,
    policy: u8,
    seed: u64,
    restarts: u16,
    engine: Engine,
    checker: Checker,
    networks: BTreeMap<NetworkId, NetworkSettings>,
    /// Reports of the workers at the loss of the last engine that were not delivered yet.
    unreported: Vec<Event>,
    /// The ids that the engines gave: kind and number.
    given: BTreeSet<(u8, u64)>,
    log: Log,
    now: Time,
}

impl Driver {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let (kind, policy, seed) = (bytes.next(), bytes.next(), u64::from(bytes.next()));
        let config = config(kind);
        Self {
            engine: engine(&config, policy, seed, 0),
            checker: checker(&config, policy),
            config,
            policy,
            seed,
            restarts: 0,
            networks: BTreeMap::new(),
            unreported: Vec::new(),
            given: BTreeSet::new(),
            log: Log::new(),
            now: Time::ZERO,
        }
    }

    fn go_on(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Violation> {
        match bytes.next() % 32 {
            0 => {
                self.now = self.now + bytes.pick(&WAITS);
                let commands = self.checker.handle_timeout(&mut self.engine, self.now)?;
                self.none_is_given_twice(&commands);
                Ok(())
            }
            1 => {
                let snapshot = self.engine.snapshot();
                self.engine = Engine::restore(snapshot, placement(self.policy), idle(self.policy));
                Ok(())
            }
            2 => match bytes.next() % 16 {
                0 => self.succeed(bytes),
                1..=4 if !self.unreported.is_empty() => {
                    let at = usize::from(bytes.next()) % self.unreported.len();
                    let report = self.unreported.swap_remove(at);
                    self.tell(self.now, report)
                }
                _ => {
                    ask(&mut self.engine, bytes);
                    Ok(())
                }
            },
            // Repeats an earlier event.
            3 if !self.log.is_empty() => {
                let past = self.log[usize::from(bytes.next()) % self.log.len()].1.clone();
                past.map_or(Ok(()), |event| self.tell(self.now, event))
            }
            // Sets the clock back.
            4 => {
                let event = event(5, bytes, &self.checker, self.log.len());
                self.tell(Time::from_nanos(self.now.as_nanos() / 2), event)
            }
            code => {
                let event = event(code, bytes, &self.checker, self.log.len());
                self.tell(self.now, event)
            }
        }
    }

    fn tell(&mut self, at: Time, event: Event) -> Result<(), Violation> {
        if let Event::NetworkPut { network, settings } = &event {
            self.networks.insert(*network, settings.clone());
        }
        self.log.push((at, Some(event.clone())));
        let commands = self.checker.handle(&mut self.engine, at, event)?;
        self.none_is_given_twice(&commands);
        Ok(())
    }

    /// Replaces the engine. The new one gets networks, functions and workers. Some workers report
    /// at once, others later or never.
    fn succeed(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Violation> {
        self.restarts += 1;
        self.log.push((self.now, None));
        self.engine = engine(&self.config, self.policy, self.seed, self.restarts);
        let lost = std::mem::replace(&mut self.checker, checker(&self.config, self.policy));
        for (network, settings) in self.networks.clone() {
            self.tell(self.now, Event::NetworkPut { network, settings })?;
        }
        for (worker, it) in &lost.workers {
            let (worker, capacity) = (*worker, it.capacity);
            self.tell(self.now, Event::WorkerJoined { worker, capacity })?;
        }
        for (function, it) in lost.functions.iter().filter(|(_, it)| !it.removed) {
            let (function, revision, settings) = (*function, it.revision, it.settings);
            self.tell(self.now, Event::FunctionPut { function, revision, settings })?;
        }
        let byte = bytes.next();
        self.unreported.clear();
        for (nth, worker) in lost.workers.keys().enumerate() {
            let report = report(*worker, bytes, &lost);
            if byte >> (nth % 8) & 1 == 0 {
                self.tell(self.now, report)?;
            } else {
                self.unreported.push(report);
            }
        }
        Ok(())
    }

    fn none_is_given_twice(&mut self, commands: &[Command]) {
        for command in commands {
            let id = match command {
                Command::StartSandbox { sandbox, .. } => (0, sandbox.0),
                Command::StartVm { vm, .. } => (1, vm.0),
                Command::StartInterface { interface, .. } => (2, interface.0),
                _ => continue,
            };
            assert!(self.given.insert(id), "given twice: {command:?}\nafter {:#?}", self.log);
        }
    }
}

fn engine(config: &Config, policy: u8, seed: u64, restarts: u16) -> Engine {
    Engine::restarted(config.clone(), seed, restarts)
        .with_placement(placement(policy))
        .with_idle_policy(idle(policy))
}

fn checker(config: &Config, policy: u8) -> Checker {
    Checker::new(config.clone(), (policy & 3 == 0).then_some(KEEP))
}

const EVENTS_MAX: usize = 2_000;
const KEEP: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;
const WAITS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::from_secs(1),
    Duration::from_secs(7),
    Duration::from_secs(31),
    Duration::from_secs(400),
    Duration::from_secs(5_000),
];

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// Returns the next byte; 0 at the end.
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.next()) % of.len()]
    }

    fn small(&mut self) -> u32 {
        u32::from(self.next() % 6)
    }

    /// Returns an id that is in use, or any id.
    fn id(&mut self, mut there: impl Iterator<Item = u64>, count: usize) -> u64 {
        let byte = self.next();
        let generation = [0, 1, 1 << 16, (1 << 16) + 1][usize::from(byte % 4)];
        let any = (generation << 32) | u64::from(byte / 4 % 8);
        if byte >= 248 || count == 0 {
            return any;
        }
        there.nth(usize::from(byte) % count).unwrap_or(any)
    }

    fn sandbox(&mut self, checker: &Checker) -> SandboxId {
        SandboxId(self.id(checker.sandboxes.keys().map(|it| it.0), checker.sandboxes.len()))
    }

    fn vm(&mut self, checker: &Checker) -> VmId {
        VmId(self.id(checker.vms.keys().map(|it| it.0), checker.vms.len()))
    }

    fn interface(&mut self, checker: &Checker) -> InterfaceId {
        InterfaceId(self.id(checker.interfaces.keys().map(|it| it.0), checker.interfaces.len()))
    }
}

fn config(kind: u8) -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = 8;
    config.account_unreserved_min = 1;
    config.scaling_starts_max = 5;
    config.starts_per_worker_max = 3;
    config.starts_per_function_max = 4;
    config.waiting_max = 20;
    config.sandboxes_max = 24;
    config.functions_max = 16;
    config.rollout_max = Duration::from_secs(if kind & 128 == 0 { 8 } else { 0 });
    config.workers_max = 16;
    config.accounts_max = 8;
    config.networks_max = 8;
    config.explanations_kept = 2;
    config.memory_percent = if kind & 1 == 0 { 100 } else { 250 };
    config.cpu_percent = if kind & 1 == 0 { 100 } else { 1000 };
    config.worker_lease = (kind & 2 != 0).then(|| Duration::from_secs(60));
    config.recycling = (kind & 4 != 0).then(|| Recycling {
        life_min: Duration::from_secs(100),
        life_max: Duration::from_secs(600),
        drain_max: Duration::from_secs(60),
        replace_ahead: Duration::from_secs(20),
        quiet: Duration::from_secs(30),
    });
    config.fleet = (kind & 8 != 0).then(|| FleetSizing {
        zones: vec![Zone(0), Zone(1)],
        workers_max: 3,
        ..FleetSizing::default()
    });
    config.routing = match kind >> 4 & 3 {
        1 => Routing::LeastRecentlyUsed,
        2 => Routing::RoundRobin,
        3 => Routing::CoolWorker,
        _ => Routing::MostRecentlyUsed,
    };
    config.vm.shared_memory_bytes = 8 * MIB;
    config.vm.vms_max = 12;
    if kind & 64 != 0 {
        config.vm.pool_sizes_bytes = vec![MIB, 4 * MIB];
        config.vm.pool_max = 2;
    }
    config.interface.sandboxes_max = 2;
    config.interface.interfaces_max = 4;
    config.interface.linger = Duration::from_secs(30);
    config
}

fn placement(policy: u8) -> Box<dyn Placement> {
    let mut all = baselines::all();
    match usize::from(policy >> 2) % (all.len() + 2) {
        at if at < all.len() => all.swap_remove(at),
        _ => Box::new(Scored::default()),
    }
}

fn idle(policy: u8) -> Box<dyn IdlePolicy> {
    match policy & 3 {
        1 => Box::new(HistogramIdle { gaps_min: 2, ..HistogramIdle::default() }),
        2 => Box::new(GreedyDual::default()),
        _ => Box::new(FixedIdle(KEEP)),
    }
}

fn ask(engine: &mut Engine, bytes: &mut Bytes<'_>) {
    let function = FunctionId(bytes.small());
    let rehearsed = engine.rehearse(function).map(|it| it.to_string());
    let told: Vec<_> = engine.explanations().map(ToString::to_string).collect();
    let status = engine.function_status(function);
    assert_eq!(status.is_some(), engine.knows_function(function));
    assert!(told.iter().chain(&rehearsed).all(|it| it.contains("function")));
    let _chosen = engine.choose(function);
}

fn event(code: u8, bytes: &mut Bytes<'_>, checker: &Checker, number: usize) -> Event {
    let worker = |bytes: &mut Bytes<'_>| WorkerId(bytes.small());
    match code {
        5..=10 => {
            // Only repeated events use an id again.
            let invocation = InvocationId(number as u64);
            Event::InvocationArrived { invocation, function: FunctionId(bytes.small()) }
        }
        11..=14 => Event::SandboxReady { sandbox: bytes.sandbox(checker) },
        15 => {
            let fault = bytes.pick(&[Fault::Worker, Fault::Function]);
            Event::SandboxFailed { sandbox: bytes.sandbox(checker), fault }
        }
        16 | 17 => Event::SandboxGone { sandbox: bytes.sandbox(checker) },
        18..=20 => {
            let sandbox = bytes.sandbox(checker);
            let running = checker.sandboxes.get(&sandbox).and_then(|it| it.running());
            let invocation = running.unwrap_or(InvocationId(number as u64));
            let used = Used {
                cpu_time: Some(Duration::from_millis(5)),
                memory_peak_bytes: Some(bytes.pick(&[0, MIB, u64::MAX])),
            };
            let reusable = bytes.next() >= 64;
            Event::InvocationEnded { invocation, sandbox, reusable, used }
        }
        21 => Event::VmReady { vm: bytes.vm(checker) },
        22 => Event::VmGone { vm: bytes.vm(checker) },
        23 => {
            let interface = bytes.interface(checker);
            match bytes.next() % 4 {
                0 => Event::InterfaceFull { interface },
                1 => Event::InterfaceRoom { interface },
                _ => Event::InterfaceReady { interface },
            }
        }
        24 => Event::InterfaceGone { interface: bytes.interface(checker) },
        25 => {
            let capacity = Capacity {
                memory_bytes: bytes.pick(&[0, 1, 10 * MIB, 16 * MIB, 20 * MIB, u64::MAX]),
                cpu_milli: bytes.pick(&[0, 1000, 2000, u32::MAX]),
                interface_slots: bytes.pick(&[0, 1, 3, u32::MAX]),
                zone: Zone(bytes.pick(&[0, 0, 1, 15, 16, 255])),
                labels: 0,
                isolation: bytes.pick(&[
                    Isolation::Sandbox,
                    Isolation::VmPerAccount,
                    Isolation::VmPerSandbox,
                ]),
            };
            joined(worker(bytes), capacity)
        }
        26 => seldom(bytes, number),
        27 => report(worker(bytes), bytes, checker),
        28 => {
            let account = AccountId(bytes.pick(&[0, 1, 2, 7, 8, u32::MAX]));
            Event::AccountPut { account, concurrency_max: bytes.pick(&[0, 2, 8, u32::MAX]) }
        }
        29 => match bytes.next() % 3 {
            0 => Event::NetworkRemoved { network: NetworkId(bytes.small()) },
            _ => {
                let addresses = bytes.pick(&[0, 1, 2, u32::MAX]);
                let subnets = vec![(Zone(0), addresses), (Zone(bytes.pick(&[0, 1, 16])), 2)];
                let network = NetworkId(bytes.pick(&[0, 1, 7, 8, u32::MAX]));
                let settings = NetworkSettings { account: AccountId(bytes.small()), subnets };
                Event::NetworkPut { network, settings }
            }
        },
        30 => Event::FunctionRemoved { function: FunctionId(bytes.small()) },
        _ => put(bytes),
    }
}

/// Returns the event of a worker with labels that depend on its id.
fn joined(worker: WorkerId, capacity: Capacity) -> Event {
    let labels = u16::try_from(worker.0 & 3).unwrap_or(0);
    Event::WorkerJoined { worker, capacity: Capacity { labels, ..capacity } }
}

/// Events of workers, accounts and waiting invocations that are seldom.
fn seldom(bytes: &mut Bytes<'_>, number: usize) -> Event {
    let worker = |bytes: &mut Bytes<'_>| WorkerId(bytes.small());
    match bytes.next() {
        128..=159 => {
            let at = Time::from_nanos(number as u64 * 1_000_000_000);
            Event::WorkerEnds { worker: worker(bytes), at }
        }
        byte @ 160..=223 => {
            // One of the last events; seldom an arrival that still waits.
            let invocation = InvocationId((number as u64).saturating_sub(u64::from(byte % 16)));
            let function = FunctionId(bytes.small());
            Event::InvocationWithdrawn { invocation, function }
        }
        224..=255 => {
            let account = AccountId(bytes.pick(&[0, 1, 2, 8]));
            Event::AccountWeightSet { account, weight: bytes.pick(&[0, 1, 100, u32::MAX]) }
        }
        byte if byte % 4 == 0 => Event::WorkerDraining { worker: worker(bytes) },
        byte if byte % 4 == 1 => Event::WorkerLost { worker: worker(bytes) },
        byte @ 64.. if byte % 8 == 3 => Event::WorkerPressed { worker: worker(bytes) },
        byte @ 64.. if byte % 8 == 7 => Event::WorkerRelieved { worker: worker(bytes) },
        _ => Event::WorkerBeat { worker: worker(bytes) },
    }
}

fn put(bytes: &mut Bytes<'_>) -> Event {
    let account = AccountId(bytes.pick(&[0, 0, 1, 2, 8]));
    let memory = bytes.pick(&[0, 1, MIB, 3 * MIB, 9 * MIB, 30 * MIB, u64::MAX]);
    let mut settings = FunctionSettings::new(account, memory);
    settings.cpu_milli = bytes.pick(&[0, 300, 1000, u32::MAX]);
    settings.timeout = bytes.pick(&[
        Duration::ZERO,
        Duration::from_millis(1),
        Duration::from_secs(5),
        Duration::from_secs(50),
        Duration::MAX,
    ]);
    settings.reserved_concurrency = bytes.pick(&[None, None, None, Some(0), Some(2)]);
    settings.provisioned_concurrency = bytes.pick(&[0, 0, 0, 1, 2, u32::MAX]);
    settings.network = bytes.pick(&[None, None, Some(0), Some(1), Some(9)]).map(NetworkId);
    settings.labels = bytes.pick(&[0, 0, 0, 1, 2]);
    settings.sandboxes_max = NonZeroU16::new(bytes.pick(&[0, 0, 1, 2]));
    let byte = bytes.next();
    let revision = u64::from(byte % 3);
    settings.shares_with = match byte >> 5 {
        5 => Some(FunctionId(0)),
        6 => Some(FunctionId(1)),
        7 => Some(FunctionId(16)),
        _ => None,
    };
    Event::FunctionPut { function: FunctionId(bytes.pick(&[0, 1, 2, 3, 16])), revision, settings }
}

/// Returns a worker's report, from which it now and then omits something.
fn report(worker: WorkerId, bytes: &mut Bytes<'_>, checker: &Checker) -> Event {
    let mut sandboxes: Vec<_> = (checker.sandboxes.iter())
        .filter(|(_, it)| it.worker == worker && it.is_there())
        .map(|(sandbox, it)| it.reported(*sandbox))
        .collect();
    let mut vms: Vec<_> = (checker.vms.iter())
        .filter(|(_, it)| it.worker == worker && it.ready)
        .map(|(vm, it)| it.reported(*vm))
        .collect();
    let byte = bytes.next();
    if byte & 1 == 1 {
        sandboxes.pop();
    }
    if byte & 2 == 2 {
        vms.pop();
    }
    // Without a VM, its sandboxes are not reported either.
    sandboxes.retain(|it| it.vm.is_none_or(|vm| vms.iter().any(|there| there.vm == vm)));
    Event::WorkerReported { worker, vms, sandboxes }
}
