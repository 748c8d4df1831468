//! Sandboxes in virtual machines. They need a KVM that runs kernels: `cargo xtask vm` provides one
//! in QEMU, with a kernel (`VM_KERNEL`), the guest's root (`VM_GUEST`), the monitor (`LAMBDA_VMM`)
//! and a root of programs (`VM_PROGRAMS`).

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "the bed reads what is measured")]

#[path = "vm/clones.rs"]
mod clones;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_sandbox::conformance::{self, FUNCTION, Verdict};
use lambda_sandbox::vm::{Settings, VmBackend};
use lambda_sandbox::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Exit, Invocation, Isolation, Limits,
    Root, Sandbox, SandboxSpec, Swept, Vm, VmProvider, VmSize,
};

/// What the tests need, or `None` if the machine lacks it and `test` is left out.
fn settings(test: &str) -> Option<(Settings, PathBuf)> {
    let path = |variable: &str| {
        let path = std::env::var_os(variable).map(PathBuf::from);
        if path.is_none() {
            test_support::left_out(test, &format!("{variable} is not set: cargo xtask vm"));
        }
        path
    };
    let images = std::env::temp_dir().join("vm-images");
    let (kernel, guest) = (path("VM_KERNEL")?, path("VM_GUEST")?);
    let mut settings = Settings::new(kernel, guest, path("LAMBDA_VMM")?, images);
    if std::env::var_os("VM_PLAIN").is_some() {
        settings = settings.without_jail();
    }
    Some((settings, path("VM_PROGRAMS")?))
}

async fn backend(test: &str) -> Option<(VmBackend, PathBuf)> {
    let (settings, programs) = settings(test)?;
    Some((VmBackend::start(settings).await.expect("a machine"), programs))
}

fn shell(programs: &PathBuf) -> SandboxSpec {
    let spec = SandboxSpec::new(Root::of_directory(programs), ["/bin/sh"]);
    spec.with_env("PATH", "/bin").with_cpus(1.0)
}

/// The function of the suite.
fn function(programs: &PathBuf) -> SandboxSpec {
    let mut spec = shell(programs).named(FUNCTION);
    spec.command.push("/runtime".into());
    spec.limits = Limits { cpus: 1.0, ..Limits::for_memory_mb(128) };
    spec
}

fn report(verdicts: Vec<(&'static str, Verdict)>, declined: &[Capability]) {
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, verdict) in &verdicts {
        println!("conformance: {name}: {verdict:?}");
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Declined(capability) if declined.contains(capability) => {}
            _ => failed.push(*name),
        }
    }
    println!("conformance: {passed} of {} passed", verdicts.len());
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_program_runs_in_a_machine_of_its_own() {
    let Some((settings, programs)) = settings("a program in a machine") else { return };
    run_one("plain", settings.clone().without_jail(), &programs).await;
    let mut jailed = settings;
    jailed.is_jailed = true;
    run_one("jailed", jailed, &programs).await;
}

