//! No path of a specification leads out of the sandbox: not by descriptors that a new process still
//! has (as in CVE-2024-21626), not by links of an untrusted root, and not by changes during the
//! mounts.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod unprivileged;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{run, shell, shell_in};
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Root, SandboxSpec};

use self::unprivileged::With;

fn backend() -> Option<LinuxBackend> {
    common::backend_with(&Settings::default().rootless(), "paths of a specification")
}

/// More descriptor numbers than a new process has.
const NUMBERS: std::ops::Range<u32> = 0..40;

/// Magic links of `/proc`, which lead to a process's folder or file whatever their text says.
fn jumps() -> Vec<PathBuf> {
    let descriptors = NUMBERS.flat_map(|number| {
        [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}")].map(PathBuf::from)
    });
    let others =
        ["root", "cwd", "exe", "task/1/cwd", "map_files", "ns/mnt"].iter().flat_map(|name| {
            [format!("/proc/self/{name}"), format!("/proc/1/{name}")].map(PathBuf::from)
        });
    descriptors.chain(others).collect()
}

/// Makes a root folder on which a shell can run, readable by every user.
fn base(place: &Path) -> PathBuf {
    for name in ["usr", "proc", "dev", "tmp", "opt", "var", "shown"] {
        std::fs::create_dir_all(place.join(name)).expect("made");
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), place.join(name)).expect("linked");
    }
    for folder in [place, place.parent().expect("a folder")] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, open).expect("readable");
    }
    place.to_owned()
}

/// Prints the program's file system, parent folders and their contents.
const WHERE: &str = "stat -c %d . / 2>&1; cd ../../../../../../../..; stat -c %d:%i . /; ls";

/// Starts a program in the specification's working directory. The start must fail, or the program
/// must be inside.
async fn stays(backend: &LinuxBackend, mut spec: SandboxSpec, case: &str) {
    spec.command = ["/bin/sh", "-c", WHERE].map(Into::into).into();
    let log = common::logged(&mut spec);
    let sandbox = match backend.create(spec).await {
        Err(Error::Failed { step, .. }) => {
            let by_path = ["going to the working directory", "looking where a path inside leads"];
            assert!(by_path.contains(&step), "{case}: {step}");
            return;
        }
        created => created.expect(case),
    };
    if sandbox.run().await.is_err() {
        return;
    }
    let said = common::text(&log);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines.get(2),
        lines.get(3),
        "{case}: above the working directory is the root\n{said}"
    );
    assert!(!said.contains("lost+found") && !said.contains("\nboot\n"), "{case}\n{said}");
}

#[tokio::test]
async fn no_working_directory_leads_out() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let whole = base(&place.path().join("whole"));
    let base = base(&place.path().join("base"));
    for jump in jumps() {
        let mut spec = shell("");
        spec.working_directory = jump.clone();
        stays(&backend, spec, &jump.display().to_string()).await;
        let below = jump.join("..");
        let mut spec = shell("");
        spec.root.links.push(lambda_sandbox::Link { path: "/there".into(), points_to: below });
        spec.working_directory = "/there".into();
        stays(&backend, spec, "a link above it").await;
    }
    // The specification is harmless, but the root is not.
    for jump in jumps().into_iter().filter(|jump| jump.to_string_lossy().contains("self/fd")) {
        let hostile = place.path().join("hostile");
        std::fs::create_dir_all(hostile.join("var")).expect("made");
        for root in [&hostile, &whole] {
            let link = root.join("var/task");
            drop(std::fs::remove_file(&link));
            symlink(&jump, link).expect("linked");
        }
        let layers = Root::of_layers([&base, &hostile]).with_bind("/usr", "/usr");
        let directory = Root::of_directory(&whole).with_bind("/usr", "/usr");
        let bound = Root::of_machine().with_bind(whole.join("var"), "/var");
        for (kind, root) in [("layers", layers), ("directory", directory), ("bind", bound)] {
            let mut spec = shell_in(root, "");
            spec.working_directory = "/var/task".into();
            stays(&backend, spec, &format!("{kind}: {}", jump.display())).await;
        }
        backend.sweep().await.expect("swept");
    }
    // Links that stay inside are followed.
    let mut spec = shell("pwd -P");
    spec.root.links.push(lambda_sandbox::Link { path: "/a".into(), points_to: "/usr/bin".into() });
    spec.working_directory = "/a".into();
    assert_eq!(run(&backend, spec).await.1, "/usr/bin\n");
}

/// Mounts, binds and files inside are placed at paths through magic links. The host must not get
/// anything new.
#[tokio::test]
async fn no_mount_point_leads_out() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    for name in ["dev", "proc", "tmp", "shown", "opt"] {
        for jump in ["/proc/self/cwd", "/proc/self/root", "/proc/self/fd/22"] {
            let whole = base(&place.path().join("whole"));
            std::fs::remove_dir(whole.join(name)).expect("removed");
            symlink(jump, whole.join(name)).expect("linked");
            let shown = |root: Root| {
                root.with_bind("/usr", "/usr")
                    .with_bind("/usr/bin", "/shown")
                    .with_bind(std::env::current_exe().expect("a path"), "/opt/a")
            };
            for root in [Root::of_directory(&whole), Root::of_layers([&whole])] {
                let error = backend.create(shell_in(shown(root), "")).await.expect_err("refused");
                let step = matches!(
                    &error,
                    Error::Failed { step: "looking where a path inside leads", .. }
                );
                assert!(step, "{name} {jump}: {error:?}");
            }
            std::fs::remove_dir_all(&whole).expect("removed");
        }
    }
}

