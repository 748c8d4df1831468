//! External extensions: programs in `/opt/extensions` start before the runtime, receive INVOKE and
//! SHUTDOWN events, and have time to finish.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{ASK, RUNTIME, logged, shell_in, text};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{
    Answer, Backend, Error, Exit, Idle, InitFailure, Invocation, MemoryLog, Root, Sandbox,
    SandboxSpec, ShutdownReason,
};

/// Prints that it starts, registers after a pause, prints each event, and ends at SHUTDOWN.
const EXTENSION: &str = r#"
name=${0##*/}
sleep 0.2
echo $name registers
body='{"events":["INVOKE","SHUTDOWN"]}'
ask "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLambda-Extension-Name: $name\r\nContent-Length: ${#body}\r\n\r\n$body"
id=$(grep -i lambda-extension-identifier <&3 | tr -d '\r' | cut -d' ' -f2)
while true; do
  ask "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLambda-Extension-Identifier: $id\r\n\r\n"
  event=$(cat <&3)
  case $event in
    *SHUTDOWN*) echo $name ${event##*shutdownReason}; sleep ${LAST:-0}; echo $name ends; exit 0;;
    *INVOKE*) echo $name invoked;;
  esac
done
"#;

fn backend() -> Option<LinuxBackend> {
    common::backend("extensions")
}

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// A function with these extensions. The returned folder must be kept while the function is used.
fn function(extensions: &[(&str, &str)]) -> (tempfile::TempDir, SandboxSpec, Arc<MemoryLog>) {
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("readable");
    executable(&folder.path().join("task/bootstrap"), &format!("{ASK}{RUNTIME}"));
    for (name, script) in extensions {
        executable(&folder.path().join("opt/extensions").join(name), &format!("{ASK}{script}"));
    }
    let root = Root::of_machine()
        .with_bind(folder.path().join("task"), "/var/task")
        .with_bind(folder.path().join("opt"), "/opt");
    let mut spec = shell_in(root, "");
    spec.command = vec!["/var/task/bootstrap".into()];
    spec.limits.cpus = 2.0;
    let log = logged(&mut spec);
    (folder, spec, log)
}

async fn init(backend: &LinuxBackend, spec: &SandboxSpec, log: &MemoryLog) -> Sandbox<Idle> {
    let created = backend.create(spec.clone()).await.expect("created");
    match created.init().await {
        Ok((idle, _)) => idle,
        Err(failure) => panic!("{failure:?}\n{}", text(log)),
    }
}

async fn fails(backend: &LinuxBackend, spec: SandboxSpec) -> InitFailure {
    backend.create(spec).await.expect("created").init().await.expect_err("fails")
}

#[tokio::test]
async fn extensions_come_first_and_hear_of_everything() {
    let Some(backend) = backend() else { return };
    let (_folder, spec, log) = function(&[("one", EXTENSION), ("two", EXTENSION)]);
    let mut idle = init(&backend, &spec, &log).await;
    let output = text(&log);
    let at = |what: &str| output.find(what).unwrap_or_else(|| panic!("{what} not in\n{output}"));
    assert!(at("one registers").max(at("two registers")) < at("runtime starts"), "{output}");
    for _ in 0..2 {
        let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
        let (outcome, busy) = idle.invoke(event).await.expect("invoked");
        assert!(matches!(&outcome.answer, Answer::Success(it) if it.body == "42"), "{outcome:?}");
        idle = busy.expect("usable").settle().await.expect("settled");
    }
    idle.shutdown(ShutdownReason::Spindown).await.expect("shut down");
    let output = text(&log);
    for name in ["one", "two"] {
        assert_eq!(output.matches(&format!("{name} invoked")).count(), 2, "{output}");
        assert_eq!(output.matches(&format!("{name} ends")).count(), 1, "{output}");
    }
    assert_eq!(output.matches("spindown").count(), 2, "{output}");
}

#[tokio::test]
async fn the_end_waits_for_extensions_and_not_for_ever() {
    let Some(backend) = backend() else { return };
    let (_folder, mut spec, log) = function(&[("slow", EXTENSION)]);
    spec.environment.push(("LAST".into(), "1".into()));
    let idle = init(&backend, &spec, &log).await;
    idle.shutdown(ShutdownReason::Spindown).await.expect("shut down");
    // Longer than the time without external extensions, and within the 2 s with one.
    assert!(text(&log).contains("slow ends"), "{}", text(&log));
    let (_folder, mut spec, log) = function(&[("stuck", EXTENSION)]);
    spec.environment.push(("LAST".into(), "600".into()));
    spec.times.shutdown_external = Duration::from_millis(500);
    let idle = init(&backend, &spec, &log).await;
    idle.shutdown(ShutdownReason::Timeout).await.expect("shut down");
    let output = text(&log);
    assert!(output.contains("timeout") && !output.contains("stuck ends"), "{output}");
}

