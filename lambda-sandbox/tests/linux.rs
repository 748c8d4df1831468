//! The Linux backend: programs, an unmodified runtime, limits, and nothing left behind.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{logged, text};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{
    Answer, Backend, Error, Exit, Finished, InitFailure, Invocation, Limits, MemoryLog, SandboxSpec,
};

fn backend() -> Option<LinuxBackend> {
    common::backend("programs")
}

fn shell(script: &str) -> (SandboxSpec, Arc<MemoryLog>) {
    let mut spec = common::shell(script);
    spec.limits = Limits { cpus: 2.0, ..Limits::for_memory_mb(256) };
    let log = logged(&mut spec);
    (spec, log)
}

async fn run(backend: &LinuxBackend, script: &str) -> (Finished, String) {
    let (spec, log) = shell(script);
    run_spec(backend, spec, &log).await
}

async fn run_spec(
    backend: &LinuxBackend,
    spec: SandboxSpec,
    log: &MemoryLog,
) -> (Finished, String) {
    let created = backend.create(spec).await.expect("created");
    let finished = created.run().await.expect("run");
    (finished, text(log))
}

#[tokio::test]
async fn a_program_runs_and_ends() {
    let Some(backend) = backend() else { return };
    let (finished, output) = run(&backend, "echo hello; id -u; pwd; exit 7").await;
    assert_eq!(output, "hello\n1000\n/\n");
    assert_eq!(finished.exit, Exit::Status(7));
    let (finished, _) = run(&backend, "kill -TERM $$").await;
    assert_eq!(finished.exit, Exit::Signal(15));
}

/// A Rust host ignores SIGPIPE, and its programs inherited that: `yes | head` never ended quietly.
#[tokio::test]
async fn a_program_gets_every_signal_as_if_nothing_had_ignored_it() {
    let Some(backend) = backend() else { return };
    let (mut spec, log) = shell("");
    // Without a shell, because some shells ignore signals themselves.
    let program = ["/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"];
    spec.command = program.iter().map(Into::into).collect();
    let (_, output) = run_spec(&backend, spec, &log).await;
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[tokio::test]
async fn nothing_can_be_written_but_the_scratch_space() {
    let Some(backend) = backend() else { return };
    let script = "for f in /x /usr/x /etc/x /dev/x /proc/sys/kernel/hostname /proc/sysrq-trigger; do \
                  (echo x > $f) 2>/dev/null && echo wrote $f; done; echo x > /tmp/x && cat /tmp/x";
    let (_, output) = run(&backend, script).await;
    assert_eq!(output, "x\n");
    let (mut spec, log) = shell("head -c 20000000 /dev/zero > /tmp/big; stat -c %s /tmp/big");
    spec.limits.scratch_bytes = 1 << 20;
    let (_, output) = run_spec(&backend, spec, &log).await;
    // Two pipes, which may be read in any order.
    assert!(output.contains("1048576\n"), "{output}");
}

#[tokio::test]
async fn the_process_has_no_rights() {
    let Some(backend) = backend() else { return };
    let (_, output) = run(&backend, "cat /proc/self/status").await;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(output.contains(line), "{line} not in\n{output}");
    }
    let (_, output) = run(&backend, "ls /proc | grep -c '^[0-9]'; ls /proc/self/fd").await;
    // init, sh, ls, and possibly grep; then the descriptors 0, 1, 2 and that of ls itself.
    let (processes, descriptors) = output.split_once('\n').expect("lines");
    assert!(matches!(processes, "3" | "4"), "{output}");
    assert_eq!(descriptors, "0\n1\n2\n3\n");
    let (_, output) = run(
        &backend,
        "cat /proc/1/environ && echo READ; unshare -U true && echo UNSHARED; \
         mount -t tmpfs x /tmp && echo MOUNTED; echo end",
    )
    .await;
    for done in ["READ", "UNSHARED", "MOUNTED"] {
        assert!(!output.contains(done), "{done} in\n{output}");
    }
    assert!(output.contains("end"), "{output}");
}

