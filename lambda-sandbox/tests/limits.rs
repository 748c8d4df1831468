//! Limits are met exactly: processor share beside a busy neighbour, output without end, frozen means still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{
    Backend, Error, Exit, InitFailure, LogLine, LogSink, MemoryLog, Root, SandboxSpec,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

fn backend() -> Option<LinuxBackend> {
    match LinuxBackend::new() {
        Ok(backend) => Some(backend),
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out("limits of the Linux backend", &error.to_string());
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn shell(script: &str) -> SandboxSpec {
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let mut spec = SandboxSpec::new("f", Root::of_machine(), command);
    spec.limits.cpus = 1.0;
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_held_to_the_share_beside_a_busy_neighbour() {
    let Some(backend) = backend() else { return };
    let seconds = if std::env::var_os("TEST_LONG").is_some() { 5 } else { 2 };
    let spin = format!("exec timeout {seconds} sh -c 'while :; do :; done'");
    let mut neighbour = shell("while :; do :; done");
    neighbour.limits.cpus = 1.0;
    let neighbour = backend.create(neighbour).await.expect("created");
    let killer = neighbour.killer();
    let neighbour = tokio::spawn(neighbour.run());
    for cpus in [0.1, 0.5] {
        // One period of 100 ms more or less at either end.
        let slack = 0.05 * cpus + 0.1 * cpus / f64::from(seconds);
        let mut best: f64 = 0.0;
        for _ in 0..12 {
            let mut spec = shell(&spin);
            spec.limits.cpus = cpus;
            let finished = backend.create(spec).await.expect("created").run().await.expect("run");
            let used = finished.usage.cpu_time.expect("measured").as_secs_f64();
            let share = used / finished.usage.duration.as_secs_f64();
            assert!(share <= cpus + slack, "{share} of {cpus}");
            best = best.max(share);
            if best >= cpus - slack {
                break;
            }
        }
        // A share is the most that a sandbox gets. Where the machine has less to give, a plain thread gets
        // less than the whole of a processor too.
        if best < cpus - slack {
            let plain = plain_share();
            assert!(plain < 0.9, "{best} of {cpus}, though a plain thread gets {plain}");
            eprintln!(
                "this machine had {plain:.2} of a processor for a plain thread: {best:.3} of {cpus}"
            );
        }
    }
    killer.kill();
    neighbour.await.expect("joined").expect("run");
}

/// The share of a processor that a thread gets that nobody limits.
fn plain_share() -> f64 {
    let spinning = std::thread::spawn(|| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {}
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("measured");
        let time = usage.user_time() + usage.system_time();
        let micros = u32::try_from(time.num_microseconds()).expect("about a second");
        f64::from(micros) / 1e6 / start.elapsed().as_secs_f64()
    });
    spinning.join().expect("spun")
}

#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    longest: AtomicU64,
}

impl LogSink for Counter {
    fn line(&self, line: LogLine) {
        let length = line.text.len() as u64;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.longest.fetch_max(length, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn output_without_end_is_passed_on_in_bounded_pieces() {
    let Some(backend) = backend() else { return };
    let bytes: u64 =
        if std::env::var_os("TEST_LONG").is_some() { 1_000_000_000 } else { 100_000_000 };
    let counter = Arc::new(Counter::default());
    let mut spec = shell(&format!("head -c {bytes} /dev/zero; echo; echo last; kill -ABRT $$"));
    spec.log = counter.clone();
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    assert_eq!(finished.exit, Exit::Signal(6));
    assert_eq!(counter.bytes.load(Ordering::Relaxed), bytes + 4);
    assert!(counter.longest.load(Ordering::Relaxed) <= 16 * 1024);

    // The last lines before a crash are there, and no more than the bound.
    let log = Arc::new(MemoryLog::new(64 * 1024));
    let mut spec = shell("yes | head -c 20000000; echo last words; kill -KILL $$");
    spec.log = log.clone();
    backend.create(spec).await.expect("created").run().await.expect("run");
    assert!(log.tail(4096).ends_with(b"y\nlast words\n"));
    assert!(log.tail(usize::MAX).len() <= 64 * 1024);
}

/// Asks for an invocation as a runtime does, then spins: frozen in the middle of that, it must stand still.
const SPINNING_RUNTIME: &str = r#"
import os, socket, threading
ticks = open("/tmp/ticks", "w")
s = socket.create_connection(("127.0.0.1", 9001))
s.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n")
while True:
    pass
"#;

#[tokio::test]
async fn frozen_uses_no_processor_time() {
    let Some(backend) = backend() else { return };
    let seconds = if std::env::var_os("TEST_LONG").is_some() { 10 } else { 2 };
    let mut spec = shell("");
    spec.command = vec!["/usr/bin/python3".into(), "-c".into(), SPINNING_RUNTIME.into()];
    if !std::path::Path::new("/usr/bin/python3").exists() {
        test_support::left_out("a frozen sandbox uses no processor time", "no /usr/bin/python3");
        return;
    }
    let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("init");
    let stat = backend
        .groups()
        .into_iter()
        .map(|group| group.join("cpu.stat"))
        .find(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("usage_usec")))
        .expect("a v2 group");
    let used = || {
        let text = std::fs::read_to_string(&stat).expect("read");
        let line = text.lines().next().expect("a line");
        line.trim_start_matches("usage_usec ").parse::<u64>().expect("a number")
    };
    // The kernel freezes a running process at its next stop, a moment after it is asked to.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = used();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(used(), before);
    idle.destroy().await.expect("destroyed");
}

#[tokio::test]
async fn scratch_space_is_limited_in_files() {
    let Some(backend) = backend() else { return };
    let log = Arc::new(MemoryLog::new(1 << 20));
    let mut spec = shell("i=0; while : > /tmp/$i; do i=$((i+1)); done 2>/dev/null; echo $i");
    spec.limits.scratch_files_max = 50;
    spec.log = log.clone();
    backend.create(spec).await.expect("created").run().await.expect("run");
    let made: u32 = String::from_utf8_lossy(&log.tail(64)).trim().parse().unwrap_or_default();
    // dash ends the script when a redirection of `:` is refused, so that nothing is printed; other shells print.
    assert!(made <= 50, "{made}");
}

#[tokio::test]
async fn killing_a_fork_bomb_ends_it_within_a_second() {
    let Some(backend) = backend() else { return };
    let mut spec = shell("b() { b | b & }; b; sleep 60");
    spec.limits.processes_max = 200;
    spec.times.init = Duration::from_millis(500);
    let created = backend.create(spec).await.expect("created");
    let failure = created.init().await.expect_err("no runtime");
    assert!(matches!(failure, InitFailure::TimedOut(_) | InitFailure::Exited(_)), "{failure:?}");
    let began = Instant::now();
    while !backend.groups().is_empty() && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
