//! Measures the engine's speed and memory.
//!
//! ```text
//! cargo bench -p benches --features core --bench placement [-- PART [SIZE [CANDIDATES]]]
//! ```
//!
//! PART is decisions, candidates, scan, cold, warm or routing. SIZE is a number of functions for
//! the parts warm and routing, and a number of workers for the others.
//!
//! - Decisions: the time of `choose`, which picks the worker for a sandbox, by size of the fleet.
//! - Cold: an arrival, the decision, and all events of the sandbox up to its end.
//! - Warm: an invocation's arrival and its end, with timers, statistics and counting, at up to a
//!   million idle sandboxes. Both events go through `handle` and `poll`, one at a time, and in
//!   batches of 32 arrivals and ends for which the engine's `touch` is called first.
//! - Routing: warm invocations with `Routing::CoolWorker` and with the default routing, in
//!   alternating rounds. A run without arguments leaves this part out.
//! - Memory: the bytes that the engine has allocated, counted by the allocator.
//!
//! Times are medians of rounds, with the fastest and the slowest round. p50 and p99 are of single
//! calls and contain the reads of the clock, which are also measured alone. The floor is a read
//! that depends on the one before, in as much memory as the calls touch. A decision waits for two
//! such reads (the function, the workers), an arrival for three (the function, the sandbox, its
//! worker).
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::*;

const ROUNDS: usize = 15;
/// Arrivals in a batch, and as many ends.
const BATCH: usize = 32;
/// Invocations that run at the same time.
const RUNNING: usize = 1_000;

/// An allocator that counts the bytes in use. The bench has one thread, so that no count is lost.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call goes to the system's allocator with unchanged arguments, and our caller keeps
// the same contract. Counting touches no memory but the counter.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.store(ALLOCATED.load(Relaxed).wrapping_add(layout.size()), Relaxed);
        // SAFETY: our caller gives a layout of non-zero size, which `System` also requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.store(ALLOCATED.load(Relaxed).wrapping_sub(layout.size()), Relaxed);
        // SAFETY: every pointer that we return came from `System` with the layout that the caller
        // passes.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let only = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let size: Option<u32> = std::env::args().nth(2).and_then(|it| it.parse().ok());
    let sized = |it: &u32| size.is_none_or(|size| size == *it);
    let sizes: Vec<_> = [1_000, 10_000, 100_000].into_iter().filter(sized).collect();
    if wanted("decisions") {
        println!("{DECISIONS}");
        for workers in sizes.clone() {
            let twos = [Policy::PowerOfTwo, Policy::PowerOfTwoByLoad];
            let times = decisions(&[twos[0], twos[1], Policy::Ours], workers);
            let [by_memory, by_load] = [0, 1].map(|two| ratio(&times[2], &times[two]));
            println!(
                "ours over power of two at {workers} workers: {by_memory:.2} by memory, {by_load:.2} by live load"
            );
        }
    }
    // `candidates` is not part of a run without arguments: it repeats the decisions with other
    // settings.
    if only.as_deref() == Some("candidates") {
        println!("{DECISIONS}");
        for workers in sizes.clone() {
            let one = std::env::args().nth(3).and_then(|it| it.parse::<usize>().ok());
            for candidates in [3, 4, 5, 6, 8, 12] {
                if one.is_none_or(|one| one == candidates) {
                    drop(decisions(&[Policy::Of(candidates)], workers));
                }
            }
        }
    }
    if wanted("scan") {
        for workers in [1_000, 10_000] {
            drop(decisions(&[Policy::LeastLoaded], workers));
        }
    }
    if wanted("cold") {
        println!(
            "\n| cold start, all counted | workers | ns (least, most) | a second |\n|---|---|---|---|"
        );
        sizes.iter().copied().for_each(cold);
    }
    if only.as_deref() == Some("routing") {
        println!(
            "| warm: arrival and end, cool worker over most recently used | sandboxes | functions | ratio |"
        );
        println!("|---|---|---|---|");
        for (sandboxes, functions) in WARM.into_iter().filter(|(_, functions)| sized(functions)) {
            routing(sandboxes, functions);
        }
    }
    if wanted("warm") {
        println!(
            "\n| warm: arrival and end | sandboxes | functions | ns (least, most) | a second | three dependent reads ns | times that |"
        );
        println!("|---|---|---|---|---|---|---|");
        let sizes: Vec<_> = WARM.into_iter().filter(|(_, functions)| sized(functions)).collect();
        let bytes: Vec<_> =
            sizes.iter().map(|(sandboxes, functions)| warm(*sandboxes, *functions)).collect();
        println!(
            "\n| memory | functions | bytes for an idle sandbox | all there is, for each sandbox |\n|---|---|---|---|"
        );
        for ((sandboxes, functions), (each, all)) in sizes.into_iter().zip(bytes) {
            println!("| {sandboxes} sandboxes | {functions} | {each:.0} | {all:.0} |");
        }
    }
}