async fn run_one(how: &str, settings: Settings, programs: &PathBuf) {
    let began = Instant::now();
    let backend = VmBackend::start(settings.with_console()).await;
    let backend = backend.unwrap_or_else(|error| panic!("{}", error.to_string_with_cause()));
    println!("measured: {how}: first machine = {:.2} ms", ms(began));
    println!("isolation:\n{}", backend.isolation());
    assert!(backend.isolation().in_force.contains_key(&Defence::Kernel));
    for which in ["with new images", "with cached images"] {
        let mut spec = shell(programs);
        spec.command.extend(["-c", "uname -r; cat; exit 3"].map(Into::into));
        let began = Instant::now();
        let done = backend.run(spec.with_stdin("input\n")).await.expect("run");
        println!("measured: {how}: a program {which} = {:.2} ms", ms(began));
        println!("{done:?}");
        assert_eq!(done.finished.exit, Exit::Status(3));
        assert!(done.stdout.starts_with(b"6.12"), "{done:?}");
        assert!(done.stdout.ends_with(b"input\n"), "{done:?}");
    }
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn the_conformance_suite_of_programs_passes() {
    let Some((backend, programs)) = backend("conformance of machines").await else { return };
    let backend = Told::new(Arc::new(backend));
    report(conformance::run_programs(&backend, &shell(&programs)).await, &[]);
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn the_conformance_suite_of_functions_passes() {
    let Some((backend, programs)) = backend("conformance of machines").await else { return };
    let spec = function(&programs);
    let began = Instant::now();
    let (idle, _) = backend.create(spec.clone()).await.expect("made").init().await.expect("init");
    println!("measured: cold function in a new machine = {:.2} ms", ms(began));
    let began = Instant::now();
    let event = Invocation::new("warm", r#"{"do": "echo"}"#, Duration::from_secs(5));
    let (outcome, _busy) = idle.invoke(event).await.expect("invoked");
    println!("measured: its invocation = {:.2} ms: {outcome:?}", ms(began));
    let backend = Told::new(Arc::new(backend));
    report(conformance::run(&backend, &spec).await, &[]);
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn broken_parts_are_named_and_leave_no_process() {
    let Some((good, programs)) = settings("broken parts of machines") else { return };
    let refused = |settings: Settings| async move {
        VmBackend::start(settings).await.expect_err("refused").to_string_with_cause()
    };
    let mut settings = good.clone();
    settings.kernel.clone_from(&settings.guest);
    let error = refused(settings).await;
    assert!(error.contains("starting a virtual machine") && error.contains("ELF"), "{error}");
    let mut settings = good.clone();
    settings.patience = Duration::from_secs(3);
    // A root without a first process: the kernel panics, which ends the machine.
    settings.guest = empty_image();
    let error = refused(settings).await;
    assert!(error.contains("waiting for the agent"), "{error}");
    let mut settings = good.clone();
    settings.patience = Duration::from_secs(1);
    // A guest that boots, and whose first process says nothing.
    settings.guest = silent_image();
    let error = refused(settings).await;
    assert!(error.contains("waiting for the agent") && error.contains("time"), "{error}");
    let mut settings = good.clone();
    settings.monitor = "/bin/busybox".into();
    let error = refused(settings).await;
    assert!(error.contains("making an empty virtual machine"), "{error}");
    let mut settings = good;
    settings.guest_bytes = 1 << 50;
    let error = refused(settings).await;
    assert!(error.contains("starting a virtual machine"), "{error}");
    drop(programs);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(monitors(), 0);
}

/// Returns how many monitors run, in a jail or not.
fn monitors() -> usize {
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let is_monitor = |name: String| ["lambda-vmm", "monitor"].contains(&name.trim());
    let names = processes.map(|entry| std::fs::read_to_string(entry.path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| is_monitor(name.clone()))).count()
}

/// Prints when a sandbox is created, so that the bed shows where a suite is.
#[derive(Debug)]
struct Told(Arc<dyn Backend>, Instant);

impl Told {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self(backend, Instant::now())
    }
}

impl Backend for Told {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        println!("created after {:.0} ms: {:?}", ms(self.1), spec.command.last());
        self.0.create(spec)
    }

    fn isolation(&self) -> Isolation {
        self.0.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.0.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.0.sweep()
    }
}

/// Starts a machine for many sandboxes, with room for four of the suite's.
async fn shared(test: &str) -> Option<(Box<dyn Vm>, PathBuf)> {
    let (backend, programs) = backend(test).await?;
    let mut size = VmSize::of_memory(512 << 20);
    size.cpus = 1.0;
    let began = Instant::now();
    let vm = backend.start_vm(size).await.expect("a machine");
    println!("measured: machine for many sandboxes = {:.2} ms", ms(began));
    Some((vm, programs))
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn the_conformance_suite_of_programs_passes_in_a_shared_machine() {
    let Some((vm, programs)) = shared("conformance of a shared machine").await else { return };
    report(conformance::run_programs(&Told::new(vm.backend()), &shell(&programs)).await, &[]);
    assert_eq!(monitors(), 1);
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn the_conformance_suite_of_functions_passes_in_a_shared_machine() {
    let Some((vm, programs)) = shared("conformance of a shared machine").await else { return };
    report(conformance::run(&Told::new(vm.backend()), &function(&programs)).await, &[]);
    assert_eq!(monitors(), 1);
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn three_sandboxes_of_one_customer_share_a_machine() {
    let Some((vm, programs)) = shared("sandboxes in a shared machine").await else { return };
    let backend = vm.backend();
    let began = Instant::now();
    let spec = function(&programs);
    let make = || async { backend.create(spec.clone()).await.expect("made").init().await };
    let (a, b, c) = tokio::join!(make(), make(), make());
    println!("measured: three functions in a shared machine = {:.2} ms", ms(began));
    assert_eq!(monitors(), 1);
    let mut idle = Vec::new();
    for made in [a, b, c] {
        let (sandbox, _) = made.expect("init");
        let began = Instant::now();
        let event = Invocation::new("warm", r#"{"do": "echo"}"#, Duration::from_secs(5));
        let (outcome, busy) = sandbox.invoke(event).await.expect("invoked");
        println!("measured: invocation in a shared machine = {:.2} ms", ms(began));
        assert!(matches!(outcome.answer, lambda_sandbox::Answer::Success(_)), "{outcome:?}");
        idle.push(busy.expect("usable").settle().await.expect("settled"));
    }
    // Each sees its own processes and files alone.
    let mut alone = shell(&programs);
    alone.command.extend(["-c", "echo x > /tmp/mine; echo /proc/[0-9]*; ls /tmp"].map(Into::into));
    let done = backend.run(alone).await.expect("run");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.ends_with("mine\n") && said.split("/proc/").count() < 6, "{said}");
    // The end of one leaves the others.
    idle.pop().expect("three").destroy().await.expect("destroyed");
    let event = Invocation::new("again", r#"{"do": "echo"}"#, Duration::from_secs(5));
    let (outcome, _busy) = idle.pop().expect("two").invoke(event).await.expect("invoked");
    assert!(matches!(outcome.answer, lambda_sandbox::Answer::Success(_)), "{outcome:?}");
    // The end of the machine ends them all.
    let began = Instant::now();
    vm.end().await;
    vm.ended().await;
    println!("measured: end of a shared machine = {:.2} ms", ms(began));
    assert_eq!(monitors(), 0);
    let event = Invocation::new("late", "{}", Duration::from_secs(5));
    match idle.pop().expect("one").invoke(event).await {
        Ok((outcome, None)) => println!("{outcome:?}"),
        Err(error) => println!("{error}"),
        Ok((outcome, Some(_))) => panic!("{outcome:?}"),
    }
    assert!(backend.create(spec).await.is_err());
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn images_of_a_shared_machine_are_exchanged() {
    let Some((vm, programs)) = shared("images of a shared machine").await else { return };
    let backend = vm.backend();
    let folder = tempfile::tempdir().expect("a folder");
    let with_file = |number: usize| {
        let path = folder.path().join(number.to_string());
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("content"), format!("content {number}")).expect("written");
        let mut spec = shell(&programs);
        spec.root = spec.root.with_bind(path, "/mnt");
        spec.command.extend(["-c", "cat /mnt/content"].map(Into::into));
        spec
    };
    // More than there are slots, and all again.
    for number in (0..15).chain(0..15) {
        let done = backend.run(with_file(number)).await.expect("run");
        assert_eq!(done.stdout, format!("content {number}"), "{done:?}");
    }
    // One slot has the programs.
    let mut living = Vec::new();
    for number in 0..12 {
        let mut spec = with_file(number);
        spec.limits.memory_bytes = 16 << 20;
        living.push(backend.create(spec).await.expect("created"));
    }
    let refused = backend.create(with_file(13)).await.expect_err("all slots have users");
    assert!(matches!(refused, Error::Exhausted { max: 13, .. }), "{refused:?}");
    living.pop().expect("twelve").destroy().await.expect("destroyed");
    let done = backend.run(with_file(13)).await.expect("run");
    assert_eq!(done.stdout, "content 13");
}

/// A host that is killed at any moment leaves no monitor, and the next host removes the rest.
#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_killed_host_leaves_no_machine() {
    if std::env::var_os("VM_HOST").is_some() {
        let (vm, programs) = shared("the host that is killed").await.expect("a machine");
        let (sandbox, _) = vm
            .backend()
            .create(function(&programs))
            .await
            .expect("made")
            .init()
            .await
            .expect("init");
        println!("idle");
        tokio::time::sleep(Duration::from_secs(600)).await;
        return drop(sandbox);
    }
    let Some((backend, _)) = backend("a killed host").await else { return };
    let before = test_support::control_groups();
    for after in [100, 250, 350, 450, 2000].map(Duration::from_millis) {
        let me = std::env::current_exe().expect("a path");
        let mut host = std::process::Command::new(me)
            .args(["--ignored", "--exact", "a_killed_host_leaves_no_machine"])
            .env("VM_HOST", "1")
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a host");
        tokio::time::sleep(after).await;
        let running = monitors();
        host.kill().expect("killed");
        host.wait().expect("waited");
        let began = Instant::now();
        while monitors() > 0 && began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("measured: {running} monitors of a killed host end after {:.2} ms", ms(began));
        assert_eq!(monitors(), 0, "killed after {after:?}");
        Backend::sweep(&backend).await.expect("swept");
        assert_eq!(test_support::control_groups(), before, "killed after {after:?}");
    }
}

/// Makes an erofs image of an empty folder.
fn empty_image() -> PathBuf {
    image("empty", |_| {})
}

/// Makes an erofs image with a first process that sleeps.
fn silent_image() -> PathBuf {
    image("silent", |folder| {
        for path in ["bin", "dev"] {
            std::fs::create_dir_all(folder.join(path)).expect("a folder");
        }
        std::fs::copy("/bin/busybox", folder.join("bin/busybox")).expect("copied");
        let init = folder.join("init");
        std::fs::write(&init, "#!/bin/busybox sh\nexec /bin/busybox sleep 1000\n")
            .expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&init, executable).expect("set");
    })
}

/// Makes an erofs image of a folder that is filled first.
fn image(name: &str, fill: impl FnOnce(&std::path::Path)) -> PathBuf {
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    fill(&folder);
    let image = std::env::temp_dir().join(format!("{name}.erofs"));
    let status = std::process::Command::new("mkfs.erofs").arg(&image).arg(&folder).status();
    assert!(status.expect("mkfs.erofs").success());
    image
}

trait WithCause {
    fn to_string_with_cause(&self) -> String;
}

impl WithCause for Error {
    fn to_string_with_cause(&self) -> String {
        let cause = std::error::Error::source(self).map(ToString::to_string);
        format!("{self}: {}", cause.unwrap_or_default())
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
