//! Limits of block I/O are enforced, and the time that a sandbox has stalled is reported.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::time::{Duration, Instant};

use common::{cold_file, shell_in};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, BlockIo, Capability, Error, Exit, Root};

fn backend(what: &str, needed: Capability) -> Option<LinuxBackend> {
    let backend = common::backend(what)?;
    if backend.capabilities().contains(&needed) {
        return Some(backend);
    }
    test_support::left_out(what, &format!("no {needed:?} here"));
    None
}

const BYTES: usize = 3 << 20;

#[tokio::test]
async fn reading_is_held_to_its_limit() {
    let what = "limits of block I/O";
    let Some(backend) = backend(what, Capability::BlockIoLimit) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    if !cold_file(folder.path(), BYTES) {
        test_support::left_out(what, "the folder for temporary files is on no disk");
        return;
    }
    let root = Root::of_machine().with_bind(folder.path(), "/var/task");
    let mut spec = shell_in(root, "cat /var/task/data > /dev/null");
    let rate = 1 << 20;
    spec.limits.block_io =
        Some(BlockIo { read_bytes_per_second: Some(rate), ..BlockIo::default() });
    // Reads the shell's programs into the page cache first. Their reading would be limited too.
    let mut warm = spec.clone();
    warm.limits.block_io = None;
    warm.command[2] = "cat /dev/null".into();
    backend.create(warm).await.expect("created").run().await.expect("run");
    let began = Instant::now();
    let created = backend.create(spec).await.expect("created");
    let finished = created.run().await.expect("run");
    assert_eq!(finished.exit, Exit::Status(0));
    // A lower bound that holds on any machine: three seconds' worth of bytes takes more than one
    // second.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(backend.groups(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_limit_of_nothing_is_refused() {
    let mut spec = shell_in(Root::of_machine(), "");
    spec.limits.block_io = Some(BlockIo { write_bytes_per_second: Some(0), ..BlockIo::default() });
    let refused = spec.check().expect_err("refused");
    assert!(matches!(refused, Error::Invalid { setting: "limits.block_io", .. }), "{refused:?}");
}

#[tokio::test]
async fn what_a_sandbox_waits_for_is_told() {
    let what = "pressure of a sandbox";
    let Some(backend) = backend(what, Capability::Pressure) else { return };
    let mut spec =
        shell_in(Root::of_machine(), "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    spec.limits.cpus = 0.2;
    let created = backend.create(spec).await.expect("created");
    let before = created.pressure().expect("told");
    let (finished, ended) = created.run_to_exit().await.expect("run");
    assert_eq!(finished.exit, Exit::Status(0));
    let after = ended.pressure().expect("told");
    // A fifth of a processor, for more work than fits in a tenth of a second.
    assert!(after.cpu.some > before.cpu.some, "{before:?} {after:?}");
    ended.destroy().await.expect("destroyed");
}
