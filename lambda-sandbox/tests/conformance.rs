//! The public conformance suite on each of our backends. Backends of real programs run an
//! unmodified `awslambdaric`.

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
mod common;
#[cfg(all(feature = "runtime-api", unix))]
mod suite;

use lambda_sandbox::conformance::{self, FUNCTION, Verdict};
use lambda_sandbox::fake::FakeBackend;
#[cfg(all(feature = "runtime-api", unix))]
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{Backend, Capability, SandboxSpec};
#[cfg(all(feature = "runtime-api", unix))]
use lambda_sandbox::{Limits, Root};
#[cfg(all(feature = "runtime-api", unix))]
use suite::check_programs;

#[cfg(all(feature = "runtime-api", unix))]
const HANDLER: &str = r#"
import os, time
def handler(event, context):
    what = event["do"]
    if what == "raise":
        raise KeyError("asked for")
    if what == "exit":
        os._exit(7)
    if what == "sleep":
        time.sleep(60)
    if what == "eat":
        return len([bytearray(1 << 20) for _ in range(1 << 14)])
    return event
"#;

async fn check(backend: &dyn Backend, spec: &SandboxSpec, declined: &[Capability]) {
    for (name, verdict) in conformance::run(backend, spec).await {
        match verdict {
            Verdict::Passed => {}
            Verdict::Declined(capability) => assert!(declined.contains(&capability), "{name}"),
            verdict => panic!("{name}: {verdict:?}"),
        }
    }
}

/// The suite's function in Python. The returned folder must be kept while the function is used.
#[cfg(all(feature = "runtime-api", unix))]
fn python() -> Option<(tempfile::TempDir, SandboxSpec)> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(python) = test_support::venv_program("python") else {
        test_support::left_out("conformance of real backends", "no target/venv");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).expect("readable");
    std::fs::write(folder.path().join("app.py"), HANDLER).expect("written");
    let interpreter = std::fs::canonicalize(&python).expect("python");
    let venv = python.ancestors().nth(2).expect("a folder");
    let versions = std::fs::read_dir(venv.join("lib")).expect("lib");
    let packages = (versions.flatten().next().expect("a version").path()).join("site-packages");
    let root = (Root::of_machine().with_interpreter(&interpreter).expect("an interpreter"))
        .with_bind(folder.path(), "/var/task")
        .with_bind(packages, "/opt/python");
    let command = ["-m", "awslambdaric", "app.handler"].map(Into::into);
    let mut spec = SandboxSpec::new(root, [interpreter]).named(FUNCTION);
    spec.command.extend(command);
    spec.limits = Limits { cpus: 2.0, ..Limits::for_memory_mb(256) };
    spec.working_directory = "/var/task".into();
    spec.environment = vec![
        ("LAMBDA_TASK_ROOT".into(), "/var/task".into()),
        ("PYTHONPATH".into(), "/opt/python".into()),
        ("_HANDLER".into(), "app.handler".into()),
    ];
    Some((folder, spec))
}

#[tokio::test]
async fn conformance_fake() {
    let backend = FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler);
    let declined = [Capability::MemoryLimit, Capability::CpuTime];
    check(&backend, &conformance::fake_spec(), &declined).await;
    for (name, verdict) in conformance::run_programs(&backend, &conformance::fake_spec()).await {
        assert!(matches!(verdict, Verdict::Declined(_)), "{name}: {verdict:?}");
    }
    assert_eq!(backend.live(), 0);
}

#[cfg(all(feature = "runtime-api", unix))]
#[tokio::test]
async fn programs_process() {
    let declined = [Capability::MemoryLimit, Capability::CpuTime, Capability::Exec];
    check_programs(&ProcessBackend::new(), Root::empty(), &declined).await;
}

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#[tokio::test]
async fn programs_linux() {
    let Some(backend) = common::backend("conformance of programs") else { return };
    check_programs(&backend, Root::of_machine(), &[]).await;
}

#[cfg(all(feature = "runtime-api", unix))]
#[tokio::test]
async fn conformance_process() {
    let Some((_folder, spec)) = python() else {
        return;
    };
    let declined = [Capability::MemoryLimit, Capability::CpuTime];
    check(&ProcessBackend::new(), &spec, &declined).await;
}

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#[tokio::test]
async fn conformance_linux() {
    let Some(backend) = common::backend("conformance") else { return };
    let Some((_folder, spec)) = python() else {
        return;
    };
    check(&backend, &spec, &[]).await;
}
