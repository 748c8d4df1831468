//! Sandboxes that start from snapshots, and machines that are restored ahead of their use.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_sandbox::vm::{VmBackend, VmEvent};
use lambda_sandbox::{
    Answer, Backend as _, Capability, Defence, InitFailure, Invocation, SandboxSpec,
};
use tokio::sync::broadcast::Receiver;

use crate::{function, monitors, ms, settings};

/// What a function of the script `/saved` answers: random bytes of its init, of its hook after the
/// restore, and the time in seconds in its hook and now.
type Said = (String, String, u64, u64);

/// Makes a function that starts from a snapshot, and invokes it once.
async fn from_snapshot(backend: &VmBackend, spec: &SandboxSpec, what: &str) -> Said {
    let began = Instant::now();
    let created = backend.create(spec.clone()).await.expect("made");
    println!("measured: {what}, created = {:.2} ms", ms(began));
    let (idle, report) = created.init().await.expect("init");
    println!("measured: {what}, ready = {:.2} ms: {report:?}", ms(began));
    let event = Invocation::new("first", "{}", Duration::from_secs(5));
    let (outcome, busy) = idle.invoke(event).await.expect("invoked");
    println!("measured: {what}, answered = {:.2} ms", ms(began));
    let Answer::Success(response) = outcome.answer else {
        panic!("{outcome:?}");
    };
    // It goes on, and ends as any other.
    let idle = busy.expect("usable").settle().await.expect("settled");
    idle.destroy().await.expect("destroyed");
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn clones_of_a_function_differ_and_know_the_time() {
    let Some((mut settings, programs)) = settings("clones of a function") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    settings.images = folder.path().to_owned();
    let backend = VmBackend::start(settings).await.expect("a machine");
    let mut spec = function(&programs).with_snapshot("an account's function, version 1");
    spec.command = ["/bin/sh", "/saved"].map(Into::into).to_vec();
    spec.limits.isolation_min = vec![Defence::Kernel];
    let log = Arc::new(lambda_sandbox::MemoryLog::new(1 << 16));
    spec.log = Arc::clone(&log) as Arc<_>;
    assert!(backend.capabilities().contains(&Capability::Snapshots));
    let mut events = backend.events();
    let mut said = vec![from_snapshot(&backend, &spec, "the first, which makes a snapshot").await];
    assert!(matches!(&*told(&mut events), [VmEvent::SnapshotMade { .. }]));
    // A clock that stopped with the snapshot would be late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for what in ["a clone", "another clone"] {
        said.push(from_snapshot(&backend, &spec, what).await);
        let (_, _, in_hook, now) = said.last().expect("said");
        assert!(seconds() - now <= 1 && now - in_hook <= 1, "{said:?} at {}", seconds());
    }
    println!("clones: {said:?}");
    assert_eq!(told(&mut events).len(), 0);
    let distinct = |which: fn(&Said) -> &String| said.iter().map(which).collect::<BTreeSet<_>>();
    assert_eq!(distinct(|said| &said.0).len(), 1, "there was one init: {said:?}");
    assert_eq!(distinct(|said| &said.1).len(), 3, "{said:?}");
    let lines = log.lines().iter().filter(|line| line.text == "its init runs").count();
    assert_eq!(lines, 1);
    // Another name is another snapshot, from another init.
    let other = from_snapshot(&backend, &spec.clone().with_snapshot("version 2"), "another").await;
    assert_ne!(other.0, said[0].0);
    assert_eq!(snapshots(folder.path()).len(), 2);
    // A broken snapshot is removed, and the machine boots; the next sandbox has a snapshot again.
    for snapshot in snapshots(folder.path()) {
        let state = std::fs::File::options().write(true).open(snapshot.join("state"));
        state.and_then(|state| state.set_len(5000)).expect("cut");
    }
    assert!(matches!(&*told(&mut events), [VmEvent::SnapshotMade { .. }]));
    let booted = from_snapshot(&backend, &spec, "one with a broken snapshot").await;
    assert_ne!(booted.0, said[0].0);
    assert!(matches!(&*told(&mut events), [VmEvent::RestoreFailed { .. }]));
    assert_eq!(snapshots(folder.path()).len(), 1);
    assert_eq!(monitors(), 0);
}

/// Prints and returns the events up to now.
fn told(events: &mut Receiver<VmEvent>) -> Vec<VmEvent> {
    let told: Vec<VmEvent> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    told.iter().for_each(|event| println!("event: {event}"));
    told
}

/// Returns the snapshots in a folder of images.
fn snapshots(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("read").flatten();
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|it| it == "snapshot");
    entries.map(|entry| entry.path()).filter(is_snapshot).collect()
}

/// A disk that is full while a snapshot is written: the machine boots, and no file is left.
#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_full_disk_leaves_no_snapshot() {
    let Some((mut settings, programs)) = settings("a snapshot on a full disk") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    // Room for an image of the programs, and not for the memory of a machine.
    mount(&["-t", "tmpfs", "-o", "size=8m"], folder.path());
    settings.images = folder.path().to_owned();
    let backend = VmBackend::start(settings).await.expect("a machine");
    let mut spec = function(&programs);
    spec.command = ["/bin/sh", "/saved"].map(Into::into).to_vec();
    let mut events = backend.events();
    let booted = from_snapshot(&backend, &spec.with_snapshot("one"), "a full disk").await;
    assert!(matches!(&*told(&mut events), [VmEvent::SnapshotFailed { .. }]));
    assert_eq!(booted.0.len(), 32, "{booted:?}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("read").flatten().collect();
    let images = left.iter().filter(|it| it.path().extension().is_some_and(|it| it == "erofs"));
    assert_eq!(images.count(), left.len(), "{left:?}");
    let mut unmount = std::process::Command::new("/bin/busybox");
    // Namespaces that are ending may have it still.
    let unmounted = unmount.args(["umount", "-l"]).arg(folder.path()).status();
    assert!(unmounted.expect("busybox").success());
}

