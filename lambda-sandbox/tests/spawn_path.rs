//! Between clone and exec a new process uses the host's memory. It must not allocate, as another
//! thread may be in the middle of that, and must not take a lock, as another thread may hold it.
//!
//! Allocations are found by an allocator that counts calls under another process number than the
//! host's. Locks are found by single-stepping the process: a lock is taken by an instruction with a
//! lock prefix, by an exchange with memory, or by futex(2). Both detectors are also tested on a
//! process that does what is forbidden. The test program runs itself as the traced host.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::io::{BufRead as _, BufReader, Error as IoError, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Exit, Root, SandboxSpec};

/// Passes every call to the system's allocator, and counts the calls of a process that uses our
/// memory. That process has another number, and the host sees the count because the memory is
/// shared.
struct Watching;

static HOST: AtomicI32 = AtomicI32::new(0);
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

fn watch() {
    let host = HOST.load(Ordering::Relaxed);
    // SAFETY: getpid reads and writes no memory.
    if host != 0 && unsafe { libc::getpid() } != host {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        watch();
        // SAFETY: `place` came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn spec() -> SandboxSpec {
    SandboxSpec::new(Root::of_machine(), ["/bin/true"])
}

fn backend() -> Option<LinuxBackend> {
    common::backend("the spawn path")
}

/// Makes a process that uses our memory and runs `child` in it, like the spawn path.
fn borrow(child: extern "C" fn(*mut c_void) -> c_int) {
    let mut stack = vec![0_u128; 1 << 12];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is ours and lives until the child has ended or executed, as the parent is
    // suspended until then; the child function is given no argument.
    let process = unsafe { libc::clone(child, top, flags, std::ptr::null_mut()) };
    assert!(process > 0, "{}", IoError::last_os_error());
    // SAFETY: the process is our own child; no status is asked for.
    unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) };
}

extern "C" fn allocating(_: *mut c_void) -> c_int {
    drop(std::hint::black_box(Box::new(1)));
    execute()
}

extern "C" fn locking(_: *mut c_void) -> c_int {
    static LOCK: Mutex<u32> = Mutex::new(0);
    drop(std::hint::black_box(&LOCK).lock());
    execute()
}

extern "C" fn harmless(_: *mut c_void) -> c_int {
    execute()
}

fn execute() -> c_int {
    let arguments = [c"true".as_ptr(), std::ptr::null()];
    // SAFETY: the path and the arguments are C strings that live for ever, the list of them ends in
    // null.
    unsafe { libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr()) };
    1
}

#[tokio::test]
async fn the_path_allocates_nothing() {
    if std::env::var_os("SPAWN_HOST").is_some() {
        return;
    }
    let Some(backend) = backend() else { return };
    // SAFETY: getpid reads and writes no memory.
    HOST.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    borrow(harmless);
    assert_eq!(CAUGHT.swap(0, Ordering::Relaxed), 0);
    borrow(allocating);
    assert_eq!(CAUGHT.swap(0, Ordering::Relaxed), 2, "taken and given back");
    for _ in 0..20 {
        let finished = backend.create(spec()).await.expect("created").run().await.expect("run");
        assert_eq!(finished.exit, Exit::Status(0));
    }
    // Errors are reported the same way.
    let mut broken = spec();
    broken.working_directory = "/not/there".into();
    drop(backend.create(broken).await.expect_err("refused"));
    assert_eq!(CAUGHT.load(Ordering::Relaxed), 0);
}

/// The traced host: prints the id of its spawn thread, and starts a sandbox when it is told to.
#[test]
fn host() {
    let Ok(kind) = std::env::var("SPAWN_HOST") else {
        return;
    };
    let wait = || {
        let mut out = std::io::stdout();
        writeln!(out, "ready|{}", std::process::id()).expect("written");
        assert_eq!(std::io::stdin().read(&mut [0]).expect("read"), 1);
    };
    let child = match kind.as_str() {
        "allocating" => allocating,
        "locking" => locking,
        "harmless" => harmless,
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let backend = LinuxBackend::new().expect("a backend");
                wait();
                let created = backend.create(spec()).await.expect("created");
                assert_eq!(created.run().await.expect("run").exit, Exit::Status(0));
            });
            return;
        }
    };
    let thread = std::thread::Builder::new().name("sandbox-spawn".into()).spawn(move || {
        wait();
        borrow(child);
    });
    thread.expect("started").join().expect("joined");
}

/// The result of tracing a process from clone to exec.
#[derive(Debug, Default)]
struct Walk {
    instructions: usize,
    system_calls: usize,
    /// Addresses of instructions that take or release a lock.
    locks: Vec<u64>,
    executed: bool,
}

#[test]
fn the_path_takes_no_lock() {
    if std::env::var_os("SPAWN_HOST").is_some() || backend().is_none() {
        return;
    }
    let harmless = walk("harmless");
    assert!(harmless.executed && harmless.locks.is_empty(), "{harmless:?}");
    let locking = walk("locking");
    assert!(locking.executed && locking.locks.len() >= 2, "{locking:?}");
    let ours = walk("ours");
    println!("{ours:?}");
    assert!(ours.executed && ours.locks.is_empty(), "{ours:?}");
    assert!(ours.system_calls > 50, "{ours:?}");
}

