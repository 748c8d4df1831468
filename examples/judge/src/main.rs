//! Judges untrusted programs as a programming contest does: compiles and runs each in sandboxes, as
//! many at once as the machine has processors, and prints a verdict. Needs root, as `LinuxBackend`
//! does by default.
//!
//! ```text
//! cargo run --release -p judge
//! cargo run --release -p judge -- [--time-ms N] [--memory-mb N] PROBLEM SUBMISSION...
//! ```
//!
//! Without arguments it judges 20 built-in programs. PROBLEM is a folder of tests: `NAME.in` is the
//! input, `NAME.out` the expected output. A submission is a file that ends in `.c`, `.py` or `.sh`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod contest;
mod demo;
mod verdict;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contest::{Judge, Language, Problem, Submission, Test};
use lambda_sandbox::linux::LinuxBackend;
use tokio::sync::Semaphore;

const USAGE: &str = "\
usage: judge
       judge [--time-ms N] [--memory-mb N] PROBLEM SUBMISSION...";

fn arguments() -> Result<(Problem, Vec<Submission>), Box<dyn Error>> {
    let mut problem = demo::problem();
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().ok_or(USAGE)?.parse::<u32>().map_err(|_| USAGE);
        match argument.as_str() {
            "--time-ms" => problem.time = Duration::from_millis(u64::from(number()?)),
            "--memory-mb" => problem.memory_mb = number()?,
            option if option.starts_with("--") => return Err(USAGE.into()),
            path => paths.push(path.into()),
        }
    }
    match paths.split_first() {
        None => Ok((problem, demo::submissions())),
        Some((_, [])) => Err(USAGE.into()),
        Some((folder, files)) => {
            problem.tests = tests(folder)?;
            let submissions = files.iter().map(|path| submission(path));
            Ok((problem, submissions.collect::<Result<_, _>>()?))
        }
    }
}

fn tests(folder: &Path) -> Result<Vec<Test>, Box<dyn Error>> {
    let mut names: Vec<PathBuf> = (fs::read_dir(folder)?.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "in"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("no test (NAME.in, NAME.out) in {}", folder.display()).into());
    }
    let read = |path: PathBuf| -> Result<Test, Box<dyn Error>> {
        let expected = path.with_extension("out");
        Ok(Test { input: fs::read(path)?, expected: fs::read(expected)? })
    };
    names.into_iter().map(read).collect()
}

fn submission(path: &Path) -> Result<Submission, Box<dyn Error>> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let language = Language::of_ending(&ending)
        .ok_or_else(|| format!("{}: only .c, .py and .sh are judged", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Submission { name, language, source: fs::read(path)? })
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (problem, submissions) = arguments()?;
    let judge = Arc::new(Judge { backend: LinuxBackend::new()?, problem });
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let places = Arc::new(Semaphore::new(at_once));
    let began = Instant::now();
    let judged: Vec<_> = (submissions.into_iter())
        .map(|submission| {
            let (judge, places) = (Arc::clone(&judge), Arc::clone(&places));
            let name = submission.name.clone();
            let judged = tokio::spawn(async move {
                // `acquire` fails only on a closed semaphore, and this one is never closed.
                let _place = places.acquire().await.ok();
                judge.judge(&submission).await
            });
            (name, judged)
        })
        .collect();
    println!("{:<24} {:<14} {:>8} {:>9}  note", "submission", "verdict", "cpu ms", "memory MB");
    for (name, judged) in judged {
        println!("{name:<24} {}", judged.await??);
    }
    println!("judged in {:.2} s, {at_once} at once", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("judge: {error}");
            ExitCode::FAILURE
        }
    }
}
