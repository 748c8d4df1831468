//! Measures how well sandboxes are packed on workers, by our placement and by every baseline, on
//! the recorded trace and on generated workloads.
//!
//! ```text
//! cargo bench -p benches --features core --bench packing [-- SEEDS [candidates]]
//! ```
//!
//! Load is a worker's load in a minute over the mean of all workers and minutes. The lower bound
//! divides every minute's load evenly. For each seed, all policies play the same invocations. The
//! first half of each trace is training and not measured. Figures are means ± standard deviations
//! over the seeds (8 by default).
//!
//! Further tables show correlated spikes, the choice among idle sandboxes, and how long idle
//! sandboxes are kept. With `candidates`, the bench plays our placement alone with several numbers
//! of candidates, beside power of two choices and round robin.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::sim::{Report, Settings, Simulation, Trace, Trigger, workload};
use lambda_core::*;

fn main() {
    let seeds = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(8);
    let mut traces = workload::all(300, 240, 1);
    match recorded() {
        Some(trace) => traces.insert(0, trace),
        None => println!("the recorded trace is not there: its rows are left out"),
    }
    if std::env::args().any(|it| it == "candidates") {
        println!(
            "| workload | workers | candidates | load p99.9 | peak | gap closed from power of two | less round robin |"
        );
        println!("|---|---|---|---|---|---|---|");
        for trace in &traces {
            [20, 60].iter().for_each(|workers| candidates(trace, *workers, seeds));
        }
        return;
    }
    for trace in &traces {
        for workers in [20, 60] {
            packing(trace, workers, seeds);
        }
    }
    for trace in &traces {
        spike(trace, seeds);
    }
    if let Some(trace) = traces.first() {
        routing(trace, seeds.min(4));
        idle(trace, seeds.min(4));
    }
}

fn recorded() -> Option<Trace> {
    let folder = test_support::traces_dir().join("azure2019-500");
    folder.is_dir().then_some(())?;
    let read = |part: &str| std::fs::read_to_string(folder.join(format!("{part}.csv"))).unwrap();
    let (invocations, durations, memory) = (read("invocations"), read("durations"), read("memory"));
    Some(Trace::parse("azure2019-500", &invocations, &durations, &memory).unwrap())
}

/// A placement policy, an idle policy and a routing. Both policies are made anew for each run.
#[derive(Clone, Copy)]
struct Policy {
    placement: fn() -> Box<dyn Placement>,
    idle: fn() -> Box<dyn IdlePolicy>,
    routing: Routing,
}

impl Policy {
    fn of(placement: fn() -> Box<dyn Placement>) -> Self {
        let routing = Routing::default();
        Self { placement, idle: || Box::new(FixedIdle::default()), routing }
    }

    fn play(self, trace: &Trace, seed: u64, settings: &Settings) -> Report {
        let mut config = Config::default();
        config.account_concurrency_max = u32::MAX;
        config.scaling_starts_max = u32::MAX;
        config.routing = self.routing;
        let engine = Engine::new(config.clone(), seed)
            .with_placement((self.placement)())
            .with_idle_policy((self.idle)());
        let train_minutes = trace.minutes / 2;
        let settings = Settings { train_minutes, seed, ..settings.clone() };
        Simulation::new(trace, settings, engine, &config).run(&mut |_, _| ()).unwrap()
    }
}

