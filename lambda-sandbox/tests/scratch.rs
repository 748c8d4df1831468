//! Scratch space on disk: its size is its own and not of the sandbox's memory, and nothing of it is
//! left.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::time::{Duration, Instant};

use common::{backend_with, run, shell};
use lambda_sandbox::linux::{LinuxBackend, Settings};

fn backend(folder: &std::path::Path) -> Option<LinuxBackend> {
    backend_with(&Settings::default().with_scratch_folder(folder), "scratch space on disk")
}

#[tokio::test]
async fn files_may_be_larger_than_the_memory_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(backend) = backend(folder.path()) else { return };
    let script = "ls -A /tmp; dd if=/dev/zero of=/tmp/a bs=1M count=300 2>/dev/null && wc -c < /tmp/a; \
                  stat -f -c %a:%S /tmp; stat -c %a:%U /tmp; id -u";
    let mut spec = shell(script);
    spec.limits.memory_bytes = 128 << 20;
    let (finished, output) = run(&backend, spec).await;
    assert!(finished.is_success(), "{finished:?} {output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], (300 << 20).to_string(), "{output}");
    let (free, size) = lines[1].split_once(':').expect("two numbers");
    let free = free.parse::<u64>().expect("blocks") * size.parse::<u64>().expect("bytes");
    // A file of 300 MiB needs some blocks for its extents.
    assert!(((211 << 20)..=(212 << 20)).contains(&free), "{free}");
    assert!(lines[2].starts_with("1777"), "{output}");
    drop(backend);
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0, "no names");
}

#[tokio::test]
async fn the_limits_of_bytes_and_files_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(backend) = backend(folder.path()) else { return };
    let script = "dd if=/dev/zero of=/tmp/a bs=1M count=100 2>/dev/null || echo full; rm /tmp/a; \
                  i=0; while [ $i -lt 200 ] && true 2>/dev/null > /tmp/f$i; do i=$((i+1)); done; echo $i";
    let mut spec = shell(script);
    spec.limits.scratch_bytes = 64 << 20;
    spec.limits.scratch_files_max = 100;
    let (_, output) = run(&backend, spec).await;
    assert!(output.starts_with("full\n"), "{output}");
    // The kernel counts files in steps of 16 here.
    let files: u64 = output.lines().last().and_then(|it| it.parse().ok()).expect("a number");
    assert!((100..=120).contains(&files), "{output}");
}

#[tokio::test]
async fn one_sandbox_sees_nothing_of_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(backend) = backend(folder.path()) else { return };
    // More than are made ahead.
    for _ in 0..8 {
        let (finished, output) = run(&backend, shell("ls -A /tmp; echo secret > /tmp/file")).await;
        assert!(finished.is_success() && output.is_empty(), "{output}");
    }
}

/// Prints how long a start takes with scratch space in memory and on disk, with pauses and without.
#[tokio::test]
#[ignore = "prints figures, asserts nothing of them"]
async fn starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(on_disk) = backend(folder.path()) else { return };
    let Some(in_memory) = backend_with(&Settings::default(), "scratch space in memory") else {
        return;
    };
    for pause_ms in [100, 0] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..60 {
            for (backend, times) in [&in_memory, &on_disk].into_iter().zip(&mut times) {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                let began = Instant::now();
                let (finished, _) = run(backend, shell("true")).await;
                times.push(began.elapsed());
                assert!(finished.is_success());
            }
        }
        let [memory, disk] = times.map(|mut it| {
            it.sort();
            (it[it.len() / 2], it[it.len() * 9 / 10])
        });
        println!("pause {pause_ms} ms: memory {memory:?}, disk {disk:?} (median, 90th percentile)");
    }
}
