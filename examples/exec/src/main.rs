//! Runs a program in a sandbox whose root is made of this machine's own programs, so that you can
//! try to break out of it. Without root it works too, with fewer defences: `cargo run --release -p
//! inspect`, run as the same user, prints which are in force.
//!
//! ```text
//! cargo run --release -p exec -- [--memory-mb N] [--cpus X] [--processes N] [--scratch-mb N] [--time-ms N]
//!                                [--bind SOURCE=TARGET]... [--writable SOURCE=TARGET]... [--device PATH]...
//!                                [--env NAME=VALUE]... [--calls PROFILE] -- PROGRAM ARGS...
//! cargo run --release -p exec -- -- /bin/sh -c 'id; ls /proc; unshare -U'
//! ```
#![expect(clippy::print_stderr, reason = "a program for a terminal")]

use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, EndedBy, Exit, LogLine, LogSink, Root, SandboxSpec, Stream};

/// Writes the program's output to this process's standard output and standard error, as it comes.
#[derive(Debug)]
struct Terminal;

impl LogSink for Terminal {
    fn line(&self, line: LogLine) {
        let end: &[u8] = if line.open { b"" } else { b"\n" };
        let text = [&line.text[..], end].concat();
        // An error means that the terminal is gone. The program runs on.
        drop(match line.stream {
            Stream::Stderr => std::io::stderr().write_all(&text),
            _ => std::io::stdout().write_all(&text),
        });
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<SandboxSpec, Box<dyn Error>> {
    let mut spec = SandboxSpec::new(Root::of_machine(), Vec::<OsString>::new());
    spec.limits.cpus = 1.0;
    spec.environment.push(("PATH".into(), "/usr/bin:/bin".into()));
    spec.log = Arc::new(Terminal);
    let mut arguments = arguments;
    while let Some(option) = arguments.next() {
        if option == "--" {
            spec.command = arguments.collect();
            return Ok(spec);
        }
        let option = option.into_string().map_err(|_| "options are text")?;
        let value = arguments.next().ok_or(USAGE)?;
        let text = value.into_string().map_err(|_| "values are text")?;
        let number = |error: &dyn std::fmt::Display| format!("{option} {text}: {error}");
        let pair = || text.split_once('=').ok_or("NAME=VALUE is due");
        match option.as_str() {
            "--memory-mb" => {
                spec.limits.memory_bytes = text.parse::<u64>().map_err(|it| number(&it))? << 20
            }
            "--scratch-mb" => {
                spec.limits.scratch_bytes = text.parse::<u64>().map_err(|it| number(&it))? << 20
            }
            "--cpus" => spec.limits.cpus = text.parse().map_err(|it| number(&it))?,
            "--processes" => spec.limits.processes_max = text.parse().map_err(|it| number(&it))?,
            "--time-ms" => {
                let time = text.parse().map_err(|it| number(&it))?;
                spec = spec.with_wall_time(Duration::from_millis(time));
            }
            "--writable" => {
                let (source, target) = pair()?;
                spec.linux = spec.linux.with_writable_bind(source, target);
            }
            "--device" => spec.linux = spec.linux.with_device(text),
            "--calls" => spec.linux = spec.linux.with_system_calls(text.parse()?),
            "--bind" => spec.root = spec.root.with_bind(pair()?.0, pair()?.1),
            "--env" => {
                let (name, value) = pair()?;
                spec.environment.push((name.into(), value.into()));
            }
            _ => return Err(format!("no such option: {option}\n{USAGE}").into()),
        }
    }
    Err(USAGE.into())
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let spec = parse(std::env::args_os().skip(1))?;
    let backend = LinuxBackend::with_settings(&Settings::default().rootless())?;
    let finished = backend.create(spec).await?.run().await?;
    if !matches!(finished.ended_by, EndedBy::Program | EndedBy::Signal) {
        eprintln!("exec: {}", finished.ended_by);
    }
    Ok(match finished.exit {
        Exit::Status(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        exit => {
            eprintln!("exec: {exit}");
            ExitCode::from(128)
        }
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("exec: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        ExitCode::FAILURE
    })
}

const USAGE: &str = "\
usage: exec [--memory-mb N] [--cpus X] [--processes N] [--scratch-mb N] [--time-ms N]
            [--bind SOURCE=TARGET]... [--writable SOURCE=TARGET]... [--device PATH]...
            [--env NAME=VALUE]... [--calls default|strict|tripwire|wide] -- PROGRAM ARGS...";