/// Starts a host of this kind, and traces the first process that it makes until exec.
fn walk(kind: &str) -> Walk {
    let me = std::env::current_exe().expect("a path");
    let mut host = Command::new(me)
        .args(["--exact", "host", "--nocapture", "--test-threads=1"])
        .env("SPAWN_HOST", kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map_while(Result::ok);
    lines.find(|line| line.contains("ready|")).expect("ready");
    let thread = spawning_thread(&host);
    let options = libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEEXEC;
    trace(libc::PTRACE_SEIZE, thread, options.cast_unsigned() as usize);
    host.stdin.take().expect("a pipe").write_all(b"g").expect("told");
    let walk = follow(thread);
    // Reads the rest of the host's output, so that a full pipe does not stop it.
    drop(lines.collect::<Vec<_>>());
    assert!(host.wait().expect("reaped").success());
    walk
}

fn spawning_thread(host: &Child) -> i32 {
    let tasks = format!("/proc/{}/task", host.id());
    (std::fs::read_dir(tasks).expect("threads").flatten())
        .find(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.trim() == "sandbox-spawn"
        })
        .and_then(|task| task.file_name().to_string_lossy().parse().ok())
        .expect("the thread that starts processes")
}

fn trace(request: libc::c_uint, process: i32, data: usize) {
    // SAFETY: of the requests made here, PTRACE_GETREGS and PTRACE_GETEVENTMSG write to where
    // `data` points, which is a live variable of the required size; the others take a number.
    let result = unsafe { libc::ptrace(request, process, 0_usize, data) };
    assert_eq!(result, 0, "request {request}: {}", IoError::last_os_error());
}

/// Follows `thread` until the process that it makes has executed, and detaches from both.
fn follow(thread: i32) -> Walk {
    let mut walk = Walk::default();
    let mut child = 0;
    loop {
        let mut status = 0;
        // SAFETY: `status` lives for the call.
        let stopped =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(stopped > 0, "{}", IoError::last_os_error());
        if !libc::WIFSTOPPED(status) {
            return walk;
        }
        let event = status >> 16;
        if stopped == thread {
            if event == libc::PTRACE_EVENT_VFORK {
                let mut message: libc::c_ulong = 0;
                trace(libc::PTRACE_GETEVENTMSG, thread, (&raw mut message).addr());
                child = i32::try_from(message).expect("a process number");
            }
            trace(libc::PTRACE_CONT, thread, 0);
        } else if event == libc::PTRACE_EVENT_EXEC {
            // On a single processor the thread may not have reported its child yet.
            assert!(child == 0 || stopped == child, "{stopped}, not {child}");
            walk.executed = true;
            // In this order: after the child continues, the thread may end before it can be
            // detached.
            detach(thread);
            trace(libc::PTRACE_DETACH, stopped, 0);
            return walk;
        } else {
            if event == 0 {
                look(stopped, &mut walk);
            }
            trace(libc::PTRACE_SINGLESTEP, stopped, 0);
        }
    }
}

/// Detaches from a running thread, which must be stopped first.
fn detach(thread: i32) {
    trace(libc::PTRACE_INTERRUPT, thread, 0);
    // SAFETY: no status is asked for.
    let stopped = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
    assert_eq!(stopped, thread, "{}", IoError::last_os_error());
    trace(libc::PTRACE_DETACH, thread, 0);
}

/// Examines the next instruction.
fn look(process: i32, walk: &mut Walk) {
    // SAFETY: registers are numbers: all bits zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(libc::PTRACE_GETREGS, process, (&raw mut registers).addr());
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).expect("memory");
    let mut bytes = [0; 15];
    let read = memory.read_at(&mut bytes, registers.rip).expect("an instruction");
    let call = i64::try_from(registers.rax).unwrap_or(-1);
    walk.instructions += 1;
    match kind(&bytes[..read]) {
        Instruction::SystemCall if call == libc::SYS_futex => walk.locks.push(registers.rip),
        Instruction::SystemCall => walk.system_calls += 1,
        Instruction::Locked => walk.locks.push(registers.rip),
        Instruction::Other => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Instruction {
    Locked,
    SystemCall,
    Other,
}

fn kind(bytes: &[u8]) -> Instruction {
    let legacy = |byte: &u8| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
    };
    let prefixes = bytes.iter().take_while(|byte| legacy(byte)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    let wide = usize::from(rest.first().is_some_and(|byte| byte & 0xf0 == 0x40));
    match rest.get(wide..).unwrap_or_default() {
        _ if prefixes.contains(&0xf0) => Instruction::Locked,
        [0x0f, 0x05, ..] => Instruction::SystemCall,
        // An exchange with memory locks even without the prefix. One of two registers does not.
        [0x86 | 0x87, operands, ..] if *operands < 0xc0 => Instruction::Locked,
        _ => Instruction::Other,
    }
}

#[test]
fn instructions_that_lock_are_known() {
    for (bytes, wanted) in [
        // lock cmpxchg %ecx,(%rdi); lock incq 8(%rax) with a segment; xchg %eax,(%rdi); xchg
        // %r8,(%r9)
        (&[0xf0, 0x0f, 0xb1, 0x0f][..], Instruction::Locked),
        (&[0x64, 0xf0, 0x48, 0xff, 0x40, 0x08], Instruction::Locked),
        (&[0x87, 0x07], Instruction::Locked),
        (&[0x4d, 0x87, 0x01], Instruction::Locked),
        // xchg %ax,%ax; xchg %rax,%rbx; mov %eax,(%rdi); syscall
        (&[0x66, 0x90], Instruction::Other),
        (&[0x48, 0x87, 0xc3], Instruction::Other),
        (&[0x89, 0x07], Instruction::Other),
        (&[0x0f, 0x05], Instruction::SystemCall),
    ] {
        assert_eq!(kind(bytes), wanted, "{bytes:x?}");
    }
}