/// The program, the extensions' folder and an interpreter may be links. They must resolve inside.
#[tokio::test]
async fn no_program_is_found_outside() {
    let Some(backend) = backend() else { return };
    for jump in jumps() {
        let mut spec = shell("");
        spec.command = vec![jump.clone().into()];
        let log = common::logged(&mut spec);
        // Only the init itself can be found this way, and it has nothing to start.
        if let Ok(finished) = backend.create(spec).await.expect("created").run().await {
            assert_ne!(finished.exit, lambda_sandbox::Exit::Status(0), "{jump:?}");
        }
        assert_eq!(common::text(&log), "", "{jump:?}");
    }
}

fn swap(one: &Path, other: &Path) {
    let [one, other] =
        [one, other].map(|path| CString::new(path.as_os_str().as_bytes()).expect("a path"));
    // SAFETY: both texts live for the call.
    unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        );
    }
}

/// A mount point of the root is exchanged for a link out of it, again and again, while sandboxes
/// are made. The link's target must not change, and each sandbox that starts must have its own
/// `/dev` and `/proc`, or the root's folders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_changes_while_it_is_mounted_writes_nothing_outside() {
    let Some(backend) = backend() else { return };
    for name in ["dev", "tmp", "proc", "opt", "opt/deep"] {
        let place = tempfile::tempdir().expect("a folder");
        let whole = base(&place.path().join("whole"));
        std::fs::create_dir_all(whole.join("opt/deep/at")).expect("made");
        let decoy = place.path().join("decoy");
        std::fs::create_dir_all(decoy.join("deep/at")).expect("made");
        std::fs::create_dir_all(decoy.join("at")).expect("made");
        let (target, link) = (whole.join(name), place.path().join("link"));
        symlink(&decoy, &link).expect("linked");
        let stop = Arc::new(AtomicBool::default());
        let swapping = std::thread::spawn({
            let (stop, target) = (Arc::clone(&stop), target.clone());
            move || {
                let mut swaps = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    swap(&target, &link);
                    swaps += 1;
                    std::thread::sleep(Duration::from_micros(30));
                }
                swaps
            }
        });
        let until = Instant::now() + Duration::from_millis(700);
        let mut ran = 0;
        while Instant::now() < until {
            let root = Root::of_directory(&whole)
                .with_bind("/usr", "/usr")
                .with_bind("/usr/bin", "/opt/deep/at");
            let script = "[ -c /dev/null ] && echo null; [ -s /proc/cmdline ] && echo unmasked; \
                          (echo x > /tmp/x) 2>/dev/null; true";
            let mut spec = shell_in(root, script);
            let log = common::logged(&mut spec);
            if let Ok(sandbox) = backend.create(spec).await
                && sandbox.run().await.is_ok()
            {
                ran += 1;
                assert!(!common::text(&log).contains("unmasked"), "{name}");
            }
            backend.sweep().await.expect("swept");
        }
        stop.store(true, Ordering::Relaxed);
        let swaps = swapping.join().expect("joined");
        assert!(swaps > 100, "{name}: {swaps} swaps, {ran} ran");
        let mut left: Vec<_> = std::fs::read_dir(&decoy)
            .expect("there")
            .chain(std::fs::read_dir(decoy.join("deep")).expect("there"))
            .map(|entry| entry.expect("there").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["at", "at", "deep"], "{name}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(place.path().to_str().expect("a path")), "{name}");
        assert!(std::fs::metadata(decoy.join("at")).expect("there").is_dir());
    }
}

#[test]
fn without_root() {
    if unprivileged::inside().is_none() {
        for test in [
            "no_working_directory_leads_out",
            "no_mount_point_leads_out",
            "no_program_is_found_outside",
            "a_root_that_changes_while_it_is_mounted_writes_nothing_outside",
        ] {
            unprivileged::run(test, With::Nothing);
        }
    }
}

/// The times of the shared device nodes cannot be set: they would be a channel between sandboxes.
#[tokio::test]
async fn nodes_of_devices_cannot_be_touched() {
    let Some(backend) = backend() else { return };
    let times = |path: &str| {
        let found = std::fs::metadata(path).expect("there");
        (found.mtime(), found.mtime_nsec())
    };
    let before = times("/dev/zero");
    let script = "touch /dev/zero 2>&1; touch -d 2001-01-01 /dev/zero 2>&1; echo x > /dev/null && echo writable";
    let (_, said) = run(&backend, shell(script)).await;
    assert_eq!(times("/dev/zero"), before, "{said}");
    assert!(said.contains("writable"), "{said}");
}