/// Mounts with busybox, which the bed has.
fn mount(options: &[&str], at: &std::path::Path) {
    let mut mount = std::process::Command::new("/bin/busybox");
    let mounted = mount.arg("mount").args(options).arg("images").arg(at).status();
    assert!(mounted.expect("busybox").success());
}

/// Machines of a snapshot that stand ready: their sandbox answers sooner, is as new as another, and
/// those that end are replaced.
#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn restored_machines_are_ready_before_they_are_needed() {
    let Some((mut settings, programs)) = settings("machines made ahead") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    settings.images = folder.path().to_owned();
    (settings.clones_ready, settings.monitors_ready) = (2, 1);
    let groups_before = test_support::control_groups();
    let backend = VmBackend::start(settings).await.expect("a machine");
    let mut events = backend.events();
    let mut spec = function(&programs).with_snapshot("hooks");
    spec.command = vec!["/hooks".into()];
    let log = Arc::new(lambda_sandbox::MemoryLog::new(1 << 16));
    spec.log = Arc::clone(&log) as Arc<_>;
    let mut said = vec![from_snapshot(&backend, &spec, "the first with a compiled runtime").await];
    ready(&backend, 2).await;
    told(&mut events);
    // A clock that was set when they were made would be late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for what in ["a clone that was ready", "another that was ready"] {
        said.push(from_snapshot(&backend, &spec, what).await);
        let (_, _, in_hook, now) = said.last().expect("said");
        assert!(seconds() - now <= 1 && now - in_hook <= 1, "{said:?} at {}", seconds());
    }
    let distinct = |which: fn(&Said) -> &String| said.iter().map(which).collect::<BTreeSet<_>>();
    assert_eq!((distinct(|it| &it.0).len(), distinct(|it| &it.1).len()), (1, 3), "{said:?}");
    assert_eq!(log.lines().iter().filter(|line| line.text == "its init runs").count(), 1);
    ready(&backend, 2).await;
    println!("ready: {:?}, monitors: {}", backend.ready(), monitors());
    // Those that end are replaced, after a pause.
    kill_monitors();
    let began = Instant::now();
    while backend.ready().0 > 0 && began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("measured: ended machines are missed after = {:.2} ms", ms(began));
    ready(&backend, 2).await;
    println!("measured: and replaced after = {:.2} ms", ms(began));
    let after = from_snapshot(&backend, &spec, "a clone that replaced one").await;
    assert_eq!(after.0, said[0].0, "it is of the same snapshot");
    assert_eq!(told(&mut events).len(), 0, "nothing failed");
    // A sweep ends them, and so does the end of the backend.
    backend.sweep().await.expect("swept");
    // One that was being made ends a little later.
    let began = Instant::now();
    while monitors() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{} monitors", monitors());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(backend.ready(), (0, 0));
    let last = from_snapshot(&backend, &spec, "one after a sweep").await;
    assert_eq!(last.0, said[0].0);
    ready(&backend, 2).await;
    drop(backend);
    let began = Instant::now();
    while monitors() > 0 || test_support::control_groups() != groups_before {
        assert!(began.elapsed() < Duration::from_secs(5), "{} monitors", monitors());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("measured: the end of all that was ready = {:.2} ms", ms(began));
}

/// Waits until so many restored machines are ready.
async fn ready(backend: &VmBackend, count: usize) {
    let began = Instant::now();
    while backend.ready().0 < count {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?} are ready", backend.ready());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Kills every monitor.
fn kill_monitors() {
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if ["lambda-vmm", "monitor"].contains(&name.trim()) {
            let id = entry.file_name().to_string_lossy().into_owned();
            let mut kill = std::process::Command::new("/bin/busybox");
            assert!(kill.args(["kill", "-9", &id]).status().expect("busybox").success());
        }
    }
}

/// An init that fails is run once, and its sandbox can be reset as any other.
#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn a_failed_init_makes_no_snapshot_and_runs_once() {
    let Some((mut settings, programs)) = settings("a failed init") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    settings.images = folder.path().to_owned();
    let backend = VmBackend::start(settings).await.expect("a machine");
    let mut spec = function(&programs).with_snapshot("one that fails");
    spec.command = ["/bin/sh", "-c", "echo it runs; exit 7"].map(Into::into).to_vec();
    let log = Arc::new(lambda_sandbox::MemoryLog::new(1 << 16));
    spec.log = Arc::clone(&log) as Arc<_>;
    let failed = backend.create(spec.clone()).await.expect("made").try_init().await;
    let failed = failed.expect_err("it ends");
    assert!(matches!(failed.failure, InitFailure::Exited(_)), "{:?}", failed.failure);
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
    assert!(failed.sandbox.can_reset());
    drop(failed);
    assert_eq!(snapshots(folder.path()).len(), 0);
    // Hooks that do not end: the snapshot is good, and the restore has its own limit and error.
    let script = r#"wget -q -O /dev/null http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/restore/next
        sleep 60"#;
    spec.command = ["/bin/sh", "-c", script].map(Into::into).to_vec();
    spec.times.restore = Duration::from_millis(200);
    for _ in 0..2 {
        let failure = backend.create(spec.clone()).await.expect("made").init().await;
        let failure = failure.expect_err("it takes too long");
        assert!(matches!(failure, InitFailure::RestoreTimedOut(_)), "{failure:?}");
        assert_eq!(snapshots(folder.path()).len(), 1);
    }
}
