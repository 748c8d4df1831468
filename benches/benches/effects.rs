//! Measures the effects of recycling, VMs, networks, provisioned concurrency and adoption, on
//! generated workloads in the simulator.
//!
//! ```text
//! cargo bench -p benches --features core --bench effects [-- SEEDS]
//! ```
//!
//! Each figure is the mean over the seeds (4 by default), with the standard deviation in brackets.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::Duration;

use lambda_core::sim::{Report, Settings, Simulation, Trace, workload};
use lambda_core::*;

fn main() {
    let seeds = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(4);
    recycling(seeds);
    vms(seeds);
    networks(seeds);
    provisioned(seeds);
    adoption(seeds);
}

fn config() -> Config {
    let mut config = Config::default();
    config.account_concurrency_max = u32::MAX;
    config.account_unreserved_min = 0;
    config.scaling_starts_max = u32::MAX;
    config
}

type Column = (&'static str, fn(&Report) -> f64, usize);

const COLD: Column = ("cold %", |run| run.cold as f64 * 100.0 / run.invocations as f64, 2);
const WAIT_P50: Column = ("half of them wait, s", |run| run.wait_p50_seconds, 2);
const WAIT_P99: Column = ("99 % wait, s", |run| run.wait_p99_seconds, 2);
const LOST: Column = ("lost", |run| run.lost as f64, 1);
const REFUSED: Column = ("refused", |run| run.rejected as f64, 1);
const IDLE: Column = ("idle GB-s", |run| run.idle_gb_seconds, 0);
const INVOCATIONS: Column = ("invocations", |run| run.invocations as f64, 0);

fn table(title: &str, columns: &[Column], rows: &[(&str, Vec<Report>)]) {
    println!("\n{title}\n");
    let heads: String = columns.iter().map(|(head, ..)| format!(" {head} |")).collect();
    println!("| |{heads}\n|---|{}", "---|".repeat(columns.len()));
    for (name, runs) in rows {
        let cell = |(_, figure, digits): &Column| {
            let count = runs.len() as f64;
            let mean = runs.iter().map(figure).sum::<f64>() / count;
            let square = |run: &Report| (figure(run) - mean) * (figure(run) - mean);
            let squares = runs.iter().map(square).sum::<f64>();
            let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
            format!(" {mean:.digits$} ({deviation:.digits$}) |")
        };
        println!("| {name} |{}", columns.iter().map(cell).collect::<String>());
    }
}

fn play(trace: &Trace, config: &Config, settings: &Settings, seed: u64) -> Report {
    simulation(trace, config, settings, seed).run(&mut |_, _| ()).unwrap()
}

fn simulation<'a>(
    trace: &'a Trace,
    config: &Config,
    settings: &Settings,
    seed: u64,
) -> Simulation<'a> {
    let engine = Engine::new(config.clone(), seed);
    Simulation::new(trace, Settings { seed, ..settings.clone() }, engine, config)
}

/// Recycling of workers: each ends at its own time within the window, after its replacement has
/// joined.
fn recycling(seeds: u64) {
    let columns: [Column; 7] = [
        INVOCATIONS,
        ("workers joined", |run| run.workers_joined as f64, 1),
        ("given back", |run| run.workers_retired as f64, 1),
        ("fewest serving", |run| f64::from(run.workers_min), 1),
        LOST,
        REFUSED,
        COLD,
    ];
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let day = workload::flat(60, 1440, 1);
    let short = workload::flat(300, 300, 1);
    let capacity = Capacity::of_memory(64 << 30);
    let window = |life_min, life_max| {
        Some(Recycling { life_min, life_max, drain_max: minutes(1), ..Recycling::default() })
    };
    let rows = [
        ("20 workers, 5 h, none", &short, 20, None),
        ("20 workers, 5 h, life of 60 to 75 min", &short, 20, window(minutes(60), minutes(75))),
        ("6 workers, 24 h, none", &day, 6, None),
        ("6 workers, 24 h, life of 8 to 10 h", &day, 6, window(minutes(480), minutes(600))),
    ];
    let rows = rows.map(|(name, trace, workers, recycling)| {
        let mut config = config();
        config.recycling = recycling;
        let settings = Settings { workers, capacity, train_minutes: 30, ..Settings::default() };
        let runs = (0..seeds).map(|seed| play(trace, &config, &settings, seed)).collect();
        (name, runs)
    });
    table("Recycling of workers", &columns, &rows);
}

