//! Access to a living sandbox from outside: other programs in it, its usage, its events.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::time::Duration;

use common::{backend, runtime, shell};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{
    Backend, EndedBy, Error, Event, Events, Exec, Executed, Exit, Finished, Handle, Invocation,
    SandboxSpec,
};
use tokio::task::JoinHandle;

/// Starts a program that stays, and waits until it runs.
async fn living(
    backend: &LinuxBackend,
    spec: SandboxSpec,
) -> (Handle, JoinHandle<Result<Finished, Error>>) {
    let sandbox = backend.create(spec).await.expect("created");
    let handle = sandbox.handle().expect("a handle");
    let mut events = handle.events();
    let running = tokio::spawn(sandbox.run());
    assert_eq!(events.next().await, Some(Event::Started));
    (handle, running)
}

fn sh(script: &str) -> Exec {
    Exec::new(["/bin/sh", "-c", script]).with_env("PATH", "/usr/bin:/bin")
}

fn text(done: &Executed) -> String {
    [&done.stdout[..], &done.stderr[..]].iter().map(|it| String::from_utf8_lossy(it)).collect()
}

#[tokio::test]
async fn other_programs_run_behind_the_same_defences() {
    let Some(backend) = backend("other programs in a sandbox") else { return };
    let (handle, running) = living(&backend, shell("echo here > /tmp/f; sleep 100 & wait")).await;
    let exec = sh(
        "until grep here /tmp/f 2>/dev/null; do :; done; pwd; echo $A; cat; echo no >&2; exit 7",
    );
    let exec = exec.with_env("A", "b").in_folder("/usr").with_stdin("input\n");
    let done = handle.exec(exec).await.expect("run");
    assert_eq!(done.exit, Exit::Status(7));
    assert_eq!(
        (&done.stdout[..], &done.stderr[..]),
        (&b"here\n/usr\nb\ninput\n"[..], &b"no\n"[..])
    );

    let script = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; id -u; touch /usr/x; \
        unshare -U true; ls /proc | grep -c '^[0-9]'; ls -l /proc/self/fd | wc -l; cat /proc/1/environ";
    let done = handle.exec(sh(script)).await.expect("run");
    let said = text(&done);
    for wanted in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "\n1000\n",
        "Read-only file system",
        "Operation not permitted",
        "Permission denied",
    ] {
        assert!(said.contains(wanted), "{wanted:?} in {said}");
    }
    // "total" and 0 to 3, including the folder that `ls` reads.
    assert!(said.contains("\n5\n"), "{said}");
    let killed = handle.exec(sh("kill -9 $$")).await.expect("run");
    assert_eq!(killed.exit, Exit::Signal(libc::SIGKILL));
    for broken in [Exec::new(["/bin/none"]), sh("").in_folder("/none")] {
        let error = handle.exec(broken).await.expect_err("not there");
        assert!(
            matches!(&error, Error::Failed { source, .. } if source.kind()
            == std::io::ErrorKind::NotFound),
            "{error:?}"
        );
    }
    for broken in [
        Exec::new(Vec::<String>::new()),
        Exec::new(["relative"]),
        sh("a\0b"),
        sh("").with_env("A=B", ""),
        sh("").in_folder("../x"),
        Exec::new(vec!["/bin/true"; 5000]),
    ] {
        assert!(matches!(handle.exec(broken).await, Err(Error::Invalid { .. })));
    }
    // The kernel still counts processes for a moment after their end.
    let mut usage = handle.usage().expect("alive");
    for _ in 0..100 {
        if usage.processes == Some(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        usage = handle.usage().expect("alive");
    }
    assert!(usage.processes == Some(3), "the init, the shell and its child: {usage:?}");
    assert!(usage.memory_bytes > Some(0) && usage.memory_peak_bytes >= usage.memory_bytes);
    running.abort();
    drop(running.await);
}

