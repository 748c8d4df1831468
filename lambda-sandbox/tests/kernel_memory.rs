//! Kernel memory that a program causes is charged to its sandbox, limited or refused. With each
//! kind of kernel memory a sandbox of 128 MiB makes the machine's use grow by at most 160 MiB,
//! measured from outside.
//!
//! The test program runs itself inside. The README's table has the same kinds.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

mod common;
mod growth;
mod unprivileged;

use std::time::Duration;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Defence, EndedBy, Exit, Root, SandboxSpec};

use self::unprivileged::With;

const LIMIT_BYTES: u64 = 128 << 20;
const GROWTH_MAX_BYTES: u64 = 160 << 20;
/// Other programs use the machine too, so a measurement that is too large is repeated up to this
/// number of times.
const TRIES: usize = 3;

/// Run in the sandbox by another test, not on its own.
#[test]
fn inside() {
    if let Ok(kind) = std::env::var("KERNEL_MEMORY") {
        let (_, fill) = growth::KINDS.iter().find(|it| it.0 == kind).expect("there");
        fill();
    }
}

/// Returns the machine's memory in use, without caches that can be evicted.
fn in_use() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("told");
    let kib = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        let number = line.and_then(|line| line.split_whitespace().nth(1)).expect("there");
        number.parse().expect("a number")
    };
    let free = ["MemFree", "Buffers", "Cached", "SReclaimable"].map(kib).iter().sum::<u64>();
    let huge = (kib("HugePages_Total") - kib("HugePages_Free")) * kib("Hugepagesize");
    let store = kib("HugePages_Total") * kib("Hugepagesize");
    (kib("MemTotal") + kib("Shmem") + huge).saturating_sub(free + store) * 1024
}

/// Returns how much the machine's use grows while a program fills this kind of memory.
async fn grown(backend: &LinuxBackend, kind: &str) -> (u64, String) {
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/probe");
    let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    spec.environment = vec![("KERNEL_MEMORY".into(), kind.into())];
    spec.limits.memory_bytes = LIMIT_BYTES;
    spec.limits.cpus = 2.0;
    let log = common::logged(&mut spec);
    let before = in_use();
    let sandbox = backend.create(spec).await.expect("created");
    let killer = sandbox.killer();
    let running = tokio::spawn(sandbox.run());
    let mut most = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(in_use().saturating_sub(before));
        if running.is_finished() {
            break;
        }
    }
    killer.kill();
    let finished = running.await.expect("joined").expect("run");
    backend.sweep().await.expect("swept");
    let said = common::text(&log);
    let said = said.lines().rfind(|line| line.starts_with("kept ")).unwrap_or("not done");
    (most, format!("{said}, ended by {}", finished.ended_by))
}

#[tokio::test]
async fn no_kind_of_kernel_memory_is_without_a_bound() {
    if std::env::var_os("KERNEL_MEMORY").is_some() {
        return;
    }
    let Some(backend) = common::backend("kinds of kernel memory") else { return };
    let only = std::env::var("ONLY").ok();
    let mut beyond = Vec::new();
    for (kind, _) in
        growth::KINDS.iter().filter(|it| only.as_deref().is_none_or(|only| it.0 == only))
    {
        let mut least = u64::MAX;
        for _ in 0..TRIES {
            let (grown, said) = grown(&backend, kind).await;
            println!("{kind}: {} MiB, {said}", grown >> 20);
            least = least.min(grown);
            if least <= GROWTH_MAX_BYTES {
                break;
            }
        }
        if least > GROWTH_MAX_BYTES {
            beyond.push(format!("{kind}: {} MiB", least >> 20));
        }
    }
    assert_eq!(beyond, Vec::<String>::new());
}

/// Kinds that no control group is charged for. The host kills a sandbox that holds too many of
/// them, also without root and without control groups.
const COUNTED: [&str; 2] = ["locks of ranges", "TCP connections that nobody takes"];

#[tokio::test]
async fn who_holds_too_many_is_killed() {
    if std::env::var_os("KERNEL_MEMORY").is_some() {
        return;
    }
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "what no group counts") else { return };
    let isolation = backend.isolation();
    assert!(isolation.in_force.contains_key(&Defence::KernelMemory), "{isolation}");
    for kind in COUNTED {
        let me = std::env::current_exe().expect("a path");
        let root = Root::of_machine().with_bind(me, "/probe");
        let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
        let mut spec = SandboxSpec::new(root, command).with_env("KERNEL_MEMORY", kind);
        spec.limits.cpus = 2.0;
        let (finished, said) = common::run(&backend, spec).await;
        assert_eq!(finished.exit, Exit::Signal(9), "{kind}: {finished:?} {said}");
        assert_eq!(finished.ended_by, EndedBy::KernelMemory, "{kind}: {finished:?} {said}");
    }
    // A small number is allowed.
    let few = "import fcntl\nf = open('/tmp/f', 'w')\nfor i in range(1000): fcntl.lockf(f, fcntl.LOCK_EX, 1, 2 * i)\nprint('held')";
    if std::path::Path::new("/usr/bin/python3").exists() {
        let mut spec = common::shell("");
        spec.command = ["/usr/bin/python3", "-c", few].map(Into::into).into();
        assert_eq!(common::run(&backend, spec).await.1, "held\n");
    }
}

#[test]
fn without_root() {
    if std::env::var_os("KERNEL_MEMORY").is_none() && unprivileged::inside().is_none() {
        unprivileged::run("who_holds_too_many_is_killed", With::Nothing);
    }
}
