//! The engine's invariants, held by a checker outside it, against a driver that is slow, late, repeats itself
//! and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lambda_core::*;
use proptest::prelude::*;

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Invoke { function: u64 },
    Ready(prop::sample::Index),
    Fail(prop::sample::Index, bool),
    End(prop::sample::Index, bool),
    Gone(prop::sample::Index),
    Wait { ms: u64 },
    Join { worker: u64 },
    Drain { worker: u64 },
    Lose { worker: u64 },
    Remove { function: u64 },
    Put { function: u64 },
    Nonsense(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (1..4u64).prop_map(|function| Step::Invoke { function }),
        6 => index().prop_map(Step::Ready),
        1 => (index(), any::<bool>()).prop_map(|(at, function)| Step::Fail(at, function)),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(at, reusable)| Step::End(at, reusable)),
        3 => index().prop_map(Step::Gone),
        3 => prop_oneof![Just(0), 1..50u64, 1_000..20_000u64].prop_map(|ms| Step::Wait { ms }),
        1 => (1..4u64).prop_map(|worker| Step::Join { worker }),
        1 => (1..4u64).prop_map(|worker| Step::Drain { worker }),
        1 => (1..4u64).prop_map(|worker| Step::Lose { worker }),
        1 => (1..4u64).prop_map(|function| Step::Remove { function }),
        1 => (1..4u64).prop_map(|function| Step::Put { function }),
        1 => (0..100u64).prop_map(Step::Nonsense),
    ]
}

const MEMORY: u64 = 4;
const TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const RESERVED: u32 = 2;
const ACCOUNT: u32 = 6;

/// The world as the commands made it.
#[derive(Debug, Default)]
struct World {
    log: Vec<String>,
    workers: BTreeSet<u64>,
    drained: BTreeSet<u64>,
    /// Function and worker of each sandbox that is there.
    sandboxes: BTreeMap<SandboxId, (FunctionId, WorkerId)>,
    starting: Vec<SandboxId>,
    idle: BTreeMap<SandboxId, Time>,
    stopping: Vec<SandboxId>,
    running: BTreeMap<InvocationId, SandboxId>,
    open: BTreeMap<InvocationId, FunctionId>,
    invoked: u64,
    ended: u64,
    now: Time,
}