/// Waits until `what` was printed and everything is released. Counts its own steps instead of time,
/// because a machine may pause.
async fn heard(backend: &LinuxBackend, log: &MemoryLog, what: &str) {
    for _ in 0..3000 {
        if text(log).contains(what) && backend.groups().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}\n{}", backend.groups(), text(log));
}

#[tokio::test]
async fn extensions_hear_of_a_timeout_and_of_a_failure() {
    let Some(backend) = backend() else { return };
    for (work, answer, reason) in [
        ("sleep 600", Answer::TimedOut, "timeout"),
        ("exit 3", Answer::Exited(Exit::Status(3)), "failure"),
    ] {
        let (folder, mut spec, log) = function(&[("one", EXTENSION)]);
        let runtime =
            format!("{ASK}{}", RUNTIME.replace("  ask \"POST", &format!("  {work}\n  ask \"POST")));
        executable(&folder.path().join("task/bootstrap"), &runtime);
        spec.environment.push(("LAST".into(), "0.5".into()));
        let idle = init(&backend, &spec, &log).await;
        let event = Invocation::new("id-1", "{}", Duration::from_millis(700));
        let (outcome, busy) = idle.invoke(event).await.expect("invoked");
        assert_eq!(outcome.answer, answer);
        assert!(busy.is_none());
        // The answer does not wait for the extension's time.
        assert!(!text(&log).contains("one ends"), "{}", text(&log));
        heard(&backend, &log, "one ends").await;
        assert!(text(&log).contains(reason), "{}", text(&log));
    }
    // An extension has no more than its time.
    let (folder, mut spec, log) = function(&[("stuck", EXTENSION)]);
    executable(
        &folder.path().join("task/bootstrap"),
        &format!("{ASK}{}", RUNTIME.replace("  id=", "  read -r _ <&3; exit 3; id=")),
    );
    spec.environment.push(("LAST".into(), "600".into()));
    spec.times.shutdown_external = Duration::from_millis(500);
    let idle = init(&backend, &spec, &log).await;
    let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
    let (_, busy) = idle.invoke(event).await.expect("invoked");
    assert!(busy.is_none());
    heard(&backend, &log, "failure").await;
    assert!(!text(&log).contains("stuck ends"), "{}", text(&log));
}

/// After a failed init extensions were killed without SHUTDOWN, and lost what they had to send.
#[tokio::test]
async fn extensions_hear_of_an_init_that_fails_or_takes_too_long() {
    let Some(backend) = backend() else { return };
    let report = "ask 'POST /2018-06-01/runtime/init/error HTTP/1.1\\r\\nHost: x\\r\\n\
                  Content-Length: 2\\r\\n\\r\\n{}'; sleep 600";
    for (runtime, reason) in [("exit 3", "failure"), (report, "failure"), ("sleep 600", "timeout")]
    {
        let (folder, mut spec, log) = function(&[("one", EXTENSION), ("two", EXTENSION)]);
        executable(&folder.path().join("task/bootstrap"), &format!("{ASK}\n{runtime}"));
        spec.environment.push(("LAST".into(), "1".into()));
        spec.times.shutdown_external = Duration::from_secs(8);
        if reason == "timeout" {
            // Only registered extensions receive SHUTDOWN, and registering takes time on a busy
            // machine.
            spec.times.init = Duration::from_secs(8);
        }
        let failure = fails(&backend, spec).await;
        match (&failure, runtime) {
            (InitFailure::Exited(Exit::Status(3)), "exit 3") => {}
            (InitFailure::TimedOut(_), "sleep 600") => {}
            (InitFailure::Reported(_), _) if runtime == report => {}
            _ => panic!("{failure:?} of {runtime}\n{}", text(&log)),
        }
        // The error does not wait for the extensions' time.
        assert!(!text(&log).contains("ends"), "{}", text(&log));
        heard(&backend, &log, "one ends").await;
        heard(&backend, &log, "two ends").await;
        assert_eq!(text(&log).matches(reason).count(), 2, "{runtime}: {}", text(&log));
    }
}

