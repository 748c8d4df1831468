//! Checks of backends that run programs without the Runtime API.

use std::time::{Duration, Instant};

use super::{Check, Verdict, judge, seen};
use crate::{Backend, Capability, Completed, EndedBy, Error, Exit, SandboxSpec, Stdin};

/// The checks: name, required capability, and the check.
const CHECKS: &[(&str, Option<Capability>, Check)] = &[
    ("tells a program's status", Some(Capability::Run), |b, s| Box::pin(tells_status(b, s))),
    ("tells a program's signal", Some(Capability::Run), |b, s| Box::pin(tells_signal(b, s))),
    ("gives outputs apart and whole", Some(Capability::Run), |b, s| Box::pin(outputs(b, s))),
    ("ends a program at its time", Some(Capability::Run), |b, s| Box::pin(wall_time(b, s))),
    ("ends a program at its output", Some(Capability::Run), |b, s| Box::pin(output_limit(b, s))),
    ("tells a kill by the host", Some(Capability::Run), |b, s| Box::pin(killed(b, s))),
    ("says what cannot be started", Some(Capability::Run), |b, s| Box::pin(not_there(b, s))),
    ("looks for a program's name in PATH", Some(Capability::Run), |b, s| Box::pin(by_name(b, s))),
    ("gives input as bytes", Some(Capability::Stdin), |b, s| Box::pin(input_bytes(b, s))),
    ("gives input from a reader", Some(Capability::Stdin), |b, s| Box::pin(input_reader(b, s))),
    ("ends a program at its processor time", Some(Capability::CpuTime), |b, s| {
        Box::pin(processor_time(b, s))
    }),
    ("tells a program's end by memory", Some(Capability::MemoryLimit), |b, s| {
        Box::pin(memory(b, s))
    }),
    ("runs other programs beside", Some(Capability::Exec), |b, s| Box::pin(beside(b, s))),
];

/// Runs every check on `backend`. The root of `shell` must have a POSIX shell at `/bin/sh` and the
/// usual commands, and its limit must be at least half a vCPU. Its command is replaced.
pub async fn run_programs(
    backend: &dyn Backend,
    shell: &SandboxSpec,
) -> Vec<(&'static str, Verdict)> {
    judge(CHECKS, backend, shell).await
}

fn script(shell: &SandboxSpec, text: &str) -> SandboxSpec {
    let mut spec = shell.clone();
    spec.command = ["/bin/sh", "-c", text].map(Into::into).to_vec();
    spec
}

async fn run(backend: &dyn Backend, spec: SandboxSpec) -> Result<Completed, String> {
    backend.run(spec).await.map_err(seen)
}

fn expect(done: &Completed, ended_by: EndedBy, exit: Option<Exit>) -> Result<(), String> {
    let finished = done.finished;
    let as_due = finished.ended_by == ended_by && exit.is_none_or(|exit| finished.exit == exit);
    if as_due { Ok(()) } else { Err(format!("{ended_by:?} is due: {}", seen(done))) }
}

async fn tells_status(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let done = run(backend, script(shell, "exit 7")).await?;
    expect(&done, EndedBy::Program, Some(Exit::Status(7)))
}

async fn tells_signal(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let done = run(backend, script(shell, "kill -ABRT $$")).await?;
    expect(&done, EndedBy::Signal, Some(Exit::Signal(6)))
}

async fn outputs(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let text = r"printf 'a\nb'; printf 'c\n\001\377' >&2; printf '\n\n'";
    let done = run(backend, script(shell, text)).await?;
    let whole = done.stdout[..] == *b"a\nb\n\n" && done.stderr[..] == *b"c\n\x01\xFF";
    if whole && !done.truncated { Ok(()) } else { Err(seen(done)) }
}

async fn wall_time(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let began = Instant::now();
    let spec = script(shell, "sleep 60 & sleep 60").with_wall_time(Duration::from_millis(200));
    let done = run(backend, spec).await?;
    if began.elapsed() > Duration::from_secs(20) {
        return Err("late".into());
    }
    expect(&done, EndedBy::WallTime, None)
}

