//! The longest single calls of the engine: full fleets, lost workers, reports, snapshots, expiry.
//!
//! ```text
//! cargo bench -p benches --features core --bench overload [-- full|gone|loss|adoption|expiry|snapshot] [WORKERS]
//! ```
//!
//! A fleet has 1,000 workers by default, each with room for 1,000 sandboxes of 1 MiB, and 1,000
//! functions of ten accounts. Each row is the median and the 99th percentile of single calls of
//! `handle` or `handle_timeout`, the clock's time of about 20 ns included, and the maximum of the
//! processor time that a call took: other programs do not lengthen it. Commands are polled outside
//! of the measured time. The last column is a digest of all commands: two builds that decide alike
//! print the same.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use lambda_core::*;
use nix::time::{ClockId, clock_gettime};

const MIB: u64 = 1 << 20;
const EACH: u32 = 1_000;
const FUNCTIONS: u32 = 1_000;
/// The functions that wait for room while sandboxes go.
const BLOCKED: u32 = 10_000;

/// Measures one kind of call on a fleet of so many workers.
type Part = fn(u32);

fn main() {
    let args: Vec<_> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let only = args.iter().find(|it| it.parse::<u32>().is_err());
    let workers = args.iter().find_map(|it| it.parse().ok()).unwrap_or(1_000);
    println!(
        "| call | workers | calls | median us | p99 us | max us of the processor | commands |"
    );
    println!("|---|---|---|---|---|---|---|");
    let parts: [(&str, Part); 6] = [
        ("full", full),
        ("gone", gone),
        ("loss", loss),
        ("adoption", adoption),
        ("expiry", expiry),
        ("snapshot", snapshot),
    ];
    for (name, part) in parts {
        if only.is_none_or(|only| only == name) {
            part(workers);
        }
    }
}

/// An engine with its time, the durations of its calls, and a digest of its commands.
struct Bench {
    engine: Engine,
    now: Time,
    invoked: u64,
    times: Vec<Duration>,
    /// The longest processor time of a call.
    longest: Duration,
    commands: Vec<Command>,
    digest: DefaultHasher,
}

fn config() -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = 1 << 20;
    config.starts_per_function_max = 1 << 20;
    config.starts_per_worker_max = 1 << 20;
    config.sandboxes_max = 1 << 24;
    config.functions_max = 1 << 24;
    config.workers_max = 1 << 24;
    config.waiting_max = 20_000;
    config
}

impl Bench {
    fn new(workers: u32, config: Config, restarts: u16) -> Self {
        let engine = Engine::restarted(config, 1, restarts);
        let engine = engine.with_idle_policy(Box::new(FixedIdle(Duration::from_secs(600))));
        let mut bench = Self {
            engine,
            now: Time::from_nanos(1),
            invoked: 0,
            times: Vec::new(),
            longest: Duration::ZERO,
            commands: Vec::new(),
            digest: DefaultHasher::new(),
        };
        for worker in 0..workers {
            let capacity = Capacity::of_memory(u64::from(EACH) * MIB);
            bench.tell(Event::WorkerJoined { worker: WorkerId(worker), capacity }).unwrap();
        }
        (0..FUNCTIONS).for_each(|function| bench.put(function));
        bench
    }

    fn put(&mut self, function: u32) {
        let mut settings = FunctionSettings::new(AccountId(function % 10), MIB);
        (settings.cpu_milli, settings.timeout) = (10, Duration::from_secs(900));
        let function = FunctionId(function);
        self.tell(Event::FunctionPut { function, revision: 0, settings }).unwrap();
    }

    fn tell(&mut self, event: Event) -> Result<(), EventError> {
        let now = self.now;
        let told = self.measured(|engine| engine.handle(now, event));
        self.poll();
        told
    }

    /// Measures one call.
    fn measured<R>(&mut self, call: impl FnOnce(&mut Engine) -> R) -> R {
        let processor = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let used = processor();
        let begun = Instant::now();
        let result = call(&mut self.engine);
        self.times.push(begun.elapsed());
        let took = processor() - used;
        self.longest = self.longest.max(took);
        result
    }

    /// Forgets the calls so far.
    fn clear(&mut self) {
        self.times.clear();
        self.longest = Duration::ZERO;
    }