#[tokio::test]
async fn an_extension_hears_that_another_failed_init() {
    let Some(backend) = backend() else { return };
    let quits = "sleep 1; exit 3";
    let reports = EXTENSION.replace(
        "while true",
        "ask \"POST /2020-01-01/extension/init/error HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\
         Lambda-Extension-Identifier: $id\\r\\n\\r\\n{}\"; exit 4\nwhile true",
    );
    for other in [quits, &reports] {
        let (_folder, mut spec, log) = function(&[("one", EXTENSION), ("other", other)]);
        // An extension that never registers delays nobody, and one that hangs has no more than its
        // time.
        spec.environment.push(("LAST".into(), "1".into()));
        spec.times.shutdown_external = Duration::from_secs(8);
        let failure = fails(&backend, spec).await;
        let told = matches!(failure, InitFailure::Exited(Exit::Status(3 | 4)))
            || matches!(failure, InitFailure::Reported(_));
        assert!(told, "{failure:?}");
        heard(&backend, &log, "one ends").await;
        assert!(text(&log).contains("failure"), "{}", text(&log));
    }
    let (folder, mut spec, log) = function(&[("stuck", EXTENSION)]);
    executable(&folder.path().join("task/bootstrap"), &format!("{ASK}\nexit 3"));
    spec.environment.push(("LAST".into(), "600".into()));
    spec.times.shutdown_external = Duration::from_millis(1500);
    fails(&backend, spec).await;
    heard(&backend, &log, "failure").await;
    assert!(!text(&log).contains("stuck ends"), "{}", text(&log));
}

#[tokio::test]
async fn an_extension_that_fails_fails_the_sandbox() {
    let Some(backend) = backend() else { return };
    // One ends before it registers; one never registers; one is not executable.
    let (_folder, spec, _) = function(&[("quits", "exit 3")]);
    let failure = fails(&backend, spec).await;
    assert!(matches!(failure, InitFailure::Exited(Exit::Status(3))), "{failure:?}");
    let (_folder, mut spec, log) = function(&[("silent", "sleep 600")]);
    spec.times.init = Duration::from_millis(300);
    let failure = fails(&backend, spec).await;
    assert!(matches!(failure, InitFailure::TimedOut(_)), "{failure:?}");
    assert!(!text(&log).contains("runtime starts"), "{}", text(&log));
    let (folder, spec, _) = function(&[("data", "")]);
    let data = folder.path().join("opt/extensions/data");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let failure = fails(&backend, spec).await;
    let named = matches!(&failure, InitFailure::Failed(Error::Failed { path: Some(path), .. })
        if path == Path::new("/opt/extensions"));
    assert!(named, "{failure:?}");
    // Eleven, one more than Lambda allows.
    let names: Vec<String> = (0..11).map(|number| format!("extension-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), EXTENSION)).collect();
    let (_folder, spec, _) = function(&many);
    let failure = fails(&backend, spec).await;
    assert!(matches!(&failure, InitFailure::Failed(Error::Failed { .. })), "{failure:?}");
    // An extension that dies during an invocation ends the sandbox.
    let dies = EXTENSION.replace("*INVOKE*) echo $name invoked", "*INVOKE*) exit 4");
    let (_folder, spec, log) = function(&[("dies", &dies)]);
    let idle = init(&backend, &spec, &log).await;
    let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
    let (outcome, busy) = idle.invoke(event).await.expect("invoked");
    // The runtime's answer and the extension's end may come in either order.
    match busy {
        None => assert_eq!(outcome.answer, Answer::Exited(Exit::Status(4))),
        Some(busy) => assert!(matches!(busy.settle().await, Err(Error::Ended))),
    }
}

#[tokio::test]
async fn a_folder_without_extensions_is_none() {
    let Some(backend) = backend() else { return };
    let (folder, spec, log) = function(&[]);
    std::fs::create_dir_all(folder.path().join("opt/extensions/folder")).expect("made");
    std::fs::write(folder.path().join("opt/extensions/.hidden"), "").expect("written");
    init(&backend, &spec, &log).await.destroy().await.expect("destroyed");
    // A program that runs without the Runtime API has no extensions.
    let (_folder, mut spec, log) = function(&[("one", "echo started")]);
    spec.command = vec!["/bin/echo".into(), "alone".into()];
    backend.create(spec).await.expect("created").run().await.expect("run");
    assert_eq!(text(&log), "alone\n");
}
