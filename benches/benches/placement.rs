//! The engine's speed and size.
//!
//! ```text
//! cargo bench -p benches --features core --bench placement
//! ```
//!
//! Decisions: where a sandbox goes, by fleet size; alone, and with everything that a cold start counts. Warm: an
//! invocation's dispatch and its end, with timers, statistics and counting, at a million idle sandboxes. Size: the
//! process's resident memory before and after a million idle sandboxes. Figures are medians of rounds; p99 is of single
//! calls, clock included.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::*;

const ROUNDS: usize = 15;

fn main() {
    let only = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let size = std::env::args().nth(2).and_then(|it| it.parse().ok());
    let sizes = size.map_or_else(|| vec![1_000, 10_000, 100_000], |it| vec![it]);
    if wanted("decisions") {
        println!(
            "| decision | workers | alone ns | a second | single call p50 ns | p99 ns |\n|---|---|---|---|---|---|"
        );
        for workers in sizes {
            for policy in [Policy::PowerOfTwo, Policy::Ours] {
                decisions(policy, workers);
            }
        }
    }
    if wanted("scan") {
        for workers in [1_000, 10_000] {
            decisions(Policy::LeastLoaded, workers);
        }
    }
    if wanted("cold") {
        println!("\n| cold start, all counted | workers | ns | a second |\n|---|---|---|---|");
        for workers in [1_000, 10_000, 100_000] {
            cold(workers);
        }
    }
    if wanted("warm") {
        println!(
            "\n| warm | sandboxes | functions | dispatch and release ns | a second |\n|---|---|---|---|---|"
        );
        for (sandboxes, functions) in
            [(100_000, 10_000), (1_000_000, 1_000), (1_000_000, 10_000), (1_000_000, 100_000)]
        {
            warm(sandboxes, functions);
        }
    }
}

#[derive(Clone, Copy)]
enum Policy {
    PowerOfTwo,
    LeastLoaded,
    Ours,
}

impl Policy {
    fn make(self) -> Box<dyn Placement> {
        match self {
            Self::PowerOfTwo => Box::new(baselines::PowerOfTwo),
            Self::LeastLoaded => Box::new(baselines::LeastLoaded),
            Self::Ours => Box::new(Scored::default()),
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = u32::MAX;
    config
}

/// A fleet whose workers are half full of sandboxes with history.
fn fleet(
    policy: Policy,
    workers: u32,
    functions: u32,
    sandboxes: u32,
) -> (Engine, Vec<SandboxId>, Time) {
    let mut engine = Engine::new(config(), 1).with_placement(policy.make());
    let capacity = Capacity { cpu_milli: 64_000, ..Capacity::of_memory(64 << 30) };
    for worker in 0..workers {
        engine
            .handle(Time::ZERO, Event::WorkerJoined { worker: WorkerId(worker), capacity })
            .unwrap();
    }
    for function in 0..functions {
        let mut settings = FunctionSettings::new(AccountId(function % 1000), 128 << 20);
        settings.runtime = u8::try_from(function % 5).unwrap();
        let function = FunctionId(function);
        engine.handle(Time::ZERO, Event::FunctionPut { function, revision: 0, settings }).unwrap();
    }
    // Eight at a time of each function, so that each gets as many as are wanted, over two minutes.
    let mut now = Time::ZERO;
    let mut made = Vec::new();
    let mut invocation = 0;
    let each = sandboxes.div_ceil(functions.max(1));
    for function in 0..functions {
        now = now + Duration::from_nanos(120_000_000_000 / u64::from(functions));
        for _ in 0..each {
            invocation += 1;
            let (invocation, function) = (InvocationId(invocation), FunctionId(function));
            engine.handle(now, Event::InvocationArrived { invocation, function }).unwrap();
        }
        let mut running = Vec::new();
        while let Some(command) = engine.poll() {
            match command {
                Command::StartSandbox { sandbox, .. } => {
                    engine.handle(now, Event::SandboxReady { sandbox }).unwrap();
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    running.push((invocation, sandbox))
                }
                other => panic!("{other:?}"),
            }
        }
        let ended = now + Duration::from_micros(5);
        for (invocation, sandbox) in running {
            let used = Used::default();
            let event = Event::InvocationEnded { invocation, sandbox, reusable: true, used };
            engine.handle(ended, event).unwrap();
            made.push(sandbox);
        }
        now = ended;
    }
    (engine, made, now)
}

fn decisions(policy: Policy, workers: u32) {
    let (mut engine, _, _) = fleet(policy, workers, workers.min(20_000), workers * 20);
    let mut chance = Chance(7);
    let functions = u64::from(workers.min(20_000));
    let calls = if matches!(policy, Policy::LeastLoaded) { 2_000 } else { 100_000 };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..calls {
            black_box(engine.choose(chance.function(functions)).unwrap());
        }
        rounds.push(began.elapsed().as_nanos() / calls);
    }
    rounds.sort_unstable();
    let mut single: Vec<_> = (0..calls)
        .map(|_| {
            let function = chance.function(functions);
            let began = Instant::now();
            black_box(engine.choose(function).unwrap());
            began.elapsed().as_nanos()
        })
        .collect();
    single.sort_unstable();
    let (median, at) = (rounds[ROUNDS / 2], |share: usize| single[single.len() * share / 100]);
    let (name, million) = (policy.make().name().to_owned(), 1000.0 / median as f64);
    println!("| {name} | {workers} | {median} | {million:.2} M | {} | {} |", at(50), at(99));
}

/// From an invocation's arrival to the end of its sandbox: everything but the sandbox itself.
fn cold(workers: u32) {
    let functions = workers.min(20_000);
    let (mut engine, _, mut now) = fleet(Policy::Ours, workers, functions, 0);
    let (mut chance, mut id) = (Chance(7), 0);
    let mut rounds = Vec::new();
    const CALLS: u128 = 50_000;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..CALLS {
            id += 1;
            now = now + Duration::from_micros(50);
            let (invocation, function) = (InvocationId(id), chance.function(u64::from(functions)));
            engine.handle(now, Event::InvocationArrived { invocation, function }).unwrap();
            while let Some(command) = engine.poll() {
                let event = match command {
                    Command::StartSandbox { sandbox, .. } => Event::SandboxReady { sandbox },
                    Command::Dispatch { sandbox, .. } => {
                        let used = Used::default();
                        let ended =
                            Event::InvocationEnded { invocation, sandbox, reusable: false, used };
                        engine.handle(now, ended).unwrap();
                        Event::SandboxGone { sandbox }
                    }
                    _ => continue,
                };
                engine.handle(now, event).unwrap();
            }
        }
        rounds.push(began.elapsed().as_nanos() / CALLS);
    }
    rounds.sort_unstable();
    let median = rounds[ROUNDS / 2];
    println!("| ours | {workers} | {median} | {:.2} M |", 1000.0 / median as f64);
}

