//! The Linux backend without root: the test program runs itself again as an unprivileged user.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod unprivileged;

use std::sync::Arc;
use std::time::Duration;

use self::unprivileged::With;
use common::{logged, text};
use lambda_sandbox::linux::{Extras, LinuxBackend, Settings, SystemCalls, Volume};
use lambda_sandbox::{
    Answer, Backend, Capability, Defence, Error, Exit, Finished, Invocation, MemoryLog, SandboxSpec,
};

fn backend() -> Option<LinuxBackend> {
    common::backend_with(&Settings::default().rootless(), "sandboxes without root")
}

fn shell(script: &str) -> (SandboxSpec, Arc<MemoryLog>) {
    let mut spec = common::shell(script);
    spec.limits.cpus = lambda_sandbox::Limits::default().cpus;
    let log = logged(&mut spec);
    (spec, log)
}

async fn run(
    backend: &LinuxBackend,
    (spec, log): (SandboxSpec, Arc<MemoryLog>),
) -> (Finished, String) {
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    (finished, text(&log))
}

#[test]
fn a_user_has_sandboxes() {
    if unprivileged::inside().is_some() {
        return;
    }
    for with in [With::Nothing, With::Groups] {
        for test in TESTS {
            unprivileged::run(test, with);
        }
    }
}

const TESTS: [&str; 5] = [
    "programs_run",
    "limits_hold",
    "the_report_is_exact",
    "the_runtime_api_is_served",
    "embedders_have_what_a_user_can",
];

/// Options of a specification beyond programs, and those that need root.
#[tokio::test]
async fn embedders_have_what_a_user_can() {
    if unprivileged::inside().is_none() {
        return;
    }
    let Some(backend) = backend() else { return };
    let home = std::path::PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").expect("a home"));
    let shell = |script: &str| common::shell(script).with_cpus(1.0);
    let said = async |spec: SandboxSpec| {
        let done = backend.run(spec).await.expect("run");
        String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned()
    };
    let out = home.join("out");
    std::fs::create_dir_all(&out).expect("made");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let extras = Extras::default()
        .with_writable_bind(&out, "/out")
        .with_descriptor(std::os::fd::OwnedFd::from(writer))
        .with_system_calls(SystemCalls::Strict);
    let spec = shell("cat > /out/f; echo passed >&3; touch /usr/x").with_stdin("text");
    let text = said(spec.with_linux(extras)).await;
    assert!(text.contains("Read-only file system"), "{text}");
    assert_eq!(std::fs::read(out.join("f")).expect("read"), b"text");
    assert_eq!(std::io::read_to_string(reader).expect("read"), "passed\n");
    let text = said(shell("cat /sys/fs/cgroup/memory.max; grep -c '1$' /proc/cgroups")).await;
    assert_eq!(text, "134217728\n6\n");
    assert!(matches!(Volume::new(4096, 1), Err(Error::Unavailable { .. })));

    let sandbox = backend.create(shell("sleep 100")).await.expect("created");
    let handle = sandbox.handle().expect("a handle");
    let mut events = handle.events();
    let running = tokio::spawn(sandbox.run());
    events.next().await.expect("started");
    let done = handle.exec(lambda_sandbox::Exec::new(["/usr/bin/id", "-u"])).await.expect("run");
    assert_eq!(done.stdout, "1000\n");
    running.abort();
    drop(running.await);
}

#[tokio::test]
async fn programs_run() {
    if unprivileged::inside().is_none() {
        return;
    }
    let Some(backend) = backend() else { return };
    let (finished, output) = run(&backend, shell("echo hello; id -u; id -g; pwd; exit 7")).await;
    assert_eq!((output.as_str(), finished.exit), ("hello\n1000\n1000\n/\n", Exit::Status(7)));
    let (_, output) =
        run(&backend, shell("cat /proc/self/status; ls /proc | grep -c '^[0-9]'")).await;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(output.contains(line), "{line} not in\n{output}");
    }
    let script = "for f in /x /usr/x /etc/x /dev/x /proc/sys/kernel/hostname /proc/self/comm; do \
                  (echo x > $f) 2>/dev/null && echo wrote $f; done; echo x > /tmp/x && cat /tmp/x";
    assert_eq!(run(&backend, shell(script)).await.1, "x\n");
    let (mut spec, _) = shell("");
    spec.command = vec!["/bin/not-there".into()];
    let error = backend.create(spec).await.expect("created").run().await.expect_err("refused");
    assert!(matches!(&error, Error::Failed { path: Some(_), .. }), "{error:?}");
    // A killed program ends with all its children.
    let created = backend.create(shell("setsid sleep 60 & sleep 60").0).await.expect("created");
    let killer = created.killer();
    let running = tokio::spawn(created.run());
    tokio::time::sleep(Duration::from_millis(50)).await;
    killer.kill();
    assert_eq!(running.await.expect("joined").expect("run").exit, Exit::Signal(9));
}