    fn poll(&mut self) {
        self.commands.clear();
        while let Some(command) = self.engine.poll() {
            format!("{command:?}").hash(&mut self.digest);
            self.commands.push(command);
        }
    }

    fn invoke(&mut self, function: u32) {
        self.invoked += 1;
        let (invocation, function) = (InvocationId(self.invoked), FunctionId(function));
        self.tell(Event::InvocationArrived { invocation, function }).unwrap();
    }

    /// Makes every started sandbox ready. Returns the dispatches.
    fn settle(&mut self) -> Vec<(InvocationId, SandboxId)> {
        let mut dispatched = Vec::new();
        let mut todo = std::mem::take(&mut self.commands);
        while let Some(command) = todo.pop() {
            match command {
                Command::StartSandbox { sandbox, .. } => {
                    self.tell(Event::SandboxReady { sandbox }).unwrap();
                    todo.append(&mut self.commands);
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    dispatched.push((invocation, sandbox));
                }
                _ => {}
            }
        }
        dispatched
    }

    /// Fills the fleet with busy sandboxes. Returns what they run.
    fn fill(&mut self, workers: u32) -> Vec<(InvocationId, SandboxId)> {
        let mut busy = Vec::new();
        for nth in 0..workers * EACH {
            self.invoke(nth % FUNCTIONS);
            busy.extend(self.settle());
        }
        busy
    }

    fn report(&mut self, call: &str, workers: u32) {
        self.times.sort_unstable();
        let at = |share: usize| {
            let at = (self.times.len() * share / 1000).min(self.times.len().saturating_sub(1));
            self.times.get(at).map_or(0.0, |it| it.as_secs_f64() * 1e6)
        };
        let (median, p99, max) = (at(500), at(990), self.longest.as_secs_f64() * 1e6);
        let (calls, digest) = (self.times.len(), self.digest.finish());
        println!(
            "| {call} | {workers} | {calls} | {median:.2} | {p99:.2} | {max:.1} | {digest:x} |"
        );
        self.clear();
    }

    /// Ends all invocations, so that their sandboxes are idle.
    fn end_all(&mut self, busy: Vec<(InvocationId, SandboxId)>) {
        for (invocation, sandbox) in busy {
            let used = Used::default();
            self.tell(Event::InvocationEnded { invocation, sandbox, reusable: true, used })
                .unwrap();
        }
    }

    /// Calls the engine as long as it wants to be called by `until`.
    fn run_until(&mut self, until: Time) {
        while let Some(next) = self.engine.next_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            let now = self.now;
            self.measured(|engine| engine.handle_timeout(now));
            self.poll();
        }
    }
}

fn full(workers: u32) {
    let mut bench = Bench::new(workers, config(), 0);
    bench.fill(workers);
    bench.clear();
    let new = FUNCTIONS..FUNCTIONS + BLOCKED;
    new.clone().for_each(|function| bench.put(function));
    bench.clear();
    new.clone().for_each(|function| bench.invoke(function));
    bench.report("first blocked arrival of a function", workers);
    new.for_each(|function| bench.invoke(function));
    bench.report("further blocked arrival", workers);
    (0..20_000).for_each(|nth| bench.invoke(FUNCTIONS + nth % BLOCKED));
    bench.report("refused arrival, everybody waits", workers);
    (0..20_000).for_each(|nth| bench.invoke(nth % FUNCTIONS));
    bench.report("refused arrival, of functions with sandboxes", workers);
    bench.run_until(bench.now + Duration::from_secs(5));
    bench.report("timers for 5 s", workers);
}

fn gone(workers: u32) {
    let mut bench = Bench::new(workers, config(), 0);
    let busy = bench.fill(workers);
    for function in FUNCTIONS..FUNCTIONS + BLOCKED {
        bench.put(function);
        bench.invoke(function);
    }
    bench.clear();
    for (_, sandbox) in busy.iter().step_by(busy.len().div_ceil(5_000)) {
        bench.tell(Event::SandboxGone { sandbox: *sandbox }).unwrap();
        assert!(bench.commands.iter().any(|it| matches!(it, Command::StartSandbox { .. })));
    }
    bench.report("SandboxGone with 10,000 functions blocked", workers);
    for (invocation, sandbox) in busy.iter().skip(1).step_by(busy.len().div_ceil(4_000)) {
        let (invocation, sandbox, used) = (*invocation, *sandbox, Used::default());
        bench.tell(Event::InvocationEnded { invocation, sandbox, reusable: true, used }).unwrap();
    }
    bench.report("InvocationEnded with 5,000 functions blocked", workers);
}