impl World {
    fn settings(function: u64) -> FunctionSettings {
        FunctionSettings {
            account: AccountId(1),
            memory_bytes: function,
            timeout: TIMEOUT,
            reserved_concurrency: (function == 1).then_some(RESERVED),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each thing that may happen")]
    fn event(&mut self, step: &Step) -> Option<Event> {
        let pick =
            |of: &[SandboxId], at: &prop::sample::Index| (!of.is_empty()).then(|| *at.get(of));
        Some(match step {
            Step::Invoke { function } => {
                self.invoked += 1;
                let (invocation, function) = (InvocationId(self.invoked), FunctionId(*function));
                self.open.insert(invocation, function);
                Event::InvocationArrived { invocation, function }
            }
            Step::Ready(at) => {
                let sandbox = pick(&self.starting, at)?;
                self.starting.retain(|it| *it != sandbox);
                self.idle.insert(sandbox, self.now);
                Event::SandboxReady { sandbox }
            }
            Step::Fail(at, function) => {
                let sandbox = pick(&self.starting, at)?;
                self.forget(sandbox);
                let fault = if *function { Fault::Function } else { Fault::Worker };
                Event::SandboxFailed { sandbox, fault }
            }
            Step::End(at, reusable) => {
                let running: Vec<_> = self.running.iter().collect();
                let (&invocation, &sandbox) = (!running.is_empty()).then(|| *at.get(&running))?;
                self.running.remove(&invocation);
                self.open.remove(&invocation);
                self.ended += 1;
                if *reusable {
                    self.idle.insert(sandbox, self.now);
                } else {
                    self.stopping.push(sandbox);
                }
                Event::InvocationEnded { invocation, reusable: *reusable }
            }
            Step::Gone(at) => {
                let sandbox = pick(&self.stopping, at)?;
                self.forget(sandbox);
                Event::SandboxGone { sandbox }
            }
            Step::Wait { ms } => {
                self.now = self.now + Duration::from_millis(*ms);
                return None;
            }
            Step::Join { worker } => {
                if self.workers.insert(*worker) {
                    self.drained.remove(worker);
                }
                let capacity = Capacity { memory_bytes: MEMORY };
                Event::WorkerJoined { worker: WorkerId(*worker), capacity }
            }
            Step::Drain { worker } => {
                self.drained.insert(*worker);
                Event::WorkerDraining { worker: WorkerId(*worker) }
            }
            Step::Lose { worker } => {
                self.workers.remove(worker);
                let lost = self.sandboxes.iter().filter(|(_, it)| it.1 == WorkerId(*worker));
                for sandbox in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.forget(sandbox);
                }
                Event::WorkerLost { worker: WorkerId(*worker) }
            }
            Step::Remove { function } => Event::FunctionRemoved { function: FunctionId(*function) },
            Step::Put { function } => Event::FunctionPut {
                function: FunctionId(*function),
                settings: Self::settings(*function),
            },
            Step::Nonsense(id) => {
                let (sandbox, invocation) =
                    (SandboxId(1_000_000 + id), InvocationId(1_000_000 + id));
                match id % 4 {
                    0 => Event::SandboxReady { sandbox },
                    1 => Event::SandboxGone { sandbox },
                    2 => Event::InvocationEnded { invocation, reusable: true },
                    _ => Event::WorkerLost { worker: WorkerId(1_000_000 + id) },
                }
            }
        })
    }

    fn forget(&mut self, sandbox: SandboxId) {
        self.sandboxes.remove(&sandbox);
        self.starting.retain(|it| *it != sandbox);
        self.stopping.retain(|it| *it != sandbox);
        self.idle.remove(&sandbox);
    }

    /// Takes a command and checks what must hold of it.
    fn command(&mut self, command: Command) {
        self.log.push(format!("{command:?}"));
        match command {
            Command::StartSandbox { sandbox, worker, function } => {
                assert!(self.workers.contains(&worker.0), "started on a worker that is not there");
                assert!(!self.drained.contains(&worker.0), "started on a draining worker");
                let known = self.sandboxes.insert(sandbox, (function, worker));
                assert!(known.is_none(), "a sandbox id was used twice");
                self.starting.push(sandbox);
                let used: u64 =
                    self.sandboxes.values().filter(|it| it.1 == worker).map(|it| it.0.0).sum();
                assert!(used <= MEMORY, "capacity exceeded: {used}");
            }
            Command::StopSandbox { sandbox, .. } => {
                let busy = self.running.values().any(|it| *it == sandbox);
                assert!(!busy, "a busy sandbox was stopped");
                let there =
                    self.idle.remove(&sandbox).is_some() || self.starting.contains(&sandbox);
                assert!(there, "a sandbox was stopped twice");
                self.starting.retain(|it| *it != sandbox);
                self.stopping.push(sandbox);
            }
            Command::Dispatch { invocation, sandbox, .. } => {
                let idle = self.idle.remove(&sandbox).is_some();
                assert!(idle, "dispatched to a sandbox that is not idle");
                let (function, worker) = self.sandboxes[&sandbox];
                assert_eq!(self.open[&invocation], function, "a sandbox got a second function");
                assert!(self.workers.contains(&worker.0), "dispatched to a lost worker");
                assert!(self.running.insert(invocation, sandbox).is_none());
            }
            Command::TimeOut { invocation, sandbox, .. } => {
                assert_eq!(self.running.remove(&invocation), Some(sandbox));
                assert!(self.open.remove(&invocation).is_some(), "ended twice");
                self.ended += 1;
                self.stopping.push(sandbox);
            }
            Command::Reject { invocation, .. } => {
                assert!(self.open.remove(&invocation).is_some(), "ended twice");
                self.running.remove(&invocation);
                self.ended += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&self, engine: &Engine) {
        let reserved = self.open.values().filter(|it| it.0 == 1).count();
        assert!(reserved <= RESERVED as usize, "reserved concurrency exceeded");
        let others = self.open.len() - reserved;
        assert!(others <= (ACCOUNT) as usize, "account concurrency exceeded");
        assert_eq!(engine.invocations(), self.open.len(), "an invocation was lost");
        assert_eq!(engine.sandboxes(), self.sandboxes.len(), "a sandbox was lost");
        for since in self.idle.values() {
            assert!(*since + IDLE_TIMEOUT > self.now, "an idle sandbox outlived the idle timeout");
        }
        assert!(engine.next_timeout().is_none_or(|at| at > self.now), "a due timer did not fire");
    }
}

fn run(steps: &[Step]) -> (Engine, World) {
    let mut config = Config::default();
    config.idle_timeout = IDLE_TIMEOUT;
    config.account_concurrency_max = ACCOUNT;
    let mut engine = Engine::new(config);
    let mut world = World::default();
    let first = [
        Step::Join { worker: 1 },
        Step::Put { function: 1 },
        Step::Put { function: 2 },
        Step::Put { function: 3 },
    ];
    for step in first.iter().chain(steps) {
        match world.event(step) {
            Some(event) => engine.handle(world.now, event),
            None => engine.handle_timeout(world.now),
        }
        while let Some(command) = engine.poll() {
            world.command(command);
        }
        world.check(&engine);
    }
    (engine, world)
}

fn cases() -> u32 {
    if std::env::var_os("TEST_LONG").is_some() { 100_000 } else { 2_000 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// One function per sandbox, one invocation at a time, no dispatch to what is draining, failed or stopped, no stop
    /// of a busy one, capacity and limits at all times, idle sandboxes gone in time, nothing ends twice.
    #[test]
    fn safety(steps in prop::collection::vec(step(), 0..200)) {
        run(&steps);
    }

    /// Every accepted invocation ends exactly once, and the state shrinks to nothing with the work.
    #[test]
    fn liveness(steps in prop::collection::vec(step(), 0..200)) {
        let (mut engine, mut world) = run(&steps);
        for _ in 0..20_000 {
            let next = if let Some(sandbox) = world.starting.first().copied() {
                world.starting.remove(0);
                world.idle.insert(sandbox, world.now);
                Some(Event::SandboxReady { sandbox })
            } else if let Some(sandbox) = world.stopping.first().copied() {
                world.forget(sandbox);
                Some(Event::SandboxGone { sandbox })
            } else if let Some(at) = engine.next_timeout() {
                world.now = at;
                None
            } else {
                break;
            };
            match next {
                Some(event) => engine.handle(world.now, event),
                None => engine.handle_timeout(world.now),
            }
            while let Some(command) = engine.poll() {
                world.command(command);
            }
        }
        prop_assert_eq!(engine.sandboxes(), 0);
        // What still waits has no worker that could ever take it, and none that is coming free.
        prop_assert_eq!(world.ended + world.open.len() as u64, world.invoked);
        prop_assert_eq!(world.open.len(), 0, "waiting for ever: {:?}", world.open);
    }

    /// The same events give the same commands.
    #[test]
    fn determinism(steps in prop::collection::vec(step(), 0..100)) {
        prop_assert_eq!(run(&steps).1.log, run(&steps).1.log);
    }
}
