//! Roots stay mounted between sandboxes. Changes on the host are still seen, and only few roots are
//! kept. One test in a process of its own, because it counts descriptors.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::Path;

use common::shell_in;
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Root};

async fn run(backend: &LinuxBackend, folder: &Path, script: &str) -> String {
    let root = Root::of_machine().with_bind(folder, "/var/task");
    common::run(backend, shell_in(root, script)).await.1
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
    let Some(backend) = common::backend("kept roots") else { return };
    let place = tempfile::tempdir().expect("a folder");
    let code = place.path().join("task");
    folder(&code, "first");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "first");
    // The same folder with other files, then another folder at the same path.
    folder(&code, "second");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "second");
    std::fs::rename(&code, place.path().join("old")).expect("moved");
    folder(&code, "third");
    assert_eq!(run(&backend, &code, "cat /var/task/code").await, "third");
    // A sandbox's changes to its mounts or its scratch space do not affect the next one.
    run(&backend, &code, "echo x > /tmp/x; mkdir /tmp/d").await;
    assert_eq!(
        run(&backend, &code, "ls -A /tmp; ls /proc | grep -c '^[0-9]'").await.lines().count(),
        1
    );
    // The host's own mount namespace has none of these mounts.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    assert!(!mounts.contains("lambda-sandbox"), "{mounts}");

    // Roots that differ only in their last bind share the other mounts. Each has its own last bind,
    // a file or a folder.
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    folder(&one, "one");
    folder(&two, "two");
    let script = "cat /var/task/code; { echo x > /var/task/new; } 2>/dev/null; ls /var/task";
    for (code, name) in [(&one, "one"), (&two, "two"), (&one, "one")] {
        assert_eq!(run(&backend, code, script).await, format!("{name}code\n"));
    }
    let file = Root::of_machine().with_bind(two.join("code"), "/var/task");
    let said = common::run(&backend, shell_in(file, "cat /var/task; mount")).await.1;
    let mount =
        said.strip_prefix("two").expect("the file").lines().find(|it| it.contains(" /var/task "));
    let options = mount.map(|it| it.rsplit_once('(').map_or("", |(_, options)| options));
    assert!(options.is_some_and(|it| it.starts_with("ro,nosuid,nodev")), "{said}");

    settled(&backend).await;
    let before = descriptors();
    for number in 0..50 {
        let code = place.path().join(number.to_string());
        folder(&code, "x");
        assert_eq!(run(&backend, &code, "cat /var/task/code").await, "x");
        std::fs::remove_dir_all(&code).expect("removed while its root is kept");
    }
    // Used control groups are kept too, with the descriptors for joining them: one group, or two if
    // a sandbox started early.
    let kept = descriptors().saturating_sub(before);
    assert!(kept <= 32 + 2 * 4, "{kept} descriptors more");
    settled(&backend).await;
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
}

/// Waits until the pool is full again, and releases what is kept.
async fn settled(backend: &LinuxBackend) {
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    backend.sweep().await.expect("swept");
}
