//! The `process` backend with a real, unmodified runtime (`awslambdaric`).

#![cfg(all(feature = "runtime-api", unix))]

use std::sync::Arc;
use std::time::Duration;

use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{
    Answer, Backend, Exit, InitFailure, Invocation, MemoryLog, Root, SandboxSpec,
};

const HANDLER: &str = r#"
import os, time, sys
print("loaded", flush=True)
if os.environ.get("FAIL_INIT"):
    raise ValueError("no init")
def handler(event, context):
    print("got", event, flush=True)
    if event.get("raise"):
        raise KeyError("asked for")
    if event.get("exit"):
        os._exit(7)
    if event.get("sleep"):
        time.sleep(event["sleep"])
    if event.get("big"):
        return "x" * event["big"]
    return {"id": context.aws_request_id, "left": context.get_remaining_time_in_millis(), "event": event}
"#;

struct Function {
    _folder: tempfile::TempDir,
    spec: SandboxSpec,
    log: Arc<MemoryLog>,
}

fn function() -> Option<Function> {
    let Some(python) = test_support::venv_program("python") else {
        test_support::left_out("awslambdaric on the process backend", "no target/venv");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.py"), HANDLER).expect("written");
    let log = Arc::new(MemoryLog::new(64 * 1024));
    let root = Root::empty().with_bind(folder.path(), "/var/task");
    let command: Vec<std::ffi::OsString> =
        vec![python.into(), "-m".into(), "awslambdaric".into(), "app.handler".into()];
    let mut spec = SandboxSpec::new(root, command);
    spec.log = log.clone();
    spec.working_directory = "/var/task".into();
    spec.environment = vec![
        ("LAMBDA_TASK_ROOT".into(), "/var/task".into()),
        ("_HANDLER".into(), "app.handler".into()),
    ];
    Some(Function { _folder: folder, spec, log })
}

fn event(json: &str) -> Invocation {
    Invocation::new("id-1", json.to_owned(), Duration::from_secs(2))
}

#[tokio::test]
async fn python_answers_errs_and_logs() {
    let Some(function) = function() else { return };
    let backend = ProcessBackend::new();
    let created = backend.create(function.spec.clone()).await.expect("created");
    let (idle, report) = created.init().await.expect("init");
    assert!(report.duration > Duration::from_millis(5));
    let (outcome, busy) = idle.invoke(event(r#"{"a": 1}"#)).await.expect("invoked");
    let Answer::Success(response) = outcome.answer else {
        panic!("{:?}\n{:?}", outcome.answer, function.log.lines());
    };
    let body = String::from_utf8_lossy(&response.body).into_owned();
    assert!(body.contains(r#""id": "id-1""#), "{body}");
    assert!(outcome.usage.memory_peak_bytes > Some(1 << 20));
    let tail = function.log.tail(4096);
    assert!(String::from_utf8_lossy(&tail).contains("got {'a': 1}"));

    let idle = busy.expect("usable").settle().await.expect("settled");
    let (outcome, busy) = idle.invoke(event(r#"{"raise": true}"#)).await.expect("invoked");
    let Answer::FunctionError(error) = outcome.answer else {
        panic!("{:?}", outcome.answer);
    };
    assert!(String::from_utf8_lossy(&error.body).contains(r#""errorType": "KeyError""#));

    let idle = busy.expect("usable").settle().await.expect("settled");
    let (outcome, busy) = idle.invoke(event(r#"{"big": 6400000}"#)).await.expect("invoked");
    assert!(
        matches!(&outcome.answer, Answer::FunctionError(error)
            if error.error_type == "Function.ResponseSizeTooLarge"),
        "{:?}",
        outcome.answer
    );
    drop(busy);
}

#[tokio::test]
async fn python_crash_timeout_and_failed_init() {
    let Some(function) = function() else { return };
    let backend = ProcessBackend::new();
    let idle = async || {
        let created = backend.create(function.spec.clone()).await.expect("created");
        created.init().await.expect("init").0
    };
    let (outcome, busy) = (idle().await.invoke(event(r#"{"exit": 1}"#)).await).expect("invoked");
    assert_eq!(outcome.answer, Answer::Exited(Exit::Status(7)));
    assert!(busy.is_none());

    let (outcome, busy) = (idle().await.invoke(event(r#"{"sleep": 60}"#)).await).expect("invoked");
    assert_eq!(outcome.answer, Answer::TimedOut);
    assert!(busy.is_none());
    assert!(outcome.usage.duration < Duration::from_secs(4));

    let sandbox = idle().await;
    let killer = sandbox.killer();
    let killed = tokio::spawn(sandbox.invoke(event(r#"{"sleep": 60}"#)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    killer.kill();
    let (outcome, _) = killed.await.expect("joined").expect("invoked");
    assert_eq!(outcome.answer, Answer::Exited(Exit::Signal(9)));

    let mut spec = function.spec.clone();
    spec.environment.push(("FAIL_INIT".into(), "1".into()));
    let failure = (backend.create(spec).await.expect("created").init().await).expect_err("fails");
    let InitFailure::Reported(error) = failure else {
        panic!("{failure:?}");
    };
    assert!(String::from_utf8_lossy(&error.body).contains("no init"));
}