fn warm(sandboxes: u32, functions: u32) {
    let empty = fleet(Policy::Ours, 10_000, functions, 0);
    let before = resident();
    drop(empty);
    let (mut engine, made, mut now) = fleet(Policy::Ours, 10_000, functions, sandboxes);
    assert_eq!(made.len(), engine.sandboxes());
    drop(made);
    let bytes = (resident().saturating_sub(before)) as f64 / f64::from(sandboxes);
    let (mut chance, mut id) = (Chance(7), 1_u64 << 40);
    let mut rounds = Vec::new();
    const CALLS: usize = 200_000;
    // A thousand run at once.
    let mut running = std::collections::VecDeque::with_capacity(1024);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..CALLS {
            id += 1;
            now = now + Duration::from_nanos(200);
            let (invocation, function) = (InvocationId(id), chance.function(u64::from(functions)));
            engine.handle(now, Event::InvocationArrived { invocation, function }).unwrap();
            while let Some(command) = engine.poll() {
                if let Command::Dispatch { invocation, sandbox, .. } = command {
                    running.push_back((invocation, sandbox));
                }
            }
            if running.len() > 1000
                && let Some((invocation, sandbox)) = running.pop_front()
            {
                let used = Used::default();
                let event = Event::InvocationEnded { invocation, sandbox, reusable: true, used };
                engine.handle(now, event).unwrap();
            }
        }
        rounds.push(began.elapsed().as_nanos() / CALLS as u128);
    }
    rounds.sort_unstable();
    let median = rounds[ROUNDS / 2];
    println!(
        "| ours | {sandboxes} | {functions} | {median} | {:.2} M | {bytes:.0} bytes of resident memory each",
        1000.0 / median as f64
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

struct Chance(u64);

impl Chance {
    /// Splitmix64.
    fn function(&mut self, functions: u64) -> FunctionId {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = (u128::from(mixed ^ (mixed >> 31)) * u128::from(functions)) >> 64;
        FunctionId(u32::try_from(number).unwrap())
    }
}