/// VMs of one customer and VMs of one sandbox, without and with pools of started ones.
fn vms(seeds: u64) {
    let columns: [Column; 6] = [
        INVOCATIONS,
        ("VMs started", |run| run.vms_started as f64, 0),
        COLD,
        WAIT_P50,
        WAIT_P99,
        IDLE,
    ];
    let trace = workload::full_hour(300, 240, 1);
    let rows = [
        ("no VMs", Isolation::Sandbox, false, 60),
        ("one customer's each, kept 60 s when empty", Isolation::VmPerAccount, false, 60),
        ("one customer's each, kept 600 s when empty", Isolation::VmPerAccount, false, 600),
        ("one sandbox's each", Isolation::VmPerSandbox, false, 60),
        ("one sandbox's each, pools by Little's law", Isolation::VmPerSandbox, true, 60),
    ];
    let rows = rows.map(|(name, isolation, pooled, linger)| {
        let mut config = config();
        config.vm.linger = Duration::from_secs(linger);
        if pooled {
            config.vm.pool_sizes_bytes = (7..11).map(|log| 1 << (20 + log)).collect();
        }
        let capacity = Capacity { isolation, ..Capacity::of_memory(64 << 30) };
        let settings = Settings { capacity, train_minutes: 120, ..Settings::default() };
        let runs = (0..seeds).map(|seed| play(&trace, &config, &settings, seed)).collect();
        (name, runs)
    });
    table("VMs (a start takes 0.10 to 0.15 s, a sandbox's 0.1 to 0.4 s)", &columns, &rows);
}

/// Network interfaces: shared and made in advance, shared and made at the first call, and one for
/// each sandbox.
fn networks(seeds: u64) {
    let columns: [Column; 6] = [
        INVOCATIONS,
        ("interfaces made", |run| run.interfaces_started as f64, 0),
        COLD,
        WAIT_P50,
        WAIT_P99,
        REFUSED,
    ];
    // No function is called in the first ten minutes.
    let mut trace = workload::flat(200, 60, 1);
    for function in &mut trace.functions {
        function.counts[..10].fill(0);
    }
    let owners = trace.functions.iter().map(|it| it.owner).max().unwrap() + 1;
    let first_call = Time::from_nanos(600_000_000_000);
    let rows = [
        ("no network", None, 1000),
        ("shared, made beforehand", Some(Time::ZERO), 1000),
        ("shared, made when first called", Some(first_call), 1000),
        ("one for each sandbox, when it is wanted", Some(first_call), 1),
    ];
    let rows = rows.map(|(name, put, sandboxes_max)| {
        let mut config = config();
        config.interface.sandboxes_max = sandboxes_max;
        let network = |owner: u32| {
            let settings =
                NetworkSettings { account: AccountId(owner), subnets: vec![(Zone(0), 4000)] };
            Event::NetworkPut { network: NetworkId(owner), settings }
        };
        let events =
            put.map_or_else(Vec::new, |at| (0..owners).map(|it| (at, network(it))).collect());
        let settings = Settings { events, train_minutes: 10, ..Settings::default() };
        let run = |seed| {
            let simulation = simulation(&trace, &config, &settings, seed);
            let simulation = simulation.with_functions(|_, settings| {
                settings.network = put.map(|_| NetworkId(settings.account.0));
            });
            simulation.run(&mut |_, _| ()).unwrap()
        };
        (name, (0..seeds).map(run).collect())
    });
    table("Network interfaces (one takes 10 to 20 s to be made)", &columns, &rows);
}

/// Provisioned concurrency: sandboxes that stay ready, used or not.
fn provisioned(seeds: u64) {
    let columns: [Column; 6] =
        [INVOCATIONS, COLD, WAIT_P50, WAIT_P99, ("sandboxes", |run| run.sandboxes_mean, 0), IDLE];
    let trace = workload::seasons(100, 240, 1);
    let rows = ["none", "1 of each function", "4 of each function", "16 of each function"];
    let counts = [0, 1, 4, 16];
    let settings = Settings { train_minutes: 120, ..Settings::default() };
    let rows: Vec<_> = (rows.into_iter().zip(counts))
        .map(|(name, count)| {
            let config = config();
            let run = |seed| {
                let simulation = simulation(&trace, &config, &settings, seed);
                let simulation = simulation.with_functions(|_, settings| {
                    settings.provisioned_concurrency = count;
                });
                simulation.run(&mut |_, _| ()).unwrap()
            };
            (name, (0..seeds).map(run).collect())
        })
        .collect();
    table("Provisioned concurrency", &columns, &rows);
}

/// Adoption: the engine is lost in the middle of a run. Its successor either adopts the sandboxes
/// that workers report, or starts without them.
fn adoption(seeds: u64) {
    let columns: [Column; 6] = [INVOCATIONS, LOST, REFUSED, COLD, WAIT_P50, WAIT_P99];
    let trace = workload::flat(300, 140, 1);
    let settings = Settings { train_minutes: 120, ..Settings::default() };
    let at = Time::from_nanos((120 * 60 + 30) * 1_000_000_000);
    let rows = [
        ("no loss", None),
        ("workers report, all is adopted", Some(true)),
        ("all is begun anew", Some(false)),
    ];
    let rows = rows.map(|(name, adopts)| {
        let config = config();
        let run = |seed| {
            let mut simulation = simulation(&trace, &config, &settings, seed);
            if let Some(adopts) = adopts {
                let successor = Engine::restarted(config.clone(), seed, 1);
                simulation = simulation.with_successor(at, successor, adopts);
            }
            simulation.run(&mut |_, _| ()).unwrap()
        };
        (name, (0..seeds).map(run).collect())
    });
    table("The engine is lost half a minute into the measured 20 minutes", &columns, &rows);
}