async fn output_limit(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let text = "while :; do echo 0123456789; done";
    let done = run(backend, script(shell, text).with_output_bytes_max(1000)).await?;
    if done.stdout.len() != 1000 || !done.truncated {
        return Err(seen(done));
    }
    expect(&done, EndedBy::Output, None)
}

async fn killed(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let sandbox = backend.create(script(shell, "sleep 60")).await.map_err(seen)?;
    let killer = sandbox.killer();
    let (finished, ()) = tokio::join!(sandbox.run(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        killer.kill();
    });
    let finished = finished.map_err(seen)?;
    if finished.ended_by == EndedBy::Host { Ok(()) } else { Err(seen(finished)) }
}

async fn not_there(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let mut spec = script(shell, "");
    spec.command = vec!["/bin/no-such-program".into()];
    match backend.run(spec).await {
        Err(Error::Failed { path: Some(path), .. }) if path.ends_with("no-such-program") => Ok(()),
        other => Err(seen(other)),
    }
}

async fn by_name(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let mut spec = script(shell, "exit 7");
    spec.environment.retain(|(name, _)| name != "PATH");
    let mut spec = spec.with_env("PATH", "/no-such-folder:/dev/null:/bin");
    spec.command[0] = "sh".into();
    let done = run(backend, spec.clone()).await?;
    expect(&done, EndedBy::Program, Some(Exit::Status(7)))?;
    spec.command[0] = "no-such-program".into();
    match backend.run(spec).await {
        Err(Error::Failed { path: Some(path), .. }) if path.ends_with("no-such-program") => Ok(()),
        other => Err(seen(other)),
    }
}

async fn input_bytes(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let many = vec![b'x'; 300_000];
    let done = run(backend, script(shell, "cat").with_stdin(many.clone())).await?;
    if done.stdout != many {
        return Err(format!("{} bytes", done.stdout.len()));
    }
    let none = run(backend, script(shell, "cat; echo end")).await?;
    if none.stdout == "end\n" { Ok(()) } else { Err(seen(none)) }
}

async fn input_reader(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let (mut writer, reader) = tokio::io::duplex(16);
    let write = async move {
        for _ in 0..100 {
            let line = tokio::io::AsyncWriteExt::write_all(&mut writer, b"0123456789\n").await;
            line.map_err(seen)?;
        }
        Ok::<_, String>(())
    };
    let spec = script(shell, "cat | wc -c").with_stdin(Stdin::reader(reader));
    let (done, written) = tokio::join!(run(backend, spec), write);
    written?;
    let done = done?;
    if done.stdout.trim_ascii() == b"1100" { Ok(()) } else { Err(seen(done)) }
}

async fn processor_time(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let limit = Duration::from_millis(100);
    let spec = script(shell, "while :; do :; done").with_processor_time(limit);
    let done = run(backend, spec).await?;
    if done.finished.usage.cpu_time < Some(limit) {
        return Err(seen(done));
    }
    expect(&done, EndedBy::ProcessorTime, None)
}

async fn memory(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let done = run(backend, script(shell, "exec tail /dev/zero").with_memory_mb(32)).await?;
    expect(&done, EndedBy::Memory, None)
}

async fn beside(backend: &dyn Backend, shell: &SandboxSpec) -> Result<(), String> {
    let sandbox = backend.create(script(shell, "sleep 60")).await.map_err(seen)?;
    let (handle, killer) = (sandbox.handle().map_err(seen)?, sandbox.killer());
    let mut events = handle.events();
    let (finished, done) = tokio::join!(sandbox.run(), async {
        let _started = events.next().await;
        let exec = crate::Exec::new(["/bin/sh", "-c", "cat; exit 3"]).with_stdin("text");
        let done = handle.exec(exec).await;
        killer.kill();
        done
    });
    finished.map_err(seen)?;
    let done = done.map_err(seen)?;
    if done.exit == Exit::Status(3) && done.stdout == "text" { Ok(()) } else { Err(seen(done)) }
}
