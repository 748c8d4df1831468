//! Limits are exact: a program takes as much as it can of one resource, and reports how much it
//! got.
//!
//! The test program runs itself inside the sandbox, with the one test `inside`, which takes the
//! resource named by `TAKE`.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::fs::File;
use std::io::{Error as IoError, Write as _};
use std::sync::Arc;

use common::{logged, text};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Exit, Finished, MemoryLog, Root, SandboxSpec};

/// The memory limit, in bytes, of a sandbox that takes memory until it is killed.
const MEMORY_BYTES: u64 = 48 << 20;
const PIECE_BYTES: usize = 1 << 20;

fn errno() -> i32 {
    IoError::last_os_error().raw_os_error().unwrap_or_default()
}

/// Runs in the sandbox: takes a resource until it is refused. Prints the amount and the errno.
#[test]
fn inside() {
    let Some(what) = std::env::var_os("TAKE") else {
        return;
    };
    let (took, errno) = match what.to_str().expect("a word") {
        "processes" => processes(),
        "threads" => threads(),
        "descriptors" => descriptors(),
        "bytes" => bytes(),
        "files" => files(),
        "folders" => folders(),
        "heap" => heap(),
        "scratch" => pages(&mut File::create("/tmp/pages").expect("made")),
        "memory file" => memory_file(),
        "shared memory" => shared_memory(),
        "pipes" => pipes(),
        other => panic!("{other}"),
    };
    writeln!(std::io::stdout(), "took|{took}|{errno}|").expect("written");
}

fn processes() -> (usize, i32) {
    let mut took = std::fs::read_dir("/proc/self/task").expect("own threads").count();
    loop {
        // SAFETY: the child makes one system call and never returns from it.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: pause reads and writes no memory.
                unsafe { libc::pause() };
            },
            -1 => return (took, errno()),
            _child => took += 1,
        }
    }
}

fn threads() -> (usize, i32) {
    let mut took = std::fs::read_dir("/proc/self/task").expect("own threads").count();
    loop {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        match thread.spawn(|| {
            loop {
                std::thread::park()
            }
        }) {
            Ok(_running) => took += 1,
            Err(error) => return (took, error.raw_os_error().unwrap_or_default()),
        }
    }
}

fn descriptors() -> (usize, i32) {
    let mut open = vec![File::open("/dev/null").expect("opened")];
    loop {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => {
                let listed = open.pop().map(drop).map(|()| std::fs::read_dir("/proc/self/fd"));
                // The listing has a descriptor itself, in the place of the closed one.
                let all = listed.expect("one was open").expect("listed").count();
                return (all, error.raw_os_error().unwrap_or_default());
            }
        }
    }
}

fn bytes() -> (usize, i32) {
    let mut file = File::create("/tmp/all").expect("made");
    let mut took = 0;
    loop {
        match file.write(&[1; 1000]) {
            Ok(written) => took += written,
            Err(error) => return (took, error.raw_os_error().unwrap_or_default()),
        }
    }
}

fn files() -> (usize, i32) {
    for took in 0.. {
        if let Err(error) = File::create(format!("/tmp/{took}")) {
            return (took, error.raw_os_error().unwrap_or_default());
        }
    }
    unreachable!("there are not as many files as numbers")
}

fn folders() -> (usize, i32) {
    let mut path = std::path::PathBuf::from("/tmp");
    for took in 0.. {
        path.push("f");
        if let Err(error) = std::fs::create_dir(&path) {
            return (took, error.raw_os_error().unwrap_or_default());
        }
    }
    unreachable!("there are not as many folders as numbers")
}

fn heap() -> (usize, i32) {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; PIECE_BYTES]);
        assert!(held.len() < 1024, "1 GiB of heap");
    }
}

fn pages(file: &mut File) -> (usize, i32) {
    for took in 0..1024 {
        if let Err(error) = file.write_all(&[1; PIECE_BYTES]) {
            return (took, error.raw_os_error().unwrap_or_default());
        }
    }
    panic!("1 GiB of pages")
}

fn memory_file() -> (usize, i32) {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the name is a C string that lives for ever.
    let file = unsafe { libc::memfd_create(c"held".as_ptr(), 0) };
    assert!(file >= 0, "memfd_create: {}", errno());
    // SAFETY: the descriptor was made above and nobody else has it.
    pages(&mut unsafe { File::from_raw_fd(file) })
}

fn shared_memory() -> (usize, i32) {
    for took in 0..1024 {
        // SAFETY: shmget reads and writes no memory of ours.
        let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, PIECE_BYTES, 0o600) };
        if segment < 0 {
            return (took, errno());
        }
        // SAFETY: the kernel chooses a free place for the segment made above.
        let place = unsafe { libc::shmat(segment, std::ptr::null(), 0) };
        assert!(place.addr() != usize::MAX, "shmat: {}", errno());
        // SAFETY: the segment of `PIECE_BYTES` was mapped there for writing, and is never unmapped.
        unsafe { place.cast::<u8>().write_bytes(1, PIECE_BYTES) };
    }
    panic!("1 GiB of shared memory")
}

