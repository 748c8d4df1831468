//! The conformance suite: checks that every backend must pass, which the author of a backend can
//! run.
//!
//! A check that needs a capability which the backend lacks is reported as declined.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use lambda_sandbox::conformance::{self, FUNCTION, Verdict};
//! use lambda_sandbox::fake::FakeBackend;
//!
//! let backend = FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler);
//! let spec = conformance::fake_spec();
//! for (check, verdict) in conformance::run(&backend, &spec).await {
//!     assert!(!matches!(verdict, Verdict::Failed(_)), "{check}: {verdict:?}");
//! }
//! # }
//! ```

mod programs;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use self::programs::run_programs;
use crate::fake::FakeAnswer;
use crate::{
    Answer, Backend, BoxFuture, Busy, Capability, Exit, Idle, Invocation, Outcome, Root, Sandbox,
    SandboxSpec, ShutdownReason,
};

/// The name of the function that the suite invokes.
///
/// Its answers depend on the event `{"do": WORD}`. `echo` returns the event; `raise` reports an
/// error; `exit` ends the runtime with status 7; `sleep` takes longer than two seconds; `eat` uses
/// memory until it is killed.
pub const FUNCTION: &str = "conformance";

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The backend behaves as required.
    Passed,
    /// The backend lacks this capability.
    Declined(Capability),
    /// The backend does not behave as required. The text says what was observed.
    Failed(String),
}

