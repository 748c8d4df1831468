//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lambda_core::placement::{Placement, Scored, baselines};
use lambda_core::sim::{Bad, workload};
use lambda_core::{FixedIdle, GreedyDual, HistogramIdle, IdlePolicy, RhythmIdle};

pub(crate) const USAGE: &str = "\
Plays a trace of invocations against placement policies, side by side, in virtual time.

  simulate --trace DIR [options]       a trace: invocations.csv, durations.csv, memory.csv
  simulate --workload NAME [options]   a made one: flat, full-hour, one-customer, seasons;
                                       overload: 70 %, then 500 %, then 70 % of the fleet's memory
                                       is wanted; fairness: ten accounts, the tenth wants ten times
                                       as much as the first, together from 111 to 500 %

  --train MINUTES     minutes that are played without being measured (half of the trace; a sixth
                      of overload and fairness)
  --workers N         workers (20)
  --memory GIB        memory of each (64)
  --functions N       functions of a made workload (300)
  --minutes N         minutes of a made workload (240)
  --bad KIND:N        N workers whose starts fail (black-hole), take 20 times as long (slow), or
                      fail every other half minute (flapping)
  --seeds K           how often each policy is run, with other chance (3)
  --policy NAME,...   ours, random, round-robin, least-loaded, power-of-two, home-worker, best-fit,
                      least-allocated, power-of-two-by-load; or all (all)
  --idle NAME,...     fixed:SECONDS, rhythm:SECONDS, histogram, greedy-dual; more than one are
                      compared (fixed:600)
  --report FILE.html  draws it
  --json FILE         writes all figures
";

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) train_minutes: Option<usize>,
    pub(crate) workers: u32,
    pub(crate) memory_gib: u64,
    pub(crate) bad: Option<(Bad, u32)>,
    pub(crate) seeds: u64,
    pub(crate) policies: Vec<String>,
    pub(crate) idle: Vec<String>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
}

/// The source of the invocations: a folder with a recorded trace, or a generated workload.
#[derive(Debug)]
pub(crate) enum Source {
    Folder(PathBuf),
    Workload { name: String, functions: u32, minutes: usize },
}

impl Source {
    /// Returns how many parts a trace has, of which the first is not measured by default. The steps
    /// of overload and fairness begin early.
    pub(crate) fn parts(&self) -> usize {
        match self {
            Self::Workload { name, .. } if name == "overload" || name == "fairness" => 6,
            _ => 2,
        }
    }
}

impl Options {
    /// Parses the arguments. Returns `Ok(None)` if there are none or they ask for help.
    ///
    /// # Errors
    ///
    /// The first wrong option, value, policy or idle policy, as a text for the user. Names of
    /// workloads are checked later.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            source: Source::Folder(PathBuf::new()),
            train_minutes: None,
            workers: 20,
            memory_gib: 64,
            bad: None,
            seeds: 3,
            policies: vec!["all".to_owned()],
            idle: vec!["fixed:600".to_owned()],
            report: None,
            json: None,
        };
        let (mut folder, mut made) = (None, None);
        let (mut functions, mut minutes) = (300, 240);
        let mut arguments = arguments.peekable();
        if arguments.peek().is_none() {
            return Ok(None);
        }
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
            let list = || value.split(',').map(str::to_owned).collect();
            match name.as_str() {
                "--trace" => folder = Some(PathBuf::from(value)),
                "--workload" => made = Some(value),
                "--train" => options.train_minutes = Some(number(&name, &value, 0, 1 << 20)?),
                "--workers" => options.workers = number(&name, &value, 1, 100_000)?,
                "--memory" => options.memory_gib = number(&name, &value, 1, 4096)?,
                "--functions" => functions = number(&name, &value, 1, 100_000)?,
                "--minutes" => minutes = number(&name, &value, 2, 1 << 16)?,
                "--bad" => options.bad = Some(bad(&name, &value)?),
                "--seeds" => options.seeds = number(&name, &value, 1, 1000)?,
                "--policy" => options.policies = list(),
                "--idle" => options.idle = list(),
                "--report" => options.report = Some(PathBuf::from(value)),
                "--json" => options.json = Some(PathBuf::from(value)),
                _ => return Err(format!("{name} is no option; --help names them")),
            }
        }
        options.source = match (folder, made) {
            (Some(folder), None) => Source::Folder(folder),
            (None, Some(name)) => Source::Workload { name, functions, minutes },
            _ => return Err("one of --trace and --workload is due".to_owned()),
        };
        if options.policies == ["all"] {
            options.policies = vec!["ours".to_owned()];
            let others = baselines::all();
            options.policies.extend(others.iter().map(|policy| policy.name().to_owned()));
        }
        for name in &options.policies {
            policy(name)?;
        }
        for name in &options.idle {
            idle(name)?;
        }
        Ok(Some(options))
    }
}