/// Plays every policy with every seed, on two threads. Returns the reports of each policy, ordered
/// by seed.
fn play_all(
    trace: &Trace,
    policies: &[Policy],
    seeds: u64,
    settings: &Settings,
) -> Vec<Vec<Report>> {
    let jobs: Vec<_> = (policies.iter().enumerate())
        .flat_map(|(at, policy)| (0..seeds).map(move |seed| (at, *policy, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while let Some((at, policy, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let report = policy.play(trace, *seed, settings);
                    done.lock().unwrap().push((*at, *seed, report));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, seed, _)| (*at, *seed));
    let of = |at: usize| done.iter().filter(move |it| it.0 == at).map(|it| it.2.clone()).collect();
    (0..policies.len()).map(of).collect()
}

fn placements() -> Vec<Policy> {
    let make: [fn() -> Box<dyn Placement>; 8] = [
        || Box::new(baselines::PowerOfTwo),
        || Box::new(baselines::AtRandom),
        || Box::new(baselines::RoundRobin),
        || Box::new(baselines::LeastLoaded),
        || Box::new(baselines::HomeWorker),
        || Box::new(baselines::BestFit),
        || Box::new(baselines::LeastAllocated),
        || Box::new(Scored::default()),
    ];
    make.map(Policy::of).to_vec()
}

fn packing(trace: &Trace, workers: u32, seeds: u64) {
    println!("\n{}, {workers} workers, {seeds} seeds\n", trace.name);
    println!(
        "| policy | load p99.9 | peak | gap closed from power of two | spread |\n|---|---|---|---|---|"
    );
    let settings = Settings { workers, ..Settings::default() };
    let all = play_all(trace, &placements(), seeds, &settings);
    let of_two = mean(&all[0], |run| run.load_p999).0;
    let bound = mean(&all[0], |run| run.bound_p999).0;
    println!("| lower bound | {bound:.2} | {:.2} | | |", mean(&all[0], |run| run.bound_peak).0);
    for runs in &all {
        let (p999, p999_deviation) = mean(runs, |run| run.load_p999);
        let (peak, peak_deviation) = mean(runs, |run| run.load_peak);
        println!(
            "| {} | {p999:.2} ± {p999_deviation:.2} | {peak:.2} ± {peak_deviation:.2} | {:.0} % | {:.2} |",
            runs[0].policy,
            (of_two - p999) / (of_two - bound) * 100.0,
            mean(runs, |run| run.spread).0,
        );
    }
    let ours = &all[all.len() - 1];
    let best = (all[..all.len() - 1].iter())
        .min_by(|a, b| mean(a, |run| run.load_p999).0.total_cmp(&mean(b, |run| run.load_p999).0))
        .unwrap();
    let less = less(ours, best);
    println!(
        "\nOurs less the best baseline, {}, seed by seed: {less} (standard error).",
        best[0].policy
    );
}

/// Returns the mean difference in p99.9 between two policies and its standard error. Reports are
/// paired by seed, so both have played the same invocations.
fn less(ours: &[Report], other: &[Report]) -> String {
    let differences: Vec<f64> =
        ours.iter().zip(other).map(|(our, its)| our.load_p999 - its.load_p999).collect();
    let count = differences.len() as f64;
    let average = differences.iter().sum::<f64>() / count;
    let squares = differences.iter().map(|it| (it - average) * (it - average)).sum::<f64>();
    let error = (squares / (count - 1.0).max(1.0) / count).sqrt();
    format!("{average:+.3} ± {error:.3}")
}

/// Prints our placement with several numbers of candidates.
fn candidates(trace: &Trace, workers: u32, seeds: u64) {
    let make: [fn() -> Box<dyn Placement>; 8] = [
        || Box::new(baselines::PowerOfTwo),
        || Box::new(baselines::RoundRobin),
        || Box::new(Scored::default().with_candidates(3)),
        || Box::new(Scored::default().with_candidates(4)),
        || Box::new(Scored::default().with_candidates(5)),
        || Box::new(Scored::default().with_candidates(6)),
        || Box::new(Scored::default().with_candidates(8)),
        || Box::new(Scored::default().with_candidates(12)),
    ];
    let settings = Settings { workers, ..Settings::default() };
    let all = play_all(trace, &make.map(Policy::of), seeds, &settings);
    let of_two = mean(&all[0], |run| run.load_p999).0;
    let bound = mean(&all[0], |run| run.bound_p999).0;
    for (candidates, runs) in [3, 4, 5, 6, 8, 12].iter().zip(&all[2..]) {
        let (p999, deviation) = mean(runs, |run| run.load_p999);
        let (peak, peak_deviation) = mean(runs, |run| run.load_peak);
        let closed = (of_two - p999) / (of_two - bound) * 100.0;
        let less = less(runs, &all[1]);
        println!(
            "| {} | {workers} | {candidates} | {p999:.2} ± {deviation:.2} | {peak:.2} ± {peak_deviation:.2} | {closed:.0} % | {less} |",
            trace.name
        );
    }
}

/// Prints the load in the minutes of a spike: when most timers fire, or when one customer's load
/// surges.
fn spike(trace: &Trace, seeds: u64) {
    let train = trace.minutes / 2;
    let (what, minutes): (_, Vec<usize>) = match trace.name.as_str() {
        "full hour" | "azure2019-500" => {
            // Counts the timer functions that are called in a minute. The spike is the minute of
            // the hour with the largest sum.
            let active = |minute: usize| {
                let timers = trace.functions.iter().filter(|it| it.trigger == Trigger::Timer);
                timers.filter(|it| it.counts[minute] > 0).count()
            };
            let of = |first: &usize| (*first..trace.minutes).step_by(60).map(active).sum::<usize>();
            let first = (0..60).max_by_key(of).unwrap();
            let minutes = (first..trace.minutes).step_by(60).filter(|it| *it >= train);
            ("the minutes of the hour in which most timers fire", minutes.collect())
        }
        "one customer times 50" => {
            let from = (trace.minutes * 2 / 3).max(train);
            ("the first ten minutes of the surge", (from..from + 10).collect())
        }
        _ => return,
    };
    println!("\n{}: {what}, 20 workers, {seeds} seeds\n", trace.name);
    println!(
        "| policy | busiest worker over its minute's mean | highest | cold starts a minute |\n|---|---|---|---|"
    );
    let settings = Settings { shape: true, ..Settings::default() };
    for runs in play_all(trace, &placements(), seeds, &settings) {
        let over = |run: &Report, minute: usize| {
            let load = &run.shape.as_ref().unwrap().load[minute - train];
            let sum = load.iter().map(|it| f64::from(*it)).sum::<f64>();
            let most = load.iter().copied().fold(0.0, f32::max);
            f64::from(most) * load.len() as f64 / sum.max(f64::MIN_POSITIVE)
        };
        let all = |run: &Report| minutes.iter().map(|at| over(run, *at)).collect::<Vec<_>>();
        let average = |run: &Report| all(run).iter().sum::<f64>() / minutes.len() as f64;
        let highest = |run: &Report| all(run).into_iter().fold(0.0, f64::max);
        let cold = |run: &Report| {
            let cold = &run.shape.as_ref().unwrap().cold;
            minutes.iter().map(|at| f64::from(cold[at - train])).sum::<f64>() / minutes.len() as f64
        };
        let ((busiest, deviation), (high, high_deviation)) =
            (mean(&runs, average), mean(&runs, highest));
        println!(
            "| {} | {busiest:.2} ± {deviation:.2} | {high:.2} ± {high_deviation:.2} | {:.1} |",
            runs[0].policy,
            mean(&runs, cold).0
        );
    }
}

fn routing(trace: &Trace, seeds: u64) {
    println!("\n{}: which idle sandbox takes an invocation\n", trace.name);
    println!("{IDLE_HEAD}");
    let ours = Policy::of(|| Box::new(Scored::default()));
    let names = ["most recently used", "round robin", "least recently used"];
    let routings = [Routing::MostRecentlyUsed, Routing::RoundRobin, Routing::LeastRecentlyUsed];
    let policies = routings.map(|routing| Policy { routing, ..ours });
    let all = play_all(trace, &policies, seeds, &Settings::default());
    names.iter().zip(&all).for_each(|(name, runs)| row(name, runs));
}

/// Prints the effects of idle policies, on workers with room for all sandboxes and on workers
/// without.
fn idle(trace: &Trace, seeds: u64) {
    let make: [fn() -> Box<dyn IdlePolicy>; 9] = [
        || Box::new(FixedIdle(Duration::from_secs(60))),
        || Box::new(FixedIdle(Duration::from_secs(120))),
        || Box::new(FixedIdle(Duration::from_secs(300))),
        || Box::new(FixedIdle(Duration::from_secs(600))),
        || Box::new(FixedIdle(Duration::from_secs(1200))),
        || Box::new(FixedIdle(Duration::from_secs(3600))),
        || Box::new(HistogramIdle::default()),
        || {
            Box::new(HistogramIdle {
                keep_min: Duration::from_secs(300),
                ..HistogramIdle::default()
            })
        },
        || Box::new(GreedyDual::default()),
    ];
    let names = make.map(|make| make().name());
    let ours = Policy::of(|| Box::new(Scored::default()));
    let policies = make.map(|idle| Policy { idle, ..ours });
    for (room, memory_bytes) in [("64 GiB a worker", 64 << 30), ("3 GiB a worker", 3_u64 << 30)] {
        println!("\n{}: how long idle sandboxes are kept, {room}\n", trace.name);
        println!("{IDLE_HEAD}");
        let capacity = Capacity::of_memory(memory_bytes);
        let all = play_all(trace, &policies, seeds, &Settings { capacity, ..Settings::default() });
        for (at, (name, runs)) in names.iter().zip(&all).enumerate() {
            let name = if at == 7 { "histogram, 300 s at least" } else { name };
            row(name, runs);
        }
    }
}

const IDLE_HEAD: &str =
    "| | sandboxes alive | idle GB-s | cold % | refused % |\n|---|---|---|---|---|";

fn row(name: &str, runs: &[Report]) {
    let of_all = |count: u64, run: &Report| count as f64 * 100.0 / run.invocations as f64;
    println!(
        "| {name} | {:.0} | {:.0} | {:.3} | {:.3} |",
        mean(runs, |run| run.sandboxes_mean).0,
        mean(runs, |run| run.idle_gb_seconds).0,
        mean(runs, |run| of_all(run.cold, run)).0,
        mean(runs, |run| of_all(run.rejected, run)).0,
    );
}

fn mean(runs: &[Report], figure: impl Fn(&Report) -> f64) -> (f64, f64) {
    let count = runs.len() as f64;
    let mean = runs.iter().map(&figure).sum::<f64>() / count;
    let squares = runs.iter().map(|run| (figure(run) - mean) * (figure(run) - mean)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