/// Implements [`FUNCTION`] for the fake backend.
#[must_use]
pub fn fake_handler(invocation: &Invocation) -> FakeAnswer {
    let event = String::from_utf8_lossy(&invocation.payload).into_owned();
    if event.contains("raise") {
        FakeAnswer::error("Unhandled", r#"{"errorType":"Asked","errorMessage":"asked for"}"#)
    } else if event.contains("exit") {
        FakeAnswer::crash(Exit::Status(7))
    } else if event.contains("sleep") {
        FakeAnswer::hang()
    } else {
        FakeAnswer::success(event)
    }
}

/// Creates the specification of [`FUNCTION`] for the fake backend.
#[must_use]
pub fn fake_spec() -> SandboxSpec {
    SandboxSpec::new(Root::empty(), ["/bootstrap"]).named(FUNCTION)
}

type Check = for<'a> fn(&'a dyn Backend, &'a SandboxSpec) -> BoxFuture<'a, Result<(), String>>;

/// The checks: name, required capability, and the check.
const CHECKS: &[(&str, Option<Capability>, Check)] = &[
    ("answers, again and again", None, |b, s| Box::pin(answers(b, s))),
    ("reports an error and goes on", None, |b, s| Box::pin(reports(b, s))),
    ("tells a crash by its status", None, |b, s| Box::pin(crashes(b, s))),
    ("times out in time", None, |b, s| Box::pin(times_out(b, s))),
    ("is killed while busy", None, |b, s| Box::pin(is_killed(b, s))),
    ("ends when dropped in any state", None, |b, s| Box::pin(is_dropped(b, s))),
    ("shuts down", None, |b, s| Box::pin(shuts_down(b, s))),
    ("refuses a broken specification", None, |b, s| Box::pin(refuses(b, s))),
    ("lives beside others", None, |b, s| Box::pin(lives_beside(b, s))),
    ("is used from a pool of idle ones", Some(Capability::Freeze), |b, s| {
        Box::pin(waits_idle(b, s))
    }),
    ("tells out of memory from other ends", Some(Capability::MemoryLimit), |b, s| {
        Box::pin(eats(b, s))
    }),
    ("measures memory", Some(Capability::MemoryPeak), |b, s| Box::pin(measures_memory(b, s))),
    ("measures processor time", Some(Capability::CpuTime), |b, s| Box::pin(measures_time(b, s))),
];

/// Runs every check on `backend`. `spec` must describe [`FUNCTION`] for that backend.
pub async fn run(backend: &dyn Backend, spec: &SandboxSpec) -> Vec<(&'static str, Verdict)> {
    judge(CHECKS, backend, spec).await
}

async fn judge(
    checks: &[(&'static str, Option<Capability>, Check)],
    backend: &dyn Backend,
    spec: &SandboxSpec,
) -> Vec<(&'static str, Verdict)> {
    let capabilities = backend.capabilities();
    let mut verdicts = Vec::new();
    for (name, needed, check) in checks {
        let verdict = match needed {
            Some(needed) if !capabilities.contains(needed) => Verdict::Declined(*needed),
            _ => match check(backend, spec).await {
                Ok(()) => Verdict::Passed,
                Err(seen) => Verdict::Failed(seen),
            },
        };
        verdicts.push((*name, verdict));
    }
    verdicts
}

fn event(what: &str) -> Invocation {
    let event = format!(r#"{{"do": "{what}"}}"#);
    Invocation::new("conformance-1", event, Duration::from_secs(2))
}

fn seen(what: impl Debug) -> String {
    format!("{what:?}")
}

async fn idle(backend: &dyn Backend, spec: &SandboxSpec) -> Result<Sandbox<Idle>, String> {
    let created = backend.create(spec.clone()).await.map_err(seen)?;
    Ok(created.init().await.map_err(seen)?.0)
}

async fn invoke(
    sandbox: Sandbox<Idle>,
    what: &str,
) -> Result<(Outcome, Option<Sandbox<Busy>>), String> {
    sandbox.invoke(event(what)).await.map_err(seen)
}

async fn echo(sandbox: Sandbox<Idle>) -> Result<(Outcome, Sandbox<Idle>), String> {
    let (outcome, busy) = invoke(sandbox, "echo").await?;
    let Answer::Success(response) = &outcome.answer else {
        return Err(seen(outcome));
    };
    let body = String::from_utf8_lossy(&response.body).replace(' ', "");
    if body != r#"{"do":"echo"}"# {
        return Err(body);
    }
    let busy = busy.ok_or("gone after an answer")?;
    Ok((outcome, busy.settle().await.map_err(seen)?))
}

async fn answers(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let mut sandbox = idle(backend, spec).await?;
    for _ in 0..5 {
        (_, sandbox) = echo(sandbox).await?;
    }
    sandbox.destroy().await.map_err(seen)
}

async fn reports(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (outcome, busy) = invoke(idle(backend, spec).await?, "raise").await?;
    if !matches!(outcome.answer, Answer::FunctionError(_)) {
        return Err(seen(outcome));
    }
    let busy = busy.ok_or("gone after a reported error")?;
    let (_, sandbox) = echo(busy.settle().await.map_err(seen)?).await?;
    sandbox.destroy().await.map_err(seen)
}

async fn crashes(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (outcome, busy) = invoke(idle(backend, spec).await?, "exit").await?;
    match (&outcome.answer, busy) {
        (Answer::Exited(Exit::Status(7)), None) => Ok(()),
        (_, busy) => Err(seen((outcome, busy))),
    }
}

async fn times_out(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let sandbox = idle(backend, spec).await?;
    let mut invocation = event("sleep");
    invocation.timeout = Duration::from_millis(300);
    let began = Instant::now();
    let (outcome, busy) = sandbox.invoke(invocation).await.map_err(seen)?;
    let late = began.elapsed() > Duration::from_secs(2);
    match (&outcome.answer, busy, late) {
        (Answer::TimedOut, None, false) => Ok(()),
        (_, busy, late) => Err(seen((outcome, busy, late))),
    }
}

async fn is_killed(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let sandbox = idle(backend, spec).await?;
    let killer = sandbox.killer();
    let (ended, ()) = tokio::join!(invoke(sandbox, "sleep"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        killer.kill();
    });
    let (outcome, _) = ended?;
    match outcome.answer {
        Answer::Exited(_) => Ok(()),
        _ => Err(seen(outcome)),
    }
}

async fn is_dropped(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    drop(backend.create(spec.clone()).await.map_err(seen)?);
    drop(idle(backend, spec).await?);
    let (_, busy) = invoke(idle(backend, spec).await?, "echo").await?;
    drop(busy);
    let busy = invoke(idle(backend, spec).await?, "sleep");
    drop(tokio::time::timeout(Duration::from_millis(50), busy).await);
    answers(backend, spec).await
}

async fn shuts_down(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let sandbox = idle(backend, spec).await?;
    sandbox.shutdown(ShutdownReason::Spindown).await.map_err(seen)
}

async fn refuses(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let mut no_program = spec.clone();
    no_program.command.clear();
    let mut no_memory = spec.clone();
    no_memory.limits.memory_bytes = 0;
    let mut no_share = spec.clone();
    no_share.limits.cpus = f64::NAN;
    let mut crowded = spec.clone();
    crowded.environment = vec![("A".into(), "b".into()); 100_000];
    for broken in [no_program, no_memory, no_share, crowded] {
        match backend.create(broken).await {
            Err(crate::Error::Invalid { .. }) => {}
            other => return Err(seen(other)),
        }
    }
    Ok(())
}

async fn lives_beside(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (first, second) = tokio::join!(idle(backend, spec), idle(backend, spec));
    let (first, second) = tokio::join!(echo(first?), echo(second?));
    let (first, second) = (first?.1, second?.1);
    first.destroy().await.map_err(seen)?;
    echo(second).await?.1.destroy().await.map_err(seen)
}

async fn waits_idle(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let sandbox = idle(backend, spec).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, sandbox) = echo(sandbox).await?;
    sandbox.destroy().await.map_err(seen)
}

async fn eats(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (outcome, busy) = invoke(idle(backend, spec).await?, "eat").await?;
    match (&outcome.answer, busy) {
        (Answer::OutOfMemory, None) => {}
        (_, busy) => return Err(seen((outcome, busy))),
    }
    crashes(backend, spec).await
}

async fn measures_memory(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (outcome, _) = echo(idle(backend, spec).await?).await?;
    let peak = outcome.usage.memory_peak_bytes;
    let sane = peak.is_some_and(|peak| peak >= 4096 && peak <= spec.limits.memory_bytes);
    if sane { Ok(()) } else { Err(seen(outcome)) }
}

async fn measures_time(backend: &dyn Backend, spec: &SandboxSpec) -> Result<(), String> {
    let (outcome, _) = echo(idle(backend, spec).await?).await?;
    let time = outcome.usage.cpu_time;
    let sane = time.is_some_and(|time| !time.is_zero() && time < Duration::from_secs(4));
    if sane { Ok(()) } else { Err(seen(outcome)) }
}