fn number<T>(name: &str, value: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = value.parse().ok().filter(|number| (&least..=&most).contains(&number));
    number.ok_or_else(|| format!("{name} {value}: a whole number from {least} to {most} is due"))
}

/// Parses a kind of bad workers and their number.
fn bad(name: &str, value: &str) -> Result<(Bad, u32), String> {
    let (kind, count) = value.split_once(':').unwrap_or((value, "1"));
    let kind = match kind {
        "black-hole" => Bad::BlackHole,
        "slow" => Bad::Slow,
        "flapping" => Bad::Flapping,
        _ => return Err(format!("{name} {value}: {kind} is no kind; --help names them")),
    };
    Ok((kind, number(name, count, 1, 100_000)?))
}

/// Returns the placement policy with this name.
pub(crate) fn policy(name: &str) -> Result<Box<dyn Placement>, String> {
    if name == "ours" {
        return Ok(Box::new(Scored::default()));
    }
    let found = baselines::all().into_iter().find(|policy| policy.name() == name);
    found.ok_or_else(|| format!("{name} is no policy; --help names them"))
}

/// Returns the idle policy with this name.
pub(crate) fn idle(name: &str) -> Result<Box<dyn IdlePolicy>, String> {
    match name {
        "histogram" => Ok(Box::new(HistogramIdle::default())),
        "greedy-dual" => Ok(Box::new(GreedyDual::default())),
        _ if name.starts_with("rhythm:") => {
            let seconds = name.strip_prefix("rhythm:").and_then(|it| it.parse().ok());
            let seconds: u64 =
                seconds.ok_or_else(|| format!("{name} is no idle policy; --help names them"))?;
            let idle = Duration::from_secs(seconds);
            Ok(Box::new(RhythmIdle { idle, ..RhythmIdle::default() }))
        }
        _ => {
            let seconds = name.strip_prefix("fixed:").and_then(|it| it.parse().ok());
            let seconds: u64 =
                seconds.ok_or_else(|| format!("{name} is no idle policy; --help names them"))?;
            Ok(Box::new(FixedIdle(Duration::from_secs(seconds))))
        }
    }
}

/// Generates the workload with this name, for a fleet of so much memory.
pub(crate) fn made(
    name: &str,
    functions: u32,
    minutes: usize,
    fleet_gib: u64,
) -> Result<lambda_core::sim::Trace, String> {
    // The demand in each minute, in percent of the fleet.
    let demand = |weights: &[u32], percent: &dyn Fn(usize) -> usize| {
        let gb = |minute| fleet_gib.saturating_mul(percent(minute) as u64) / 100;
        let gb = |minute| u32::try_from(gb(minute)).unwrap_or(u32::MAX);
        workload::demand(name, weights, &(0..minutes).map(gb).collect::<Vec<_>>(), 1)
    };
    match name {
        "overload" => Ok(demand(&[1; 10], &|minute| {
            if (minutes / 3..minutes * 2 / 3).contains(&minute) { 500 } else { 70 }
        })),
        "fairness" => {
            let weights: Vec<_> = (1..=10).collect();
            Ok(demand(&weights, &|minute| 111 + 389 * minute / (minutes - 1).max(1)))
        }
        "flat" => Ok(workload::flat(functions, minutes, 1)),
        "full-hour" => Ok(workload::full_hour(functions, minutes, 1)),
        "one-customer" => Ok(workload::one_customer(functions, minutes, 1)),
        "seasons" => Ok(workload::seasons(functions, minutes, 1)),
        _ => Err(format!("{name} is no workload; --help names them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Options>, String> {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_wrong_is_said() {
        for line in [
            "--trace",
            "--workers 3",
            "--trace a --workload flat",
            "--trace a --workers 0",
            "--trace a --policy best",
            "--trace a --idle fixed:x",
            "--trace a --bad lazy:2",
            "--trace a --bad slow:x",
            "--trace a --nothing 1",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        assert!(read("").unwrap().is_none() && read("--help").unwrap().is_none());
        let options = read("--trace a --seeds 8").unwrap().unwrap();
        assert_eq!((options.seeds, options.policies.len()), (8, 9));
    }
}
