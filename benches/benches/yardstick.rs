//! Measures what each part of the placement is worth, on workers with tens of processors.
//!
//! ```text
//! cargo bench -p benches --features core --bench yardstick -- [SEEDS] [PART...] [POLICY...]
//! ```
//!
//! Measures of minutes after training: the mean over minutes of the busiest worker's load over the
//! mean load of all workers; idle memory over time and cold starts with 24 workers; and the number
//! of workers of 16 processors that are needed so that the load of 99.99 % of the workers' minutes
//! stays within the processors. For each seed (2 by default), all policies play the same
//! invocations. If policies are named, only their rows are printed. PART changes what is measured:
//!
//! - `terms`: four candidates by live load, with the sandboxes of the same function in several
//!   weights, too.
//! - `load`: without the workers needed, which take most of the time.
//! - `forecast`: only the forecast of memory, on a fleet that sizes itself: the memory that must be
//!   kept, over the highest that was needed within five minutes, so that it is too little in 1 % of
//!   the minutes.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use lambda_core::placement::terms::{BusyNow, SameFunction};
use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::sim::{Report, Settings, Simulation, Trace, workload};
use lambda_core::*;

const CPUS: f32 = 16.0;

fn main() {
    let words = ["terms", "load", "forecast"];
    let only: Vec<_> = std::env::args()
        .skip(1)
        .filter(|it| it.parse::<u64>().is_err() && !words.contains(&it.as_str()))
        .collect();
    let wanted =
        |name: &str| only.iter().all(|it| it.starts_with('-')) || only.iter().any(|it| it == name);
    let [terms, load_only, forecast] = words.map(|word| std::env::args().any(|it| it == word));
    let seeds = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(2);
    let mut traces = Vec::new();
    match recorded() {
        Some(trace) => traces.push(times(trace, 2)),
        None => println!("the recorded trace is not there: its rows are left out"),
    }
    traces.extend(workload::all(300, 240, 1).into_iter().map(|it| times(it, 2)));
    if forecast {
        return forecasts(&traces, seeds);
    }
    println!(
        "| workload | policy | busiest over mean, 8 workers | 24 workers | idle GB-seconds | cold starts | workers needed |"
    );
    println!("|---|---|---|---|---|---|---|");
    for trace in &traces {
        let played = if terms { with_terms() } else { policies() };
        for policy in played.iter().filter(|policy| wanted(policy.0)) {
            row(trace, policy, seeds, load_only);
        }
        if wanted("clairvoyant") {
            clairvoyant(trace, seeds);
        }
    }
}

