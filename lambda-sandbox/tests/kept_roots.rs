//! Roots stay mounted between sandboxes: what has changed on the host is seen all the same, and few are kept. One test
//! in a process of its own, as it counts descriptors.

use std::path::Path;
use std::sync::Arc;

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Error, MemoryLog, Root, SandboxSpec};

async fn run(backend: &LinuxBackend, folder: &Path, script: &str) -> String {
    let log = Arc::new(MemoryLog::new(1 << 16));
    let root = Root::of_machine().with_bind(folder, "/var/task");
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let mut spec = SandboxSpec::new("f", root, command);
    spec.environment = vec![("PATH".into(), "/usr/bin:/bin".into())];
    spec.limits.cpus = 1.0;
    spec.log = log.clone();
    backend.create(spec).await.expect("created").run().await.expect("run");
    String::from_utf8_lossy(&log.tail(1 << 16)).into_owned()
}

fn folder(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path).expect("made");
    std::fs::write(path.join("code"), content).expect("written");
    for path in path.ancestors().take(2) {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, open).expect("readable");
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

#[tokio::test]
async fn kept_roots_are_never_stale_and_few() {
    let backend = match LinuxBackend::new() {
        Ok(backend) => backend,
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out("kept roots of the Linux backend", &error.to_string());
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    let place = tempfile::tempdir().expect("a folder");
    let code = place.path().join("task");
    folder(&code, "first");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "first");
    // The same folder with other files in it, then another folder at the same path.
    folder(&code, "second");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "second");
    std::fs::rename(&code, place.path().join("old")).expect("moved");
    folder(&code, "third");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "third");
    // What one sandbox does to its mounts or its scratch space is nothing to the next.
    run(&backend, &code, "echo x > /tmp/x; mkdir /tmp/d").await;
    assert_eq!(
        run(&backend, &code, "ls -A /tmp; ls /proc | grep -c '^[0-9]'").await.lines().count(),
        1
    );
    // The host's own view has none of it.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    assert!(!mounts.contains("lambda-sandbox"), "{mounts}");

    let before = descriptors();
    for number in 0..50 {
        let code = place.path().join(number.to_string());
        folder(&code, "x");
        assert_eq!(run(&backend, &code, "cat /var/task/code").await, "x");
        std::fs::remove_dir_all(&code).expect("removed while its root is kept");
    }
    let kept = descriptors().saturating_sub(before);
    assert!(kept <= 32, "{kept} descriptors more");
    backend.sweep().await.expect("swept");
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
}
