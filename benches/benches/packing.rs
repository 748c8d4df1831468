//! How well sandboxes are packed, on the recorded trace and on made ones: every baseline beside ours.
//!
//! ```text
//! cargo bench -p benches --features core --bench packing [-- SEEDS]
//! ```
//!
//! Load is a worker's in a minute over the mean of all workers and minutes; the bound is every minute's load spread
//! evenly. Each policy plays the same invocations, seed for seed; the first half of each trace is training. Means ± standard
//! deviations over the seeds. Then how invocations are routed, and how long idle sandboxes are kept.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::Duration;

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::sim::{Report, Settings, Simulation, Trace, workload};
use lambda_core::*;

fn main() {
    let seeds = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(8);
    let mut traces = workload::all(300, 240, 1);
    match recorded() {
        Some(trace) => traces.insert(0, trace),
        None => println!("the recorded trace is not there: its rows are left out"),
    }
    for trace in &traces {
        for workers in [20, 60] {
            packing(trace, workers, seeds);
        }
    }
    if let Some(trace) = traces.first() {
        routing(trace, seeds.min(3));
        idle(trace, seeds.min(3));
    }
}

fn recorded() -> Option<Trace> {
    let folder = test_support::traces_dir().join("azure2019-500");
    folder.is_dir().then_some(())?;
    let read = |part: &str| std::fs::read_to_string(folder.join(format!("{part}.csv"))).unwrap();
    let (invocations, durations, memory) = (read("invocations"), read("durations"), read("memory"));
    Some(Trace::parse("azure2019-500", &invocations, &durations, &memory).unwrap())
}

fn play(
    trace: &Trace,
    workers: u32,
    seed: u64,
    routing: Routing,
    placement: Box<dyn Placement>,
    idle: Box<dyn IdlePolicy>,
) -> Report {
    let mut config = Config::default();
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = u32::MAX;
    config.routing = routing;
    let engine = Engine::new(config.clone(), seed).with_placement(placement).with_idle_policy(idle);
    let train_minutes = trace.minutes / 2;
    let settings = Settings { workers, train_minutes, seed, ..Settings::default() };
    Simulation::new(trace, settings, engine, &config).run(&mut |_, _| ()).unwrap()
}

fn packing(trace: &Trace, workers: u32, seeds: u64) {
    println!("\n{}, {workers} workers, {seeds} seeds\n", trace.name);
    println!(
        "| policy | load p99.9 | peak | gap closed from power of two | spread |\n|---|---|---|---|---|"
    );
    let make: Vec<fn() -> Box<dyn Placement>> = vec![
        || Box::new(baselines::PowerOfTwo),
        || Box::new(baselines::AtRandom),
        || Box::new(baselines::RoundRobin),
        || Box::new(baselines::LeastLoaded),
        || Box::new(baselines::HomeWorker),
        || Box::new(baselines::BestFit),
        || Box::new(baselines::LeastAllocated),
        || Box::new(Scored::default()),
    ];
    let mut of_two = 0.0;
    for make in make {
        let play = |seed| {
            play(trace, workers, seed, Routing::default(), make(), Box::new(FixedIdle::default()))
        };
        let runs: Vec<_> = (0..seeds).map(play).collect();
        let (p999, p999_deviation) = mean(&runs, |run| run.load_p999);
        let (peak, peak_deviation) = mean(&runs, |run| run.load_peak);
        let bound = mean(&runs, |run| run.bound_p999).0;
        let name = &runs[0].policy;
        if name == "power-of-two" {
            of_two = p999;
            let bound_peak = mean(&runs, |run| run.bound_peak).0;
            println!("| lower bound | {bound:.2} | {bound_peak:.2} | | |");
        }
        println!(
            "| {name} | {p999:.2} ± {p999_deviation:.2} | {peak:.2} ± {peak_deviation:.2} | {:.0} % | {:.2} |",
            (of_two - p999) / (of_two - bound) * 100.0,
            mean(&runs, |run| run.spread).0,
        );
    }
}

fn routing(trace: &Trace, seeds: u64) {
    println!("\n{}: which idle sandbox takes an invocation\n", trace.name);
    println!("| routing | sandboxes alive | idle GB-s | cold % |\n|---|---|---|---|");
    for (name, routing) in [
        ("most recently used", Routing::MostRecentlyUsed),
        ("round robin", Routing::RoundRobin),
        ("least recently used", Routing::LeastRecentlyUsed),
    ] {
        let play = |seed| {
            let idle = Box::new(FixedIdle::default());
            play(trace, 20, seed, routing, Box::new(Scored::default()), idle)
        };
        row(name, &(0..seeds).map(play).collect::<Vec<_>>());
    }
}

fn idle(trace: &Trace, seeds: u64) {
    println!("\n{}: how long idle sandboxes are kept\n", trace.name);
    println!("| idle policy | sandboxes alive | idle GB-s | cold % |\n|---|---|---|---|");
    let make: Vec<fn() -> Box<dyn IdlePolicy>> = vec![
        || Box::new(FixedIdle(Duration::from_secs(60))),
        || Box::new(FixedIdle(Duration::from_secs(300))),
        || Box::new(FixedIdle(Duration::from_secs(600))),
        || Box::new(FixedIdle(Duration::from_secs(1200))),
        || Box::new(HistogramIdle::default()),
        || Box::new(GreedyDual::default()),
    ];
    for make in make {
        let play = |seed| {
            let placement = Box::new(Scored::default());
            play(trace, 20, seed, Routing::default(), placement, make())
        };
        row(&make().name(), &(0..seeds).map(play).collect::<Vec<_>>());
    }
}

fn row(name: &str, runs: &[Report]) {
    let cold = |run: &Report| run.cold as f64 * 100.0 / run.invocations as f64;
    println!(
        "| {name} | {:.0} | {:.0} | {:.3} |",
        mean(runs, |run| run.sandboxes_mean).0,
        mean(runs, |run| run.idle_gb_seconds).0,
        mean(runs, cold).0
    );
}

fn mean(runs: &[Report], figure: impl Fn(&Report) -> f64) -> (f64, f64) {
    let count = runs.len() as f64;
    let mean = runs.iter().map(&figure).sum::<f64>() / count;
    let squares = runs.iter().map(|run| (figure(run) - mean) * (figure(run) - mean)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