/// A name, a placement and a routing.
type Policy = (&'static str, fn() -> Box<dyn Placement>, Routing);

fn policies() -> Vec<Policy> {
    let mru = Routing::MostRecentlyUsed;
    vec![
        ("two by memory", || Box::new(baselines::PowerOfTwo), mru),
        ("two by live load", || Box::new(baselines::PowerOfTwoByLoad), mru),
        ("four by live load", || Box::new(live(4)), mru),
        ("ours", || Box::new(ours()), mru),
        ("ours, cool worker", || Box::new(ours()), Routing::CoolWorker),
    ]
}

/// The default placement without its gate: with it, fleets that are too small refuse most
/// invocations.
fn ours() -> Scored {
    live(4).with_term(0.4, SameFunction)
}

fn live(candidates: usize) -> Scored {
    Scored::new("live", candidates).with_term(1.0, BusyNow)
}

/// Live load with the other term of the default placement, in several weights.
fn with_terms() -> Vec<Policy> {
    let mru = Routing::MostRecentlyUsed;
    vec![
        ("live load", || Box::new(live(4)), mru),
        ("and 0.2 same function", || Box::new(live(4).with_term(0.2, SameFunction)), mru),
        ("and 0.4 same function", || Box::new(ours()), mru),
    ]
}

/// Prints the row of a clairvoyant that places the sandboxes of "ours" anew in each minute, by what
/// they will run in it: the largest first, each on the worker with the least.
fn clairvoyant(trace: &Trace, seeds: u64) {
    let policy: Policy = ("clairvoyant", || Box::new(ours()), Routing::MostRecentlyUsed);
    let at = |workers: u32| {
        let of = |seed| {
            let run = play(trace, &policy, workers, seed);
            let placed = |minute: &Vec<f32>| evenly(minute, workers);
            let load: Vec<_> = run.shape.unwrap().sandbox_load.iter().map(placed).collect();
            busiest(&load)
        };
        (0..seeds).map(of).sum::<f64>() / seeds as f64
    };
    println!("| {} | {} | {:.3} | {:.3} | | | |", trace.name, policy.0, at(8), at(24));
}

fn evenly(sandboxes: &[f32], workers: u32) -> Vec<f32> {
    let mut sandboxes = sandboxes.to_vec();
    sandboxes.sort_by(|a, b| b.total_cmp(a));
    let mut load = vec![0.0_f32; workers as usize];
    for sandbox in sandboxes {
        if let Some(least) = load.iter_mut().min_by(|a, b| a.total_cmp(b)) {
            *least += sandbox;
        }
    }
    load
}

fn row(trace: &Trace, policy: &Policy, seeds: u64, load_only: bool) {
    let at = |workers: u32| {
        let runs = (0..seeds).map(|seed| play(trace, policy, workers, seed));
        let of =
            |run: Report| [busiest(&run.shape.unwrap().load), run.idle_gb_seconds, run.cold as f64];
        let sum = |sum: [f64; 3], of: [f64; 3]| [0, 1, 2].map(|at| sum[at] + of[at]);
        runs.map(of).fold([0.0; 3], sum).map(|sum| sum / seeds as f64)
    };
    let ([small, ..], [large, idle, cold]) = (at(8), at(24));
    let needed = if load_only { String::new() } else { needed(trace, policy, seeds).to_string() };
    println!(
        "| {} | {} | {small:.3} | {large:.3} | {idle:.0} | {cold:.0} | {needed} |",
        trace.name, policy.0
    );
}

fn play(trace: &Trace, policy: &Policy, workers: u32, seed: u64) -> Report {
    let mut config = Config::default();
    (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
    config.routing = policy.2;
    let engine = Engine::new(config.clone(), seed).with_placement((policy.1)());
    let mut capacity = Capacity::of_memory(1 << 40);
    capacity.cpu_milli = 16_000;
    let train_minutes = trace.minutes / 2;
    let settings =
        Settings { workers, seed, capacity, train_minutes, shape: true, ..Settings::default() };
    Simulation::new(trace, settings, engine, &config).run(&mut |_, _| ()).unwrap()
}

/// Prints what must be kept if the present need is multiplied by a margin, and if the forecast is.
fn forecasts(traces: &[Trace], seeds: u64) {
    println!("| workload | seed | as now: margin, kept over needed | forecast |");
    println!("|---|---|---|---|");
    for trace in traces {
        for seed in 0..seeds {
            let mut config = Config::default();
            (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
            config.fleet = Some(FleetSizing::default());
            let train_minutes = trace.minutes / 2;
            let workers = 24;
            let settings =
                Settings { workers, seed, train_minutes, shape: true, ..Settings::default() };
            let engine = Engine::new(config.clone(), seed);
            let simulation = Simulation::new(trace, settings, engine, &config);
            let memory = simulation.run(&mut |_, _| ()).unwrap().shape.unwrap().memory;
            let needed: Vec<_> = memory
                .windows(6)
                .map(|minutes| minutes[1..].iter().map(|it| it[0]).fold(0.0, f32::max))
                .collect();
            let kept = [0, 1].map(|which| {
                let mut margins: Vec<_> = (memory.iter().zip(&needed))
                    .map(|(minute, needed)| needed / minute[which].max(f32::MIN_POSITIVE))
                    .collect();
                margins.sort_by(f32::total_cmp);
                let margin = margins[margins.len() * 99 / 100];
                let all: f32 = memory.iter().zip(&needed).map(|(it, _)| it[which]).sum();
                format!("{margin:.2}, {:.3}", margin * all / needed.iter().sum::<f32>())
            });
            println!("| {} | {seed} | {} | {} |", trace.name, kept[0], kept[1]);
        }
    }
}

/// Returns the mean over minutes of the busiest worker's load over the mean load.
fn busiest(load: &[Vec<f32>]) -> f64 {
    let of = |minute: &Vec<f32>| {
        let mean = minute.iter().sum::<f32>() / minute.len() as f32;
        f64::from(minute.iter().copied().fold(0.0, f32::max) / mean.max(f32::MIN_POSITIVE))
    };
    load.iter().map(of).sum::<f64>() / load.len() as f64
}

/// Returns the least number of workers with which 99.99 % of their minutes stay within their
/// processors.
fn needed(trace: &Trace, policy: &Policy, seeds: u64) -> u32 {
    let holds = |workers: u32| {
        let (mut all, mut over) = (0, 0);
        for seed in 0..seeds {
            let run = play(trace, policy, workers, seed);
            for minute in &run.shape.as_ref().unwrap().load {
                all += minute.len();
                over += minute.iter().filter(|load| **load > CPUS).count();
            }
        }
        over * 10_000 <= all
    };
    let (mut low, mut high) = (1, 96);
    while low < high {
        let middle = u32::midpoint(low, high);
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

fn recorded() -> Option<Trace> {
    let folder = test_support::traces_dir().join("azure2019-500");
    folder.is_dir().then_some(())?;
    let read = |part: &str| std::fs::read_to_string(folder.join(format!("{part}.csv"))).unwrap();
    let (invocations, durations, memory) = (read("invocations"), read("durations"), read("memory"));
    Some(Trace::parse("azure2019-500", &invocations, &durations, &memory).unwrap())
}

/// Returns a trace with `by` times the invocations.
fn times(mut trace: Trace, by: u32) -> Trace {
    let functions = &mut trace.functions;
    functions.iter_mut().flat_map(|it| &mut it.counts).for_each(|count| *count *= by);
    trace
}
