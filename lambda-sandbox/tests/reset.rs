//! A reset in place: programs end, and `/tmp`, limits and outputs stay for the next init.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::time::Duration;

use common::{ASK, RUNTIME, logged, text};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{
    After, Answer, Backend, Created, Error, Exit, Failed, Idle, Invocation, Sandbox, SandboxSpec,
    ShutdownReason,
};

/// Prints how often it was started in this `/tmp`, and then runs `work` in the first start.
fn restarted(work: &str) -> SandboxSpec {
    let mut spec = common::runtime();
    let count = "echo start >> /tmp/starts; echo start $(wc -l < /tmp/starts)\n";
    let work = format!("  [ $(wc -l < /tmp/starts) = 1 ] && {{ {work}; }}\n  ask \"POST");
    let runtime = RUNTIME.replace("  ask \"POST", &work);
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{count}{runtime}").into()];
    spec
}

fn event() -> Invocation {
    Invocation::new("id-1", "{}", Duration::from_secs(20))
}

async fn fail(idle: Sandbox<Idle>, event: Invocation) -> (Answer, Sandbox<Failed>) {
    match idle.try_invoke(event).await.expect("handed over") {
        (outcome, After::Failed(failed)) => (outcome.answer, failed),
        (outcome, After::Usable(_)) => panic!("{outcome:?}"),
    }
}

async fn answer(created: Sandbox<Created>) -> Sandbox<Idle> {
    let (idle, _) = created.init().await.expect("ready again");
    let (outcome, busy) = idle.invoke(event()).await.expect("invoked");
    assert!(matches!(&outcome.answer, Answer::Success(it) if it.body == "42"), "{outcome:?}");
    busy.expect("usable").settle().await.expect("settled")
}

fn backend() -> Option<LinuxBackend> {
    common::backend("resets in place")
}

#[tokio::test]
async fn files_stay_after_an_exit_a_crash_a_timeout_and_lack_of_memory() {
    let Some(backend) = backend() else { return };
    let hog = "head -c 200m /dev/zero | tail";
    for (work, expected, time) in [
        ("exit 3", Answer::Exited(Exit::Status(3)), 20_000),
        ("kill -SEGV $$", Answer::Exited(Exit::Signal(libc::SIGSEGV)), 20_000),
        ("sleep 600", Answer::TimedOut, 700),
        // Of all processes only `tail` is killed. The runtime that sees it ends.
        (&format!("{hog} || exit 1; exit 1"), Answer::OutOfMemory, 20_000),
    ] {
        let mut spec = restarted(work);
        let log = logged(&mut spec);
        let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("ready");
        let event = Invocation::new("id-1", "{}", Duration::from_millis(time));
        let (outcome, failed) = fail(idle, event).await;
        assert_eq!(outcome, expected, "{work}: {}", text(&log));
        assert!(failed.can_reset());
        let created = failed.reset(ShutdownReason::Failure).await.expect("reset");
        let mut idle = answer(created).await;
        // Kills by the memory limit before the reset are not counted again.
        let (outcome, busy) = idle.invoke(self::event()).await.expect("invoked");
        assert!(matches!(outcome.answer, Answer::Success(_)), "{work}: {outcome:?}");
        idle = busy.expect("usable").settle().await.expect("settled");
        assert!(text(&log).contains("start 2"), "{work}: {}", text(&log));
        idle.destroy().await.expect("released");
    }
    assert!(backend.groups().is_empty(), "{:?}", backend.groups());
}

#[tokio::test]
async fn no_process_survives_a_reset() {
    let Some(backend) = backend() else { return };
    // A daemon in a session of its own, which keeps a connection to the Runtime API and asks for
    // the next invocation.
    let work = "setsid bash -c 'exec 4<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}; \
                printf \"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\" >&4; \
                while sleep 0.05; do echo alive; done' & sleep 0.3; exit 1";
    let mut spec = restarted(work);
    let log = logged(&mut spec);
    let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("ready");
    let (_, failed) = fail(idle, event()).await;
    let created = failed.reset(ShutdownReason::Failure).await.expect("reset");
    let before = text(&log).matches("alive").count();
    assert!(before > 0, "{}", text(&log));
    let idle = answer(created).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(text(&log).matches("alive").count(), before);
    idle.destroy().await.expect("released");
}

#[tokio::test]
async fn a_failed_init_can_be_tried_again_with_another_limit() {
    let Some(backend) = backend() else { return };
    let mut spec = common::runtime();
    let count = "echo start >> /tmp/starts; [ $(wc -l < /tmp/starts) = 1 ] && sleep 600\n";
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{count}{RUNTIME}").into()];
    spec.times.init = Duration::from_millis(400);
    let failed = backend.create(spec).await.expect("created").try_init().await.expect_err("late");
    let created = failed.sandbox.reset(ShutdownReason::Timeout).await.expect("reset");
    let idle = answer(created.with_init_limit(Duration::from_secs(20))).await;
    idle.destroy().await.expect("released");
}

#[tokio::test]
async fn a_killed_sandbox_is_not_reset() {
    let Some(backend) = backend() else { return };
    let spec = restarted("sleep 600");
    let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("ready");
    let killer = idle.killer();
    let (ended, ()) = tokio::join!(fail(idle, event()), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        killer.kill();
    });
    let (_, failed) = ended;
    assert!(!failed.can_reset());
    let error = failed.reset(ShutdownReason::Failure).await.expect_err("killed");
    assert!(matches!(error, Error::Ended | Error::Failed { .. }), "{error:?}");
}

/// A runtime that writes lines when it loses its connection while it waits for an invocation.
fn complaining() -> SandboxSpec {
    let mut spec = common::runtime();
    let runtime = RUNTIME.replace("echo runtime starts", "").replace("  id=", COMPLAINT);
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{runtime}").into()];
    spec
}

const COMPLAINT: &str = "  read -r -u 3 || while true; do echo lost; done\n  id=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_does_not_see_its_connection_end_before_it_ends() {
    let Some(backend) = backend() else { return };
    for round in 0..60 {
        let mut spec = complaining();
        let log = logged(&mut spec);
        let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("ready");
        match round % 3 {
            0 => idle.destroy().await.expect("destroyed"),
            1 => drop(idle),
            _ => {
                let (_, busy) = idle.invoke(event()).await.expect("invoked");
                // The runtime asks for the next invocation, and is not frozen.
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(busy);
            }
        }
        assert_eq!(text(&log), "", "in round {round}");
    }
}
