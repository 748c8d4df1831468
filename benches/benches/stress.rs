//! The engine in trouble: far too much load, bad workers, greedy customers, a lost engine.
//!
//! ```text
//! cargo bench -p benches --features core --bench stress [-- overload|refusal|bad|fair|failover]
//! ```
//!
//! - Overload: 1,000 workers with room for 1,000 sandboxes each; ten accounts, together, want five
//!   times that. Goodput is the time that sandboxes are busy over the time for which there is room.
//! - Refusal: an arrival that is rejected since everybody waits on that full fleet, over one that
//!   is rejected on an empty fleet, where no more invocations may wait either. The two take turns.
//! - Bad: 5 % of 100 workers fail all starts, take 20 times as long, or fail every other half
//!   minute, at 60 % load.
//! - Fair: ten accounts, the tenth wants ten times as much as the first. Jain's index of what each
//!   got over its fair share (max-min), from 111 to 500 % of what there is.
//! - Failover: an engine with a million idle sandboxes is lost; its successor is given workers,
//!   functions and reports.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lambda_core::sim::{Bad, Faults, Settings, Simulation, workload};
use lambda_core::*;

const MIB: u64 = 1 << 20;
const WORKERS: u32 = 1_000;
const EACH: u32 = 1_000;
const FUNCTIONS: u32 = 1_000;
const ACCOUNTS: u32 = 10;
/// How long an invocation of the overload runs.
const RUNS: Duration = Duration::from_secs(60);