/// Numbers of idle sandboxes and functions.
const WARM: [(u32, u32); 4] =
    [(100_000, 10_000), (1_000_000, 1_000), (1_000_000, 10_000), (1_000_000, 100_000)];

const DECISIONS: &str = "| decision | workers | ns (least, most) | a second | single call p50 ns | p99 ns | the clock alone p50 ns | p99 ns | p99 less the clock's p50 ns | two dependent reads ns | times that |
|---|---|---|---|---|---|---|---|---|---|---|";

/// The time per call of each round, in nanoseconds, ascending.
struct Rounds(Vec<f64>);

impl Rounds {
    fn of(calls: usize, mut round: impl FnMut()) -> Self {
        let one = |_| {
            let began = Instant::now();
            round();
            began.elapsed().as_nanos() as f64 / calls as f64
        };
        Self::sorted((0..ROUNDS).map(one).collect())
    }

    fn sorted(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn median(&self) -> f64 {
        self.0[ROUNDS / 2]
    }

    /// Returns two table columns: the median with its range, and millions of calls per second.
    fn columns(&self) -> String {
        let (least, most) = (self.0[0], self.0[ROUNDS - 1]);
        let median = self.median();
        format!("{median:.0} ({least:.0}, {most:.0}) | {:.2} M", 1000.0 / median)
    }
}

/// Returns the nanoseconds of a read that depends on the one before, at random places in `lines`
/// cache lines.
fn dependent_read(lines: usize) -> f64 {
    #[repr(align(64))]
    struct Line(usize);
    let mut chain: Vec<_> = (0..lines).map(Line).collect();
    // Sattolo's shuffle: a single cycle through all lines.
    let mut chance = Chance(3);
    for at in (1..lines).rev() {
        let other = usize::try_from(chance.below(at as u64)).unwrap();
        chain.swap(at, other);
    }
    const READS: usize = 200_000;
    let mut at = 0;
    Rounds::of(READS, || (0..READS).for_each(|_| at = black_box(chain[at].0))).median()
}

#[derive(Clone, Copy)]
enum Policy {
    PowerOfTwo,
    PowerOfTwoByLoad,
    LeastLoaded,
    Ours,
    /// Our placement with this number of candidates.
    Of(usize),
}

impl Policy {
    fn make(self) -> Box<dyn Placement> {
        match self {
            Self::PowerOfTwo => Box::new(baselines::PowerOfTwo),
            Self::PowerOfTwoByLoad => Box::new(baselines::PowerOfTwoByLoad),
            Self::LeastLoaded => Box::new(baselines::LeastLoaded),
            Self::Ours => Box::new(Scored::default()),
            Self::Of(candidates) => Box::new(Scored::default().with_candidates(candidates)),
        }
    }
}

fn config(routing: Routing) -> Config {
    let mut config = Config::default();
    config.routing = routing;
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = u32::MAX;
    config
}

/// Returns an engine with `sandboxes` idle sandboxes, divided evenly among the functions, each of
/// which has run once.
fn fleet(
    policy: Policy,
    workers: u32,
    functions: u32,
    sandboxes: u32,
    routing: Routing,
) -> (Engine, Vec<SandboxId>, Time) {
    let mut engine = Engine::new(config(routing), 1).with_placement(policy.make());
    let capacity = Capacity { cpu_milli: 64_000, ..Capacity::of_memory(64 << 30) };
    for worker in 0..workers {
        engine
            .handle(Time::ZERO, Event::WorkerJoined { worker: WorkerId(worker), capacity })
            .unwrap();
    }
    for function in 0..functions {
        let settings = FunctionSettings::new(AccountId(function % 1000), 128 << 20);
        let function = FunctionId(function);
        engine.handle(Time::ZERO, Event::FunctionPut { function, revision: 0, settings }).unwrap();
    }
    // Each function gets all its invocations at once, so that each makes a sandbox. The functions
    // follow each other over two minutes.
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

/// Measures the decisions of several policies on fleets of the same size. Their rounds take turns,
/// so that what else runs on the machine meets all of them. Returns the time of each in
/// every round, in nanoseconds.
fn decisions(policies: &[Policy], workers: u32) -> Vec<Vec<f64>> {
    let functions = workers.min(20_000);
    let mut chance = Chance(7);
    let mut engines: Vec<_> = policies
        .iter()
        .map(|policy| fleet(*policy, workers, functions, workers * 20, MRU).0)
        .collect();
    let scans = policies.iter().any(|policy| matches!(policy, Policy::LeastLoaded));
    let calls = if scans { 2_000 } else { 50_000 };
    let mut times = vec![Vec::new(); policies.len()];
    for _ in 0..ROUNDS {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            let began = Instant::now();
            for _ in 0..calls {
                black_box(engine.choose(chance.function(functions)).unwrap());
            }
            times.push(began.elapsed().as_nanos() as f64 / calls as f64);
        }
    }
    let clock = singly(calls, || (), |()| ());
    // A decision reads two cache lines of a worker and six of a function.
    let floor = 2.0 * dependent_read(workers as usize * 2 + functions as usize * 6);
    for ((policy, engine), times) in policies.iter().zip(&mut engines).zip(&times) {
        let single = singly(calls, || chance.function(functions), |it| engine.choose(it).unwrap());
        let at = |of: &[u128], share: usize| of[of.len() * share / 100];
        let (p50, p99) = (at(&single, 50), at(&single, 99));
        let (clock, clock_p99) = (at(&clock, 50), at(&clock, 99));
        let less = p99.saturating_sub(clock);
        let name = match policy {
            Policy::Of(candidates) => format!("{candidates} candidates"),
            policy => policy.make().name().to_owned(),
        };
        let rounds = Rounds::sorted(times.clone());
        let (columns, ratio) = (rounds.columns(), rounds.median() / floor);
        println!(
            "| {name} | {workers} | {columns} | {p50} | {p99} | {clock} | {clock_p99} | {less} | {floor:.0} | {ratio:.1} |"
        );
    }
    times
}

/// Returns the median of the ratios of two policies' times, round by round.
fn ratio(of: &[f64], to: &[f64]) -> f64 {
    let ratios = of.iter().zip(to).map(|(of, to)| of / to).collect();
    Rounds::sorted(ratios).median()
}

/// Returns the times of single calls in nanoseconds, ascending. They contain two reads of the
/// clock.
fn singly<T, R>(
    calls: usize,
    mut prepare: impl FnMut() -> T,
    mut call: impl FnMut(T) -> R,
) -> Vec<u128> {
    let one = |_| {
        let given = prepare();
        let began = Instant::now();
        black_box(call(given));
        began.elapsed().as_nanos()
    };
    let mut times: Vec<_> = (0..calls).map(one).collect();
    times.sort_unstable();
    times
}

/// Measures the engine's work from an invocation's arrival to the end of its sandbox. No sandbox
/// runs.
fn cold(workers: u32) {
    let functions = workers.min(20_000);
    let (mut engine, _, mut now) = fleet(Policy::Ours, workers, functions, 0, MRU);
    let (mut chance, mut id) = (Chance(7), 0);
    const CALLS: usize = 50_000;
    let rounds = Rounds::of(CALLS, || {
        for _ in 0..CALLS {
            id += 1;
            now = now + Duration::from_micros(50);
            let (invocation, function) = (InvocationId(id), chance.function(functions));
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
    });
    println!("| ours | {workers} | {} |", rounds.columns());
}

/// Workers of the fleet of warm invocations.
const WARM_WORKERS: u32 = 10_000;
/// Arrivals of a round of warm invocations.
const WARM_CALLS: usize = 200_000;
const MRU: Routing = Routing::MostRecentlyUsed;

/// Warm invocations: arrivals of random functions, of which [`RUNNING`] run at the same time.
struct Traffic {
    engine: Engine,
    functions: u32,
    now: Time,
    chance: Chance,
    invocations: u64,
    running: VecDeque<(InvocationId, SandboxId)>,
    events: Vec<Event>,
}

impl Traffic {
    fn new(engine: Engine, functions: u32, now: Time) -> Self {
        let (chance, invocations) = (Chance(7), 1 << 40);
        let (running, events) = (VecDeque::with_capacity(RUNNING * 2), Vec::new());
        Self { engine, functions, now, chance, invocations, running, events }
    }

    /// Passes a round of arrivals, and as many ends, to the engine.
    fn round(&mut self, batch: usize) {
        for _ in 0..WARM_CALLS / batch {
            for _ in 0..batch {
                self.invocations += 1;
                let invocation = InvocationId(self.invocations);
                let function = self.chance.function(self.functions);
                self.events.push(Event::InvocationArrived { invocation, function });
                if self.running.len() >= RUNNING
                    && let Some(first) = self.running.pop_front()
                {
                    self.events.push(ended(first));
                }
            }
            if batch > 1 {
                self.engine.touch(&self.events);
            }
            for event in self.events.drain(..) {
                self.now = self.now + Duration::from_nanos(100);
                self.engine.handle(self.now, event).unwrap();
                while let Some(command) = self.engine.poll() {
                    if let Command::Dispatch { invocation, sandbox, .. } = command {
                        self.running.push_back((invocation, sandbox));
                    }
                }
            }
        }
    }

    /// Ends the invocations that still run.
    fn end(&mut self) {
        for running in std::mem::take(&mut self.running) {
            self.engine.handle(self.now, ended(running)).unwrap();
        }
    }
}

fn ended((invocation, sandbox): (InvocationId, SandboxId)) -> Event {
    Event::InvocationEnded { invocation, sandbox, reusable: true, used: Used::default() }
}

/// Measures warm invocations. Returns the bytes per idle sandbox, and all bytes divided by the
/// number of sandboxes.
fn warm(sandboxes: u32, functions: u32) -> (f64, f64) {
    let nothing = ALLOCATED.load(Relaxed);
    let empty = fleet(Policy::Ours, WARM_WORKERS, functions, 0, MRU);
    let without = ALLOCATED.load(Relaxed);
    drop(empty);
    let (engine, made, now) = fleet(Policy::Ours, WARM_WORKERS, functions, sandboxes, MRU);
    assert_eq!(made.len(), engine.sandboxes());
    drop(made);
    let with = ALLOCATED.load(Relaxed);
    let each = (with - without) as f64 / f64::from(sandboxes);
    let all = (with - nothing) as f64 / f64::from(sandboxes);
    // An arrival reads three cache lines of a function, two of the sandbox that it uses, and one of
    // a worker.
    let floor = 3.0 * dependent_read((functions * 5 + WARM_WORKERS) as usize);
    let mut traffic = Traffic::new(engine, functions, now);
    for batch in [1, BATCH] {
        let rounds = Rounds::of(WARM_CALLS / batch * batch, || traffic.round(batch));
        traffic.end();
        let name =
            if batch == 1 { "one at a time".to_owned() } else { format!("{batch}, touched") };
        let (columns, ratio) = (rounds.columns(), rounds.median() / floor);
        println!("| {name} | {sandboxes} | {functions} | {columns} | {floor:.0} | {ratio:.1} |");
    }
    (each, all)
}

/// Measures warm invocations with the default routing and with `Routing::CoolWorker`. Rounds of
/// both alternate.
fn routing(sandboxes: u32, functions: u32) {
    let mut traffic = [MRU, Routing::CoolWorker].map(|routing| {
        let (engine, _, now) = fleet(Policy::Ours, WARM_WORKERS, functions, sandboxes, routing);
        Traffic::new(engine, functions, now)
    });
    for batch in [1, BATCH] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (traffic, times) in traffic.iter_mut().zip(&mut times) {
                let began = Instant::now();
                traffic.round(batch);
                times.push(began.elapsed().as_nanos() as f64);
            }
        }
        traffic.iter_mut().for_each(Traffic::end);
        let name =
            if batch == 1 { "one at a time".to_owned() } else { format!("{batch}, touched") };
        println!("| {name} | {sandboxes} | {functions} | {:.2} |", ratio(&times[1], &times[0]));
    }
}

struct Chance(u64);

impl Chance {
    /// Returns a random number below `bound` (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u64::try_from((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64).unwrap()
    }

    fn function(&mut self, functions: u32) -> FunctionId {
        FunctionId(u32::try_from(self.below(u64::from(functions))).unwrap())
    }
}