#[tokio::test]
async fn memory_is_killed_at_its_limit_and_told_by_its_event() {
    let Some(backend) = backend() else { return };
    let (mut spec, log) = shell("head -c 100000000 /dev/zero | tail | wc -c; exit 1");
    spec.limits.memory_bytes = 32 << 20;
    let (finished, output) = run_spec(&backend, spec, &log).await;
    assert!(finished.out_of_memory, "{finished:?} {output}");
    let peak = finished.usage.memory_peak_bytes.expect("measured");
    assert!(peak <= 32 << 20 && peak > 30 << 20, "{peak}");
    let (finished, _) = run(&backend, "kill -KILL $$").await;
    assert!(!finished.out_of_memory);
    assert_eq!(finished.exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit() {
    let Some(backend) = backend() else { return };
    let (mut spec, log) = shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; echo all");
    spec.limits.processes_max = 5;
    let began = Instant::now();
    let (finished, output) = run_spec(&backend, spec, &log).await;
    assert_ne!(finished.exit, Exit::Status(0));
    assert!(output.contains("fork"), "{output}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn bad_specifications_name_the_step_and_the_path() {
    let Some(backend) = backend() else { return };
    let (mut spec, _) = shell("");
    spec.root = spec.root.with_bind("/not/there", "/opt");
    let error = backend.create(spec).await.expect_err("refused");
    assert!(
        matches!(&error, Error::Failed { path: Some(path), .. } if path == Path::new("/not/there")),
        "{error:?}"
    );
    for program in ["/bin/not-there", "/usr"] {
        let (mut spec, _) = shell("");
        spec.command = vec![program.into()];
        let error = backend.create(spec).await.expect("created").run().await;
        let error = error.expect_err("refused");
        assert!(
            matches!(&error, Error::Failed { path: Some(path), .. } if path == Path::new(program)),
            "{error:?}"
        );
    }
    let (mut spec, _) = shell("");
    spec.working_directory = "/not/there".into();
    let error = backend.create(spec).await.expect_err("refused");
    assert!(
        matches!(&error, Error::Failed { path: Some(path), .. } if path == Path::new("/not/there")),
        "{error:?}"
    );
}

const HANDLER: &str = r#"
import os, time
def handler(event, context):
    print("got", event, flush=True)
    if event.get("eat"):
        return len(b"x" * event["eat"])
    if event.get("exit"):
        os._exit(7)
    if event.get("sleep"):
        time.sleep(event["sleep"])
    return {"id": context.aws_request_id, "host": os.uname().nodename}
"#;

/// A Python function under an unmodified `awslambdaric`, from the interpreter of `target/venv`.
fn python() -> Option<(tempfile::TempDir, SandboxSpec, Arc<MemoryLog>)> {
    let Some(python) = test_support::venv_program("python") else {
        test_support::left_out("awslambdaric on the Linux backend", "no target/venv");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.py"), HANDLER).expect("written");
    let (mut spec, log) = shell("");
    let interpreter = std::fs::canonicalize(&python).expect("python");
    let packages =
        std::fs::read_dir(python.parent().and_then(Path::parent).expect("venv").join("lib"))
            .expect("lib")
            .flatten()
            .map(|entry| entry.path().join("site-packages"))
            .next()
            .expect("packages");
    spec.root = (spec.root.with_interpreter(&interpreter).expect("an interpreter"))
        .with_bind(folder.path(), "/var/task")
        .with_bind(packages, "/opt/python");
    make_readable(folder.path());
    spec.command =
        vec![interpreter.into(), "-m".into(), "awslambdaric".into(), "app.handler".into()];
    spec.working_directory = "/var/task".into();
    spec.environment.extend([
        ("LAMBDA_TASK_ROOT".into(), "/var/task".into()),
        ("PYTHONPATH".into(), "/opt/python".into()),
        ("_HANDLER".into(), "app.handler".into()),
    ]);
    Some((folder, spec, log))
}

fn make_readable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("readable");
}

fn event(json: &str) -> Invocation {
    Invocation::new("id-1", json.to_owned(), Duration::from_secs(3))
}

#[tokio::test]
async fn python_answers_freezes_and_dies_as_lambda_says() {
    let Some(backend) = backend() else { return };
    let Some((_folder, spec, log)) = python() else {
        return;
    };
    let idle = async || {
        let created = backend.create(spec.clone()).await.expect("created");
        match created.init().await {
            Ok((idle, _)) => idle,
            Err(failure) => panic!("{failure:?} {:?}", String::from_utf8_lossy(&log.tail(4096))),
        }
    };
    let mut sandbox = idle().await;
    for _ in 0..3 {
        let (outcome, busy) = sandbox.invoke(event(r#"{"a": 1}"#)).await.expect("invoked");
        let Answer::Success(response) = outcome.answer else {
            panic!("{:?} {:?}", outcome.answer, log.lines());
        };
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(body, r#"{"id": "id-1", "host": "sandbox"}"#);
        assert!(outcome.usage.memory_peak_bytes > Some(1 << 20));
        assert!(outcome.usage.cpu_time > Some(Duration::ZERO));
        sandbox = busy.expect("usable").settle().await.expect("settled");
    }
    assert!(String::from_utf8_lossy(&log.tail(4096)).contains("got {'a': 1}"));
    sandbox.destroy().await.expect("destroyed");

    let (outcome, _) = (idle().await.invoke(event(r#"{"exit": 1}"#)).await).expect("invoked");
    assert_eq!(outcome.answer, Answer::Exited(Exit::Status(7)));
    let (outcome, _) =
        (idle().await.invoke(event(r#"{"eat": 900000000}"#)).await).expect("invoked");
    assert_eq!(outcome.answer, Answer::OutOfMemory);
    let (outcome, _) = (idle().await.invoke(event(r#"{"sleep": 60}"#)).await).expect("invoked");
    assert_eq!(outcome.answer, Answer::TimedOut);

    let (mut spec, _) = shell("exit 3");
    spec.times.init = Duration::from_secs(5);
    let failure = backend.create(spec).await.expect("created").init().await.expect_err("ends");
    assert!(matches!(failure, InitFailure::Exited(Exit::Status(3))), "{failure:?}");
    let (mut spec, _) = shell("sleep 60");
    spec.times.init = Duration::from_millis(200);
    let failure = backend.create(spec).await.expect("created").init().await.expect_err("ends");
    assert!(matches!(failure, InitFailure::TimedOut(_)), "{failure:?}");
}