fn main() {
    let only = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let parts: [(&str, fn()); 5] = [
        ("overload", overload),
        ("refusal", refusal),
        ("bad", bad),
        ("fair", fair),
        ("failover", failover),
    ];
    for (name, part) in parts {
        if only.as_deref().is_none_or(|only| only == name) {
            part();
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = u32::MAX;
    config.starts_per_function_max = u32::MAX;
    config.starts_per_worker_max = u32::MAX;
    config.sandboxes_max = 1 << 24;
    config
}

/// A driver in virtual time: sandboxes start in 100 ms, invocations take [`RUNS`].
struct Driver {
    engine: Engine,
    now: Time,
    invoked: u64,
    rejected: u64,
    /// Events to come, by time and number.
    later: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    sequence: u64,
    /// Busy sandboxes, and the time up to `counted` that sandboxes were busy, in seconds.
    busy: u64,
    busy_seconds: f64,
    counted: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Ready(SandboxId),
    Ended(InvocationId, SandboxId),
    Gone(SandboxId),
}

impl Driver {
    fn new(workers: u32, config: Config) -> Self {
        let mut driver = Self {
            engine: Engine::new(config, 1),
            now: Time::from_nanos(1),
            invoked: 0,
            rejected: 0,
            later: BinaryHeap::new(),
            sequence: 0,
            busy: 0,
            busy_seconds: 0.0,
            counted: Time::ZERO,
        };
        join(&mut driver.engine, workers);
        driver
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event).unwrap();
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::StartSandbox { sandbox, .. } => {
                    self.after(Duration::from_millis(100), Happening::Ready(sandbox));
                }
                Command::StopSandbox { sandbox, .. } => {
                    self.after(Duration::from_millis(10), Happening::Gone(sandbox));
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    self.count(1);
                    self.after(RUNS, Happening::Ended(invocation, sandbox));
                }
                Command::Reject { .. } => self.rejected += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn count(&mut self, change: i64) {
        let seconds = self.now.since(self.counted).as_secs_f64();
        self.busy_seconds += seconds * self.busy as f64;
        (self.counted, self.busy) = (self.now, self.busy.checked_add_signed(change).unwrap());
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.later.push(Reverse((self.now + delay, self.sequence, happening)));
    }

    fn invoke(&mut self, function: u32) {
        self.invoked += 1;
        let (invocation, function) = (InvocationId(self.invoked), FunctionId(function));
        self.tell(Event::InvocationArrived { invocation, function });
    }

    fn run_until(&mut self, until: Time) {
        loop {
            let next = self.later.peek().map(|Reverse((at, ..))| *at).filter(|at| *at <= until);
            let due = self.engine.next_timeout().filter(|due| *due <= until);
            if let Some(due) = due.filter(|due| next.is_none_or(|next| *due <= next)) {
                self.now = self.now.max(due);
                self.engine.handle_timeout(self.now);
                self.carry_out();
                continue;
            }
            if next.is_none() {
                break;
            }
            let Some(Reverse((at, _, happening))) = self.later.pop() else { break };
            self.now = self.now.max(at);
            match happening {
                Happening::Ready(sandbox) => self.tell(Event::SandboxReady { sandbox }),
                Happening::Gone(sandbox) => self.tell(Event::SandboxGone { sandbox }),
                Happening::Ended(invocation, sandbox) => {
                    self.count(-1);
                    let (reusable, used) = (true, Used::default());
                    self.tell(Event::InvocationEnded { invocation, sandbox, reusable, used });
                }
            }
        }
        self.now = until;
    }
}

/// Declares workers and functions to an engine.
fn join(engine: &mut Engine, workers: u32) {
    let now = Time::from_nanos(1);
    for worker in (0..workers).map(WorkerId) {
        let capacity = Capacity::of_memory(u64::from(EACH) * MIB);
        engine.handle(now, Event::WorkerJoined { worker, capacity }).unwrap();
    }
    for function in 0..FUNCTIONS {
        let mut settings = FunctionSettings::new(AccountId(function % ACCOUNTS), MIB);
        (settings.cpu_milli, settings.timeout) = (10, Duration::from_secs(900));
        let function = FunctionId(function);
        engine.handle(now, Event::FunctionPut { function, revision: 0, settings }).unwrap();
    }
}

/// Returns a fleet that is full of busy sandboxes, while five times as much is wanted.
fn overloaded() -> Driver {
    let mut driver = Driver::new(WORKERS, config());
    let capacity = u64::from(WORKERS * EACH);
    // Five times the capacity, evenly, until a whole generation of invocations has ended.
    load(&mut driver, capacity, RUNS * 3 / 2);
    driver
}

/// Invokes functions in turn, five times as many as there is room for, for so long.
fn load(driver: &mut Driver, capacity: u64, time: Duration) {
    let interval = RUNS / u32::try_from(capacity * 5).unwrap();
    let until = driver.now + time;
    let mut nth = 0;
    while driver.now < until {
        driver.run_until(driver.now + interval);
        driver.invoke(nth % FUNCTIONS);
        nth = nth.wrapping_add(1);
    }
}

fn overload() {
    println!("| overload | goodput | refused | wall time |");
    println!("|---|---|---|---|");
    let began = Instant::now();
    let mut driver = overloaded();
    driver.count(0);
    let (busy, from, invoked, rejected) =
        (driver.busy_seconds, driver.now, driver.invoked, driver.rejected);
    load(&mut driver, u64::from(WORKERS * EACH), RUNS);
    driver.count(0);
    let room = f64::from(WORKERS * EACH) * driver.now.since(from).as_secs_f64();
    println!(
        "| 1,000 x 1,000 at 5 times | {:.2} % | {:.1} % | {:.0?} |",
        (driver.busy_seconds - busy) * 100.0 / room,
        (driver.rejected - rejected) as f64 * 100.0 / (driver.invoked - invoked) as f64,
        began.elapsed(),
    );
}

/// Measures refused arrivals on the full fleet and on an empty one, in turns.
fn refusal() {
    let full = full_and_waiting();
    let mut config = config();
    config.waiting_max = 0;
    let empty = Driver::new(WORKERS, config);
    let mut drivers = [full, empty];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for (driver, times) in drivers.iter_mut().zip(&mut times) {
            const CALLS: u32 = 20_000;
            let rejected = driver.rejected;
            let began = Instant::now();
            (0..CALLS).for_each(|nth| driver.invoke(nth * 7 % FUNCTIONS));
            times.push(began.elapsed().as_nanos() as f64 / f64::from(CALLS));
            assert_eq!(driver.rejected - rejected, u64::from(CALLS), "all are refused");
        }
    }
    let mut ratios: Vec<_> =
        times[0].iter().zip(&times[1]).map(|(full, empty)| full / empty).collect();
    for list in times.iter_mut().chain([&mut ratios]) {
        list.sort_by(f64::total_cmp);
    }
    println!("\n| refused arrival | full fleet ns | empty fleet ns | ratio |\n|---|---|---|---|");
    println!(
        "| median of 15 rounds | {:.0} | {:.0} | {:.2} |",
        times[0][7], times[1][7], ratios[7]
    );
}

/// Returns a fleet that is full of busy sandboxes, where as many wait as may.
fn full_and_waiting() -> Driver {
    let mut config = config();
    config.waiting_max = 20_000;
    config.wait_max = Duration::from_secs(3600);
    let mut driver = Driver::new(WORKERS, config);
    for nth in 0..WORKERS * EACH {
        driver.invoke(nth % FUNCTIONS);
        driver.run_until(driver.now + Duration::from_nanos(100));
        if nth % 1000 == 0 {
            driver.run_until(driver.now + Duration::from_millis(1));
        }
    }
    let second = driver.now + Duration::from_secs(1);
    driver.run_until(second);
    loop {
        let rejected = driver.rejected;
        (0..FUNCTIONS).for_each(|function| driver.invoke(function));
        if driver.rejected - rejected == u64::from(FUNCTIONS) {
            return driver;
        }
    }
}

fn bad() {
    println!(
        "\n| bad workers, 5 of 100, 60 minutes | refused of all | starts a bad worker a minute |"
    );
    println!("|---|---|---|");
    let (workers, minutes) = (100, 60);
    // 60 % of 100 workers of 64 GB, a third of it in bursts, so that sandboxes start all the time.
    let gb: Vec<_> =
        (0..minutes).map(|minute| if minute % 3 == 0 { 3_840 } else { 2_560 }).collect();
    let trace = workload::demand("bad workers", &[1; 10], &gb, 1);
    for kind in [Bad::BlackHole, Bad::Slow, Bad::Flapping] {
        let faults = Faults { bad_workers: 5, bad: kind, ..Faults::default() };
        let settings = Settings { workers, faults, seed: 1, ..Settings::default() };
        let mut config = Config::default();
        (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
        let engine = Engine::new(config.clone(), 1)
            .with_idle_policy(Box::new(FixedIdle(Duration::from_secs(30))));
        let run = Simulation::new(&trace, settings, engine, &config).run(&mut |_, _| ()).unwrap();
        let starts = run.started_on_bad as f64 / f64::from(run.bad_workers) / minutes as f64;
        println!("| {kind:?} | {} of {} | {starts:.2} |", run.rejected, run.invocations);
    }
}

fn fair() {
    println!("\n| demand | Jain's index of what was got over the fair share | memory used |");
    println!("|---|---|---|");
    let (workers, minutes, gb) = (20_u32, 20_usize, 64_u32);
    let weights: Vec<_> = (1..=ACCOUNTS).collect();
    for percent in [111, 150, 200, 300, 500] {
        let wanted = workers * gb * percent / 100;
        let trace = workload::demand("fairness", &weights, &vec![wanted; minutes], 1);
        let settings = Settings { workers, train_minutes: 5, seed: 1, ..Settings::default() };
        let mut config = Config::default();
        (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
        let engine = Engine::new(config.clone(), 1);
        let run = Simulation::new(&trace, settings, engine, &config).run(&mut |_, _| ()).unwrap();
        let capacity = f64::from(workers * gb);
        let all: u32 = weights.iter().sum();
        let demands: Vec<_> =
            weights.iter().map(|it| f64::from(wanted * it) / f64::from(all)).collect();
        let seconds = (run.minutes * 60) as f64;
        let got = run.account_gb_seconds.iter().map(|it| it / seconds);
        let shares: Vec<_> =
            got.zip(max_min(&demands, capacity)).map(|(got, fair)| got / fair).collect();
        let used = run.account_gb_seconds.iter().sum::<f64>() / run.capacity_gb_seconds;
        let shown: Vec<_> = shares.iter().map(|it| format!("{it:.2}")).collect();
        println!(
            "| {percent} % | {:.4} ({}) | {:.1} % |",
            jain(&shares),
            shown.join(" "),
            used * 100.0
        );
    }
}

/// Returns the max-min fair share of each demand. No share exceeds its demand, and demands that are
/// not met get equal shares.
fn max_min(demands: &[f64], capacity: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..demands.len()).collect();
    order.sort_by(|a, b| demands[*a].total_cmp(&demands[*b]));
    let (mut left, mut shares) = (capacity, vec![0.0; demands.len()]);
    for (nth, at) in order.iter().enumerate() {
        shares[*at] = demands[*at].min(left / (demands.len() - nth) as f64);
        left -= shares[*at];
    }
    shares
}

fn jain(shares: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) =
        shares.iter().fold((0.0, 0.0), |(sum, squares), it| (sum + it, squares + it * it));
    sum * sum / (shares.len() as f64 * squares)
}

fn failover() {
    let mut settings = config();
    settings.waiting_max = u32::MAX;
    let mut first = Engine::new(settings, 1);
    join(&mut first, WORKERS);
    let now = Time::from_nanos(2);
    let mut reports = vec![Vec::new(); WORKERS as usize];
    for nth in 0..WORKERS * EACH {
        let (invocation, function) = (InvocationId(u64::from(nth)), FunctionId(nth % FUNCTIONS));
        first.handle(now, Event::InvocationArrived { invocation, function }).unwrap();
        while let Some(command) = first.poll() {
            if let Command::StartSandbox { sandbox, worker, function, revision, .. } = command {
                let (invocation, vm, interface) = (None, None, None);
                let is = ReportedSandbox { sandbox, function, revision, invocation, vm, interface };
                reports[worker.0 as usize].push(is);
            }
        }
    }
    drop(first);
    let began = Instant::now();
    let mut next = Engine::restarted(config(), 2, 1);
    join(&mut next, WORKERS);
    let (mut longest, mut dispatched_after) = (Duration::ZERO, None);
    let mut warm = |engine: &mut Engine, function: FunctionId| {
        let invocation = InvocationId(1);
        engine.handle(now, Event::InvocationArrived { invocation, function }).unwrap();
        let commands: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
        if commands.iter().any(|it| matches!(it, Command::Dispatch { .. })) {
            let after = began.elapsed();
            dispatched_after.get_or_insert(after);
        }
        assert!(!commands.iter().any(|it| matches!(it, Command::StartSandbox { .. })), "warm");
    };
    for (worker, sandboxes) in (0..).map(WorkerId).zip(reports) {
        let function = sandboxes[0].function;
        let call = Instant::now();
        next.handle(now, Event::WorkerReported { worker, vms: Vec::new(), sandboxes }).unwrap();
        longest = longest.max(call.elapsed());
        if worker.0 == 0 {
            warm(&mut next, function);
        }
    }
    let all = began.elapsed();
    let adopted = next.sandboxes();
    // Everything ends in time, so that nothing is a ghost.
    let mut time = now;
    while let Some(due) = next.next_timeout().filter(|_| next.sandboxes() > 0) {
        time = time.max(due);
        next.handle_timeout(time);
        while let Some(command) = next.poll() {
            match command {
                Command::StopSandbox { sandbox, .. } | Command::TimeOut { sandbox, .. } => {
                    next.handle(time, Event::SandboxGone { sandbox }).unwrap();
                }
                Command::Reject { .. } | Command::Dispatch { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    println!(
        "\n| failover | sandboxes adopted | first warm dispatch after | all reports after | longest report | ghosts |"
    );
    println!("|---|---|---|---|---|---|");
    println!(
        "| 1,000 workers | {adopted} | {:.0?} | {all:.0?} | {longest:.2?} | {} |",
        dispatched_after.unwrap(),
        next.sandboxes(),
    );
}
