//! Replays a trace of invocations with several placement policies, in virtual time, and compares
//! them.
//!
//! `cargo run --release -p simulate -- --trace DIR --workers 20 --seeds 8 --report report.html`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod options;
mod page;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use lambda_core::sim::{Faults, Report, Settings, Simulation, Trace};
use lambda_core::{Capacity, Config, Engine};

use crate::options::{Options, Source, USAGE};
use crate::table::Row;

fn main() -> ExitCode {
    match Options::read(std::env::args().skip(1)) {
        Ok(None) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("simulate: {error}");
    ExitCode::FAILURE
}

fn run(options: &Options) -> Result<(), String> {
    let trace = match &options.source {
        Source::Folder(folder) => read_trace(folder)?,
        Source::Workload { name, functions, minutes } => {
            let fleet_gib = u64::from(options.workers) * options.memory_gib;
            options::made(name, *functions, *minutes, fleet_gib)?
        }
    };
    let train_minutes =
        options.train_minutes.unwrap_or_else(|| trace.minutes / options.source.parts());
    if train_minutes >= trace.minutes {
        let minutes = trace.minutes;
        return Err(format!("--train {train_minutes}: the trace has {minutes} minutes in all"));
    }
    // Opens the output files before the simulation, which takes minutes, so that a bad path fails
    // at once.
    for path in options.report.iter().chain(&options.json) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        drop(opened.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    println!(
        "{}: {} functions, {} minutes, {} invocations of which {} are measured",
        trace.name,
        trace.functions.len(),
        trace.minutes,
        trace.invocations(0..trace.minutes),
        trace.invocations(train_minutes..trace.minutes),
    );
    let all = options.policies.len() * options.idle.len();
    let bar = ProgressBar::new((all * trace.minutes) as u64 * options.seeds);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}, {eta} left");
    bar.set_style(style.map_err(|error| error.to_string())?);
    let began = Instant::now();
    let mut rows = Vec::new();
    for idle in &options.idle {
        for policy in &options.policies {
            bar.set_message(format!("{policy}, {idle}"));
            let runs = (0..options.seeds)
                .map(|seed| play(&trace, train_minutes, options, policy, idle, seed, &bar));
            rows.push(Row { runs: runs.collect::<Result<_, _>>()? });
        }
    }
    bar.finish_and_clear();
    let idle_differs = options.idle.len() > 1;
    println!("{}", table::text(&rows, idle_differs));
    println!(
        "{} runs in {:.1} s; load: a worker's in a minute over the mean of all, with {} workers",
        all as u64 * options.seeds,
        began.elapsed().as_secs_f64(),
        options.workers
    );
    if let Some(path) = &options.report {
        let page = page::draw(&trace, train_minutes, options.workers, &rows, idle_differs);
        write(path, &page)?;
    }
    if let Some(path) = &options.json {
        let runs: Vec<&Report> = rows.iter().flat_map(|row| &row.runs).collect();
        let json = serde_json::to_string_pretty(&runs).map_err(|error| error.to_string())?;
        write(path, &json)?;
    }
    Ok(())
}

fn play(
    trace: &Trace,
    train_minutes: usize,
    options: &Options,
    policy: &str,
    idle: &str,
    seed: u64,
    bar: &ProgressBar,
) -> Result<Report, String> {
    let mut config = Config::default();
    // A trace does not say which limits its accounts had.
    config.account_concurrency_max = u32::MAX;
    config.scaling_starts_max = u32::MAX;
    let engine = Engine::new(config.clone(), seed)
        .with_placement(options::policy(policy)?)
        .with_idle_policy(options::idle(idle)?);
    let settings = Settings {
        workers: options.workers,
        capacity: Capacity::of_memory(options.memory_gib << 30),
        faults: options.bad.map_or_else(Faults::default, |(bad, bad_workers)| Faults {
            bad,
            bad_workers,
            ..Faults::default()
        }),
        train_minutes,
        seed,
        shape: seed == 0,
        ..Settings::default()
    };
    let simulation = Simulation::new(trace, settings, engine, &config);
    simulation.run(&mut |_, _| bar.inc(1)).map_err(|violation| violation.to_string())
}

fn read_trace(folder: &Path) -> Result<Trace, String> {
    let read = |part: &str| {
        let path = folder.join(format!("{part}.csv"));
        let size = std::fs::metadata(&path).map(|it| it.len());
        match size {
            Ok(size) if size > TRACE_BYTES_MAX => {
                Err(format!("{}: larger than {TRACE_BYTES_MAX} bytes", path.display()))
            }
            _ => std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display())),
        }
    };
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let (invocations, durations, memory) =
        (read("invocations")?, read("durations")?, read("memory")?);
    Trace::parse(name.unwrap_or_default(), &invocations, &durations, &memory)
        .map_err(|error| format!("{}: {error}", folder.display()))
}

/// Largest CSV file of a trace that is read, in bytes.
const TRACE_BYTES_MAX: u64 = 4 << 30;

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{} is written", path.display());
    Ok(())
}