fn loss(workers: u32) {
    for idle in [false, true] {
        let mut bench = Bench::new(workers, config(), 0);
        let busy = bench.fill(workers);
        if idle {
            bench.end_all(busy);
        }
        bench.clear();
        for worker in 0..20 {
            bench.tell(Event::WorkerLost { worker: WorkerId(worker) }).unwrap();
            bench.run_until(bench.now);
        }
        bench.report(if idle { "worker lost, idle" } else { "worker lost, busy" }, workers);
    }
}

fn adoption(workers: u32) {
    let mut first = Bench::new(workers, config(), 0);
    let busy = first.fill(workers);
    let mut reports = vec![Vec::new(); workers as usize];
    for (nth, (_, sandbox)) in busy.iter().enumerate() {
        let function = FunctionId(u32::try_from(nth).unwrap() % FUNCTIONS);
        reports[nth % workers as usize].push(ReportedSandbox {
            sandbox: *sandbox,
            function,
            revision: 0,
            invocation: None,
            vm: None,
            interface: None,
        });
    }
    drop(first);
    let mut bench = Bench::new(workers, config(), 1);
    bench.clear();
    // Each report is a copy: the allocator returns the memory of a million entries to the system
    // when the last is freed, which takes milliseconds and is not the engine's work.
    for (worker, sandboxes) in (0..).zip(&reports) {
        let (worker, sandboxes) = (WorkerId(worker), sandboxes.clone());
        bench.tell(Event::WorkerReported { worker, vms: Vec::new(), sandboxes }).unwrap();
        bench.run_until(bench.now);
    }
    assert_eq!(bench.engine.sandboxes(), busy.len());
    bench.report("report of a worker, adopted", workers);
}

fn expiry(workers: u32) {
    let mut bench = Bench::new(workers, config(), 0);
    let busy = bench.fill(workers);
    bench.end_all(busy);
    bench.clear();
    bench.now = bench.now + Duration::from_secs(599);
    bench.run_until(bench.now);
    bench.run_until(bench.now + Duration::from_secs(2));
    bench.report("all idle at once expire", workers);
}

fn snapshot(workers: u32) {
    let mut bench = Bench::new(workers, config(), 0);
    let busy = bench.fill(workers);
    bench.end_all(busy);
    bench.clear();
    bench.measured(|engine| engine.snapshot());
    bench.report("snapshot in one call", workers);
    bench.measured(Engine::begin_snapshot);
    bench.report("snapshot begun", workers);
    let (mut parts, mut events, mut longest) = (Vec::new(), Vec::new(), [Duration::ZERO; 2]);
    let mut invoked = 0;
    let snapshot = loop {
        if let Some(snapshot) = bench.measured(Engine::continue_snapshot) {
            break snapshot;
        }
        parts.append(&mut bench.times);
        longest[0] = longest[0].max(std::mem::take(&mut bench.longest));
        // Invocations of functions in a row: each changes blocks that are not copied yet.
        for _ in 0..20 {
            bench.invoke(invoked % FUNCTIONS);
            invoked += 7;
        }
        events.append(&mut bench.times);
        longest[1] = longest[1].max(std::mem::take(&mut bench.longest));
    };
    (bench.times, bench.longest) = (parts, longest[0]);
    bench.report("part of a snapshot", workers);
    (bench.times, bench.longest) = (events, longest[1]);
    bench.report("invocation meanwhile", workers);
    let began = Instant::now();
    let bytes = snapshot.to_bytes();
    let (wrote, began) = (began.elapsed(), Instant::now());
    assert_eq!(Snapshot::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    let read = began.elapsed();
    println!("{} bytes, written in {wrote:.0?}, read and written again in {read:.0?}", bytes.len());
}