#[tokio::test]
async fn limits_hold() {
    if unprivileged::inside().is_none() {
        return;
    }
    let Some(backend) = backend() else { return };
    let (mut spec, log) = shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; echo all");
    spec.limits.processes_max = 5;
    // Another sandbox of the same user with more processes than the limit does not affect this one.
    let many = backend.create(shell("for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; sleep 60").0);
    let many = tokio::spawn(many.await.expect("created").run());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (finished, output) = run(&backend, (spec, log)).await;
    many.abort();
    assert_ne!(finished.exit, Exit::Status(0));
    assert!(output.contains("fork"), "{output}");
    let (mut spec, log) = shell("head -c 20000000 /dev/zero > /tmp/big; stat -c %s /tmp/big");
    spec.limits.scratch_bytes = 1 << 20;
    let (_, output) = run(&backend, (spec, log)).await;
    assert!(output.contains("1048576\n"), "{output}");
    if unprivileged::inside() == Some(With::Groups) {
        let (mut spec, log) = shell("head -c 100000000 /dev/zero | tail | wc -c; exit 1");
        spec.limits.memory_bytes = 32 << 20;
        // With a small processor share, memory reclaim can take half a minute.
        spec.limits.cpus = 2.0;
        let (finished, _) = run(&backend, (spec, log)).await;
        assert!(finished.out_of_memory, "{finished:?}");
        let (mut spec, log) = shell("while :; do :; done");
        spec.limits.cpus = 0.1;
        let created = backend.create(spec).await.expect("created");
        let killer = created.killer();
        let busy = tokio::spawn(created.run());
        tokio::time::sleep(Duration::from_secs(1)).await;
        killer.kill();
        let used = busy.await.expect("joined").expect("run").usage;
        let (time, wall) = (used.cpu_time.expect("counted"), used.duration);
        assert!(time.as_secs_f64() < wall.as_secs_f64() * 0.1 + 0.1, "{time:?} of {wall:?}");
        drop(log);
    }
}

#[tokio::test]
async fn the_report_is_exact() {
    if unprivileged::inside().is_none() {
        return;
    }
    assert!(matches!(LinuxBackend::new(), Err(Error::Unavailable { what: "root", .. })));
    let Some(backend) = backend() else { return };
    let isolation = backend.isolation();
    assert!(isolation.absent.contains_key(&Defence::User), "{isolation}");
    // Without a control group for it, the report names the attacks that succeed. With one the
    // defence is in force.
    let groups = unprivileged::inside() == Some(With::Groups);
    for (defence, attack) in [(Defence::Memory, "memory by heap"), (Defence::Cpu, "busy loop")] {
        assert_eq!(isolation.in_force.contains_key(&defence), groups, "{isolation}");
        assert!(groups || isolation.absent[&defence].contains(attack), "{isolation}");
    }
    let probe = LinuxBackend::probe_with(&Settings::default().rootless()).expect("probed");
    let delegated = |controller| probe.hierarchies.has(controller);
    for (defence, controller, capability) in [
        (Defence::Memory, lambda_sandbox::linux::Controller::Memory, Capability::MemoryLimit),
        (Defence::Cpu, lambda_sandbox::linux::Controller::Cpu, Capability::CpuLimit),
    ] {
        assert_eq!(isolation.in_force.contains_key(&defence), delegated(controller), "{isolation}");
        assert_eq!(isolation.absent.contains_key(&defence), !delegated(controller), "{isolation}");
        assert_eq!(backend.capabilities().contains(&capability), delegated(controller));
    }
    let (mut spec, _) = shell("exit 0");
    spec.limits.isolation_min = vec![Defence::SystemCalls, Defence::FileSystem];
    backend.create(spec.clone()).await.expect("created").run().await.expect("run");
    spec.limits.isolation_min.push(Defence::User);
    let refused = backend.create(spec).await.expect_err("refused");
    assert!(
        matches!(&refused, Error::Unavailable { why, .. } if why.contains("User")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_runtime_api_is_served() {
    if unprivileged::inside().is_none() {
        return;
    }
    let Some(backend) = backend() else { return };
    let (mut spec, log) = shell("");
    spec.command = common::runtime().command;
    // Two at a time: each has its own 127.0.0.1.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let created = backend.create(spec.clone()).await.expect("created");
        match created.init().await {
            Ok((sandbox, _)) => idle.push(sandbox),
            Err(failure) => panic!("{failure:?} {:?}", log.lines()),
        }
    }
    for sandbox in idle {
        let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
        let (outcome, busy) = sandbox.invoke(event).await.expect("invoked");
        assert!(matches!(&outcome.answer, Answer::Success(it) if it.body == "42"), "{outcome:?}");
        let idle = busy.expect("usable").settle().await.expect("settled");
        idle.destroy().await.expect("destroyed");
    }
}
