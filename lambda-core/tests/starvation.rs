//! Queues that never end, of small and large functions with and without sandboxes: each is served
//! within a bound, and a large one gets its share.

mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Host, MIB, SECOND};
use lambda_core::*;
use proptest::prelude::*;

/// How long a sandbox takes to start, and to end.
const START: Duration = Duration::from_millis(200);
const STOP: Duration = Duration::from_millis(50);

/// A function with callers, each of which invokes it again as soon as it has an answer.
#[derive(Clone, Debug)]
struct Load {
    account: u32,
    mib: u64,
    callers: u32,
    millis: u64,
    /// The time of the first calls, in milliseconds.
    from: u64,
}

/// What happens next in the world, by time and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Call(u32),
    Ready(SandboxId),
    Gone(SandboxId),
    Ended(InvocationId, SandboxId),
}

struct World {
    host: Host,
    loads: Vec<Load>,
    next: BTreeMap<(Time, u64), Next>,
    numbered: u64,
    function_of: BTreeMap<u64, u32>,
    /// The invocations of each function that wait.
    waiting: Vec<u32>,
    /// Since when each function with waiting invocations has had none dispatched.
    unserved_since: Vec<Time>,
    longest: Vec<Duration>,
    started: u32,
}

impl World {
    fn new(workers: &[u64], loads: &[Load]) -> Self {
        let mut host = Host::new(|config| {
            config.wait_max = SECOND * 100_000;
            config.account_concurrency_max = u32::MAX;
            config.cpu_percent = u32::MAX;
        });
        for (worker, mib) in (0..).zip(workers) {
            host.join(worker, Capacity::of_memory(mib * MIB));
        }
        let mut world = Self {
            host,
            loads: loads.to_vec(),
            next: BTreeMap::new(),
            numbered: 0,
            function_of: BTreeMap::new(),
            waiting: vec![0; loads.len()],
            unserved_since: vec![Time::ZERO; loads.len()],
            longest: vec![Duration::ZERO; loads.len()],
            started: 0,
        };
        for (function, load) in (0..).zip(loads) {
            world.host.put(function, |it| {
                (it.account, it.memory_bytes) = (AccountId(load.account), load.mib * MIB);
                it.timeout = SECOND * 900;
            });
            for caller in 0..load.callers {
                let at = Duration::from_millis(load.from + u64::from(caller));
                world.after(at, Next::Call(function));
            }
        }
        world
    }

    fn after(&mut self, delay: Duration, next: Next) {
        self.numbered += 1;
        self.next.insert((self.host.now + delay, self.numbered), next);
    }

    fn run(&mut self, until: Duration) {
        let until = Time::ZERO + until;
        loop {
            let next = self.next.first_key_value().map(|(key, next)| (*key, *next));
            let due = self.host.engine.next_timeout();
            let at = next.map(|(key, _)| key.0).into_iter().chain(due).min();
            let Some(at) = at.filter(|at| *at <= until) else { break };
            self.host.now = self.host.now.max(at);
            let commands = match next.filter(|(key, _)| key.0 <= at) {
                Some((key, next)) => {
                    self.next.remove(&key);
                    self.happen(next)
                }
                None => {
                    self.host.engine.handle_timeout(self.host.now);
                    self.host.commands()
                }
            };
            self.carry_out(commands);
        }
        self.host.now = until;
        for function in 0..self.loads.len() {
            self.served(function, self.host.now);
        }
    }

    fn happen(&mut self, next: Next) -> Vec<Command> {
        match next {
            Next::Call(function) => {
                let at = function as usize;
                if self.waiting[at] == 0 {
                    self.unserved_since[at] = self.host.now;
                }
                self.waiting[at] += 1;
                self.function_of.insert(self.host.invoked + 1, function);
                self.host.invoke(function)
            }
            // A sandbox that was stopped in the meantime becomes ready too late.
            Next::Ready(sandbox) => {
                self.host.try_tell(Event::SandboxReady { sandbox }).unwrap_or_default()
            }
            Next::Gone(sandbox) => {
                self.host.try_tell(Event::SandboxGone { sandbox }).unwrap_or_default()
            }
            Next::Ended(invocation, sandbox) => {
                let function = self.function_of.remove(&invocation.0).expect("it ran");
                self.after(Duration::ZERO, Next::Call(function));
                self.host.end(invocation.0, sandbox)
            }
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::StartSandbox { sandbox, .. } => {
                    self.started += 1;
                    self.after(START, Next::Ready(sandbox));
                }
                Command::StopSandbox { sandbox, .. } => self.after(STOP, Next::Gone(sandbox)),
                Command::Dispatch { invocation, sandbox, .. } => {
                    let function = self.function_of[&invocation.0] as usize;
                    self.served(function, self.host.now);
                    self.waiting[function] -= 1;
                    let runs = Duration::from_millis(self.loads[function].millis);
                    self.after(runs, Next::Ended(invocation, sandbox));
                }
                Command::Reject { reason, .. } => panic!("refused: {reason:?}"),
                _ => {}
            }
        }
    }

    /// Ends a function's time without service, if one of its invocations waits.
    fn served(&mut self, function: usize, now: Time) {
        if self.waiting[function] > 0 {
            let unserved = now.since(self.unserved_since[function]);
            self.longest[function] = self.longest[function].max(unserved);
        }
        self.unserved_since[function] = now;
    }

    fn sandboxes(&self, function: u32) -> u32 {
        let status = self.host.engine.function_status(FunctionId(function));
        status.map_or(0, |it| it.sandboxes)
    }
}