#[tokio::test]
async fn a_dropped_exec_is_killed_and_many_run_at_once() {
    let Some(backend) = backend("many programs in a sandbox") else { return };
    let (handle, running) = living(&backend, shell("sleep 100")).await;
    let dropped =
        tokio::time::timeout(Duration::from_millis(200), handle.exec(sh("exec sleep 99")));
    assert!(dropped.await.is_err());
    let mut found = String::new();
    for _ in 0..100 {
        found =
            text(&handle.exec(sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).await.expect("run"));
        if !found.contains("sleep 99") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(found.contains("sleep 100") && !found.contains("sleep 99"), "{found}");

    let many: Vec<_> = (0..16)
        .map(|number| {
            let handle = handle.clone();
            let exec = sh(&format!("sleep 0.3; echo {number}"));
            tokio::spawn(async move { handle.exec(exec).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(handle.exec(sh("")).await, Err(Error::Exhausted { .. })));
    for (number, one) in many.into_iter().enumerate() {
        let done = one.await.expect("joined").expect("run");
        assert_eq!(text(&done), format!("{number}\n"), "{done:?}");
    }
    for _ in 0..100 {
        assert_eq!(handle.exec(sh("exit 3")).await.expect("run").exit, Exit::Status(3));
    }
    // They end with the sandbox.
    let last = tokio::spawn({
        let handle = handle.clone();
        async move { handle.exec(sh("sleep 100")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.abort();
    drop(running.await);
    assert!(matches!(last.await.expect("joined"), Err(Error::Ended)));
    assert!(matches!(handle.exec(sh("")).await, Err(Error::Ended)));
    assert!(matches!(handle.usage(), Err(Error::Ended)));
    assert_eq!(handle.events().next().await, None);
}

#[tokio::test]
async fn what_happens_is_told() {
    let Some(backend) = backend("events") else { return };
    let sandbox = backend
        .create(shell("sleep 100").with_wall_time(Duration::from_millis(100)))
        .await
        .expect("created");
    let handle = sandbox.handle().expect("a handle");
    let early = handle.exec(sh("")).await;
    assert!(matches!(early, Err(Error::Unavailable { .. })), "not started: {early:?}");
    let mut events = handle.events();
    sandbox.run().await.expect("run");
    assert_eq!(
        all(&mut events).await,
        [
            Event::Started,
            Event::LimitReached(EndedBy::WallTime),
            Event::Ended(Exit::Signal(libc::SIGKILL)),
        ]
    );

    let hungry = "(tail /dev/zero); sleep 0.3; exit 0";
    let sandbox = backend.create(shell(hungry).with_memory_mb(32)).await.expect("created");
    let mut events = sandbox.handle().expect("a handle").events();
    let finished = sandbox.run().await.expect("run");
    let told = all(&mut events).await;
    assert!(finished.out_of_memory);
    if finished.ended_by == EndedBy::Program {
        // With version 1 only the child is killed. With version 2 the whole group is.
        assert_eq!(told[1], Event::OutOfMemory(1));
    }

    if !std::path::Path::new("/bin/bash").exists() {
        return test_support::left_out("events of a function", "no bash");
    }
    let (idle, _) = backend.create(runtime()).await.expect("created").init().await.expect("init");
    let mut events = idle.handle().expect("a handle").events();
    let invocation = Invocation::new("id", "{}", Duration::from_secs(5));
    let (_, busy) = idle.invoke(invocation).await.expect("invoked");
    busy.expect("usable").settle().await.expect("settled").destroy().await.expect("destroyed");
    assert_eq!(all(&mut events).await, [Event::Busy, Event::Idle]);
}

async fn all(events: &mut Events) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event);
    }
    seen
}

#[tokio::test]
async fn the_process_backend_tells_what_it_can() {
    let spec = SandboxSpec::new(lambda_sandbox::Root::empty(), ["/bin/sleep", "0.2"]);
    let sandbox = ProcessBackend::new().create(spec).await.expect("created");
    let handle = sandbox.handle().expect("a handle");
    assert!(matches!(handle.exec(sh("")).await, Err(Error::Unavailable { .. })));
    let mut events = handle.events();
    sandbox.run().await.expect("run");
    assert_eq!(all(&mut events).await, [Event::Started, Event::Ended(Exit::Status(0))]);
}
