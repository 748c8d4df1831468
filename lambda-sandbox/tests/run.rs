//! Programs run to their end in one call: the cause of their end, input, output and limits.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{backend, shell};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{
    Backend, Completed, EndedBy, Error, Exit, ResourceLimits, Root, SandboxSpec, Stdin,
};

async fn run(backend: &LinuxBackend, spec: SandboxSpec) -> Completed {
    let completed = backend.run(spec).await.expect("run");
    assert!(backend.groups().is_empty(), "everything is released");
    completed
}

#[tokio::test]
async fn who_ended_it_is_told() {
    let Some(backend) = backend("ends of programs") else { return };
    let check = async |spec: SandboxSpec, ended_by: EndedBy, exit: Option<Exit>| {
        let began = Instant::now();
        let Completed { finished, stderr, .. } = run(&backend, spec).await;
        assert_eq!(finished.ended_by, ended_by, "{finished:?} {stderr:?}");
        if let Some(exit) = exit {
            assert_eq!(finished.exit, exit);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{ended_by:?}: {:?}", began.elapsed());
    };
    check(shell("exit 3"), EndedBy::Program, Some(Exit::Status(3))).await;
    check(shell("kill -SEGV $$"), EndedBy::Signal, Some(Exit::Signal(libc::SIGSEGV))).await;
    let patient = shell("sleep 100").with_wall_time(Duration::from_millis(200));
    check(patient, EndedBy::WallTime, Some(Exit::Signal(libc::SIGKILL))).await;
    let busy = shell("while :; do :; done").with_processor_time(Duration::from_millis(200));
    check(busy, EndedBy::ProcessorTime, None).await;
    // Children and ignored signals do not evade the limit.
    let busy = shell("trap '' TERM INT XCPU; (while :; do :; done) & (while :; do :; done) & wait");
    let busy = busy.with_processor_time(Duration::from_millis(200)).with_cpus(2.0);
    check(busy, EndedBy::ProcessorTime, None).await;
    let flood = shell("yes").with_output_bytes_max(100_000);
    check(flood, EndedBy::Output, None).await;
    let flood = shell("while :; do echo >&2; done").with_output_bytes_max(1_000);
    check(flood, EndedBy::Output, None).await;
    let hungry = shell("exec tail /dev/zero").with_memory_mb(64);
    check(hungry, EndedBy::Memory, Some(Exit::Signal(libc::SIGKILL))).await;
    // A program's own SIGKILL is not reported as the memory limit.
    check(shell("kill -KILL $$"), EndedBy::Signal, Some(Exit::Signal(libc::SIGKILL))).await;
}

#[tokio::test]
async fn the_host_may_kill_it() {
    let Some(backend) = backend("a kill by the host") else { return };
    let sandbox = backend.create(shell("sleep 100")).await.expect("created");
    let killer = sandbox.killer();
    let running = tokio::spawn(sandbox.run());
    tokio::time::sleep(Duration::from_millis(100)).await;
    killer.kill();
    let finished = running.await.expect("joined").expect("run");
    assert_eq!(finished.ended_by, EndedBy::Host);
    assert_eq!(finished.exit, Exit::Signal(libc::SIGKILL));
}

#[tokio::test]
async fn times_are_held_closely() {
    let Some(backend) = backend("limits of time") else { return };
    let limit = Duration::from_millis(300);
    let spec = shell("while :; do :; done").with_processor_time(limit);
    let used = run(&backend, spec).await.finished.usage.cpu_time.expect("counted");
    assert!(used >= limit && used < limit + Duration::from_millis(200), "{used:?}");
    let spec = shell("while :; do :; done").with_cpus(0.1).with_processor_time(limit / 10);
    let used = run(&backend, spec).await.finished.usage.cpu_time.expect("counted");
    assert!(used >= limit / 10 && used < limit, "{used:?}");
}

#[tokio::test]
async fn outputs_come_apart_and_whole() {
    let Some(backend) = backend("outputs") else { return };
    let script = r"printf 'a\nb'; printf '\0\377' >&2; sleep 0.1; printf 'c\n\n'";
    let Completed { stdout, stderr, truncated, .. } = run(&backend, shell(script)).await;
    assert_eq!((&stdout[..], &stderr[..], truncated), (&b"a\nbc\n\n"[..], &b"\0\xFF"[..], false));
    let large = run(&backend, shell("head -c 3000000 /dev/zero; echo end")).await;
    assert_eq!(large.stdout.len(), 3_000_004);
    assert!(large.stdout.ends_with(b"\0end\n") && !large.truncated);
    let cut = run(&backend, shell("seq 1000000").with_output_bytes_max(10)).await;
    assert_eq!((&cut.stdout[..], cut.truncated), (&b"1\n2\n3\n4\n5\n"[..], true));
}

/// The report of a program's end can arrive before tokio is notified of its output. The output was
/// lost then.
#[tokio::test]
async fn the_last_words_of_short_programs_are_not_lost() {
    let Some(backend) = backend("last words") else { return };
    let running: Vec<_> = (0..100)
        .map(|number| {
            let (backend, spec) = (backend.clone(), shell(&format!("echo {number}")));
            tokio::spawn(async move { backend.run(spec).await })
        })
        .collect();
    for (number, running) in running.into_iter().enumerate() {
        let done = running.await.expect("joined").expect("run");
        assert_eq!(done.stdout, format!("{number}\n"), "{done:?}");
    }
}

#[tokio::test]
async fn input_is_bytes_or_a_reader() {
    let Some(backend) = backend("standard input") else { return };
    let cat = || shell("cat");
    assert_eq!(run(&backend, cat()).await.stdout, "", "empty where none is given");
    assert_eq!(run(&backend, cat().with_stdin("hello")).await.stdout, "hello");
    let many = vec![b'x'; 5_000_000];
    let counted = run(&backend, shell("wc -c").with_stdin(many.clone())).await;
    assert_eq!(counted.stdout, "5000000\n");
    // The host does not wait for a program that reads only a part of its input, nor for one that
    // ends meanwhile.
    let deaf = run(&backend, shell("head -c 3").with_stdin(many)).await;
    assert_eq!(deaf.stdout, "xxx");

    let (mut writer, reader) = tokio::io::duplex(64);
    let spec = shell("while read line; do echo got $line; done").with_stdin(Stdin::reader(reader));
    let again = spec.clone();
    let writing = async move {
        for number in 0..1000 {
            let line = format!("{number}\n");
            tokio::io::AsyncWriteExt::write_all(&mut writer, line.as_bytes()).await.expect("read");
        }
    };
    let (completed, ()) = tokio::join!(backend.run(spec), writing);
    let stdout = completed.expect("run").stdout;
    assert!(stdout.starts_with(b"got 0\n") && stdout.ends_with(b"got 999\n"));
    let error = backend.run(again).await.expect_err("the reader is read");
    assert!(matches!(error, Error::Invalid { setting: "stdin", .. }), "{error:?}");
}

#[tokio::test]
async fn the_process_backend_runs_alike() {
    let backend = ProcessBackend::new();
    let sh = |script: &str| SandboxSpec::new(Root::empty(), ["/bin/sh", "-c", script]);
    let completed =
        backend.run(sh("cat; echo no >&2; exit 4").with_stdin("yes")).await.expect("run");
    assert_eq!(completed.finished.exit, Exit::Status(4));
    assert_eq!((&completed.stdout[..], &completed.stderr[..]), (&b"yes"[..], &b"no\n"[..]));
    let slow = sh("sleep 100").with_wall_time(Duration::from_millis(100));
    assert_eq!(backend.run(slow).await.expect("run").finished.ended_by, EndedBy::WallTime);
    let error = backend.run(sh("").with_processor_time(Duration::from_secs(1))).await;
    assert!(matches!(error, Err(Error::Unavailable { .. })), "it counts no processor time");
}

#[tokio::test]
async fn each_process_is_held_to_its_resources() {
    let Some(backend) = backend("limits of each process") else { return };
    let mut spec = shell("ulimit -s; ulimit -f; ulimit -v; ulimit -l; ulimit -t; ulimit -c");
    spec.limits.resources = ResourceLimits::default()
        .with_stack_bytes(1 << 20)
        .with_file_bytes(1 << 20)
        .with_address_space_bytes(1 << 30)
        .with_locked_bytes(4096)
        .with_processor_seconds(7);
    let told = run(&backend, spec.clone()).await;
    assert_eq!(told.stdout, "1024\n2048\n1048576\n4\n7\n0\n");
    spec.command = ["/bin/sh", "-c", "head -c 2000000 /dev/zero > /tmp/x"].map(Into::into).to_vec();
    let large = run(&backend, spec.clone()).await;
    assert!(!large.finished.is_success(), "{large:?}");
    for broken in [
        ResourceLimits::default().with_stack_bytes(1),
        ResourceLimits::default().with_address_space_bytes(1),
        ResourceLimits::default().with_processor_seconds(0),
    ] {
        spec.limits.resources = broken;
        assert!(matches!(spec.check(), Err(Error::Invalid { .. })), "{broken:?}");
    }
}

#[tokio::test]
async fn processors_are_chosen_and_shared_by_weight() {
    let Some(backend) = backend("a choice of processors") else { return };
    let mut spec = shell("nproc; taskset -pc 0,1 $$ >/dev/null 2>&1; nproc");
    spec.limits.processors = Some(BTreeSet::from([0]));
    match backend.run(spec.clone()).await {
        Ok(told) => assert_eq!(told.stdout, "1\n1\n", "and it cannot choose more itself"),
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out("a choice of processors", &error.to_string());
        }
        Err(error) => panic!("{error:?}"),
    }
    for broken in [BTreeSet::new(), BTreeSet::from([9000])] {
        spec.limits.processors = Some(broken);
        assert!(matches!(spec.check(), Err(Error::Invalid { .. })));
    }
    let mut spec = shell("cat /sys/fs/cgroup/cpu.weight");
    spec.limits.cpu_weight = Some(300);
    assert_eq!(run(&backend, spec.clone()).await.stdout, "300\n");
    spec.limits.cpu_weight = Some(0);
    assert!(matches!(spec.check(), Err(Error::Invalid { .. })));
    spec.limits.cpu_weight = Some(10_001);
    assert!(matches!(spec.check(), Err(Error::Invalid { .. })));
}