fn pipes() -> (usize, i32) {
    let mut held = Vec::new();
    loop {
        let (read, write) = match std::io::pipe() {
            Ok(ends) => ends,
            Err(error) => return (held.len(), error.raw_os_error().unwrap_or_default()),
        };
        set_nonblocking(&write);
        while (&write).write(&[1; 4096]).is_ok() {}
        held.push((read, write));
    }
}

fn set_nonblocking(file: &impl std::os::fd::AsRawFd) {
    // SAFETY: F_SETFL takes an int and no pointer; the descriptor is borrowed, so open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(result, 0, "F_SETFL: {}", errno());
}

fn backend() -> Option<LinuxBackend> {
    common::backend("bounds")
}

fn taking(what: &str) -> (SandboxSpec, Arc<MemoryLog>) {
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/take");
    let command = ["/take", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    let log = logged(&mut spec);
    spec.limits.cpus = 1.0;
    spec.environment = vec![("TAKE".into(), what.into())];
    (spec, log)
}

async fn run(
    backend: &LinuxBackend,
    spec: SandboxSpec,
    log: &MemoryLog,
) -> (Finished, Option<(u64, i32)>, String) {
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    let output = text(log);
    let mut numbers = output.split_once("took|").map(|(_, rest)| rest.split('|'));
    let took = numbers
        .as_mut()
        .and_then(|numbers| Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?)));
    (finished, took, output)
}

/// Runs a program that takes all of `what`. Checks that it gets exactly the wanted amount and
/// errno.
async fn check(what: &str, set: impl FnOnce(&mut SandboxSpec), wanted: (u64, i32)) {
    let Some(backend) = backend() else { return };
    let (mut spec, log) = taking(what);
    set(&mut spec);
    let (finished, took, output) = run(&backend, spec, &log).await;
    assert_eq!(took, Some(wanted), "{what}: {output}");
    assert_eq!(finished.exit, Exit::Status(0), "{what}: {output}");
    assert!(!finished.out_of_memory, "{what}: {finished:?}");
}

#[tokio::test]
async fn processes_and_threads_are_held_to_their_number() {
    for (what, number) in [("processes", 40), ("threads", 40), ("processes", 5)] {
        let wanted = (u64::from(number), libc::EAGAIN);
        check(what, |spec| spec.limits.processes_max = number, wanted).await;
    }
}

#[tokio::test]
async fn descriptors_are_held_to_their_number() {
    check("descriptors", |spec| spec.limits.files_max = 100, (100, libc::EMFILE)).await;
}

#[tokio::test]
async fn scratch_space_is_held_to_its_bytes_and_files() {
    for bytes in [4096, 1 << 20, 5 << 20] {
        let wanted = (bytes, libc::ENOSPC);
        check("bytes", |spec| spec.limits.scratch_bytes = bytes, wanted).await;
    }
    for what in ["files", "folders"] {
        check(what, |spec| spec.limits.scratch_files_max = 50, (50, libc::ENOSPC)).await;
    }
}

#[tokio::test]
async fn memory_is_held_to_its_bytes_whatever_it_is_taken_for() {
    let Some(backend) = backend() else { return };
    for what in ["heap", "scratch", "memory file", "shared memory", "pipes"] {
        let (mut spec, log) = taking(what);
        spec.limits.memory_bytes = MEMORY_BYTES;
        // Each pipe holds 64 KiB.
        spec.limits.files_max = 4096;
        let (finished, took, output) = run(&backend, spec, &log).await;
        assert_eq!(took, None, "{what}: {output}");
        assert!(finished.out_of_memory, "{what}: {finished:?} {output}");
        assert_eq!(finished.exit, Exit::Signal(libc::SIGKILL), "{what}: {output}");
        let peak = finished.usage.memory_peak_bytes.expect("measured");
        let least = MEMORY_BYTES - 2 * PIECE_BYTES as u64;
        assert!((least..=MEMORY_BYTES).contains(&peak), "{what}: {peak}");
    }
    // Another cause of death is not reported as the memory limit, however much memory is used.
    let (mut spec, log) = taking("bytes");
    spec.limits.memory_bytes = MEMORY_BYTES;
    spec.limits.scratch_bytes = MEMORY_BYTES / 2;
    let (finished, took, output) = run(&backend, spec, &log).await;
    assert_eq!(took, Some((MEMORY_BYTES / 2, libc::ENOSPC)), "{output}");
    assert!(!finished.out_of_memory && finished.exit == Exit::Status(0), "{finished:?}");
    assert!(finished.usage.memory_peak_bytes > Some(MEMORY_BYTES / 2), "{finished:?}");
}