/// The longest time that a function has to wait for its turn: for each function, the time until
/// room is gathered for it, and until the longest invocation on a worker has ended.
fn bound(loads: &[Load]) -> Duration {
    let longest = loads.iter().map(|it| it.millis).max().unwrap_or_default();
    let turn = SECOND * 4 + Duration::from_millis(longest) + START + STOP;
    turn * u32::try_from(loads.len()).expect("few") + SECOND * 5
}

/// Two queues, one place: each gets its turn, and the place changes hands only every few seconds.
#[test]
fn the_only_place_is_shared_in_turns() {
    for accounts in [1, 2] {
        for functions in [2, 3, 5] {
            let load = |nth: u32| Load {
                account: nth % accounts,
                mib: 1,
                callers: 3,
                millis: 50,
                from: u64::from(nth) * 100,
            };
            let loads: Vec<_> = (0..functions).map(load).collect();
            let mut world = World::new(&[1], &loads);
            world.run(SECOND * 200);
            let turn = SECOND * 4 * functions;
            assert!(world.longest.iter().all(|it| *it <= turn), "{:?}", world.longest);
            assert!(world.started <= 110, "{} starts in 200 s", world.started);
        }
    }
}

/// A large function with a sandbox and a queue, beside small ones that hold the rest and take each
/// piece that falls free.
#[test]
fn a_large_function_with_a_sandbox_gets_its_share() {
    for (accounts, large) in [(1, 6), (1, 3), (2, 4), (3, 2)] {
        let small = |nth: u32| Load {
            account: nth % accounts,
            mib: 1,
            callers: 12,
            millis: 400 + u64::from(nth) * 70,
            from: 1000,
        };
        let mut loads = vec![Load { account: 90, mib: large, callers: 8, millis: 500, from: 0 }];
        if accounts == 1 {
            loads[0].account = 0;
        }
        loads.extend((0..3).map(small));
        let mut world = World::new(&[24], &loads);
        // One caller at first: it has one sandbox when the others come.
        let calls = world.next.iter().filter(|(_, it)| **it == Next::Call(0));
        let late: Vec<_> = calls.skip(1).map(|(key, _)| *key).collect();
        for key in late {
            world.next.remove(&key);
            world.next.insert((key.0 + SECOND * 5, key.1), Next::Call(0));
        }
        world.run(SECOND * 5);
        assert_eq!(world.sandboxes(0), 1, "{large} MiB");
        world.run(SECOND * 40);
        assert!(world.sandboxes(0) >= 2, "{large} MiB, {accounts} accounts: one sandbox");
        assert!(world.longest.iter().all(|it| *it <= SECOND * 15), "{:?}", world.longest);
    }
}

fn loads() -> impl Strategy<Value = Vec<Load>> {
    let load = (0..3_u32, 1..=8_u64, 1..9_u32, 100..3000_u64, 0..20_000_u64);
    let load = load.prop_map(|(account, mib, callers, millis, from)| Load {
        account,
        mib,
        callers,
        millis,
        from,
    });
    prop::collection::vec(load, 1..10)
}

fn cases() -> u32 {
    std::env::var_os("PROPTEST_CASES").and_then(|it| it.to_str()?.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// No queue goes without service for longer than all functions take in turn, whatever the sizes
    /// and whoever holds the room.
    #[test]
    fn every_queue_is_served_within_a_bound(
        workers in prop::collection::vec(8..20_u64, 1..3), loads in loads(),
    ) {
        let mut world = World::new(&workers, &loads);
        let bound = bound(&loads);
        world.run(bound + SECOND * 40);
        for (longest, load) in world.longest.iter().zip(&loads) {
            prop_assert!(*longest <= bound, "{longest:?} of {bound:?}: {load:?}");
        }
    }
}
