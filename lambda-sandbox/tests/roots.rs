//! Root file systems: stacked layers, squashfs and erofs images, and the release of their
//! resources.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod unprivileged;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::shell_in;
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Exit, Root, SmallFile};

use self::unprivileged::With;

fn backend() -> Option<LinuxBackend> {
    common::backend_with(&Settings::default().rootless(), "root file systems")
}

async fn run(backend: &LinuxBackend, root: Root, script: &str) -> (Exit, String) {
    let (finished, output) = common::run(backend, shell_in(root, script)).await;
    (finished.exit, output)
}

/// Makes a folder with these files, readable by every user.
fn folder(place: &Path, files: &[(&str, &str)]) -> PathBuf {
    for (name, content) in files {
        let path = place.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    std::fs::create_dir_all(place).expect("made");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place, open.clone()).expect("readable");
    std::fs::set_permissions(place.parent().expect("a folder"), open).expect("readable");
    place.to_owned()
}

/// Makes a root folder on which a shell can run: links and mount points; programs must be bound
/// into it.
fn base(place: &Path) -> PathBuf {
    let base = folder(place, &[("etc/base", "base\n"), ("opt/both", "below\n")]);
    for name in ["usr", "proc", "dev", "tmp"] {
        std::fs::create_dir_all(base.join(name)).expect("made");
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), base.join(name)).expect("linked");
    }
    base
}

#[tokio::test]
async fn layers_lie_one_over_another() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let base = base(&place.path().join("base"));
    // Characters that must be escaped in overlayfs options.
    let middle =
        folder(&place.path().join("mi:d,d\\le"), &[("opt/both", "middle\n"), ("opt/own", "own\n")]);
    let top = folder(&place.path().join("top"), &[("opt/both", "top\n"), ("srv/code", "code\n")]);
    let layers = |folders: &[&PathBuf]| {
        Root::of_layers(folders.iter().map(|it| it.as_path())).with_bind("/usr", "/usr")
    };
    let script = "cat /etc/base /opt/both /opt/own /srv/code";
    let (exit, output) = run(&backend, layers(&[&base, &middle, &top]), script).await;
    assert_eq!((output.as_str(), exit), ("base\ntop\nown\ncode\n", Exit::Status(0)));
    let (_, output) = run(&backend, layers(&[&base, &top, &middle]), "cat /opt/both").await;
    assert_eq!(output, "middle\n");
    // A single layer is enough, even one without mount points.
    let (exit, output) =
        run(&backend, layers(&[&base]), "cat /opt/both; ls /tmp /proc/self/comm").await;
    assert_eq!((output.as_str(), exit), ("below\n/proc/self/comm\n\n/tmp:\n", Exit::Status(0)));

    let writes = "for f in /x /opt/both /opt/new /srv/code; do (echo x > $f) 2>/dev/null && echo wrote $f; \
                  rm -f $f 2>/dev/null && [ ! -e $f ] && echo no $f; done; mv /opt /o 2>/dev/null; ls -d /opt";
    let (_, output) = run(&backend, layers(&[&base, &middle, &top]), writes).await;
    // Whiteouts of names that never existed are harmless.
    assert_eq!(output, "no /x\nno /opt/new\n/opt\n");
    for layer in [&base, &middle, &top] {
        assert!(!layer.join("x").exists() && !layer.join("opt/new").exists());
    }
    assert_eq!(std::fs::read_to_string(top.join("opt/both")).expect("there"), "top\n");
}

/// The resolver of a sandbox's network must be told in any root.
fn with_files(mut root: Root) -> Root {
    for path in ["/etc/resolv.conf", "/opt/both", "/new/deep/file"] {
        root.files.push(SmallFile::new(path, format!("{path}\n")));
    }
    root
}

const FILES: &str = "cat /etc/base /etc/resolv.conf /opt/both /new/deep/file; \
                     (echo x > /etc/resolv.conf) 2>/dev/null && echo wrote; ls /files 2>/dev/null";
const SHOWN: &str = "base\n/etc/resolv.conf\n/opt/both\n/new/deep/file\n";

#[tokio::test]
async fn small_files_lie_above_any_root() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let base = base(&place.path().join("base"));
    // A link to another file, as in many images: the file replaces it.
    std::os::unix::fs::symlink("base", base.join("etc/resolv.conf")).expect("linked");
    for root in [Root::of_directory(&base), Root::of_layers([&base])] {
        let root = with_files(root.with_bind("/usr", "/usr"));
        let (_, output) = run(&backend, root, FILES).await;
        assert_eq!(output, SHOWN);
    }
    assert_eq!(std::fs::read_to_string(base.join("etc/base")).expect("there"), "base\n");
    assert!(!base.join("new").exists());
}

#[tokio::test]
async fn bad_roots_are_told_by_name() {
    let Some(backend) = backend() else { return };
    let check = async |root: Root, what: &dyn Fn(&Error) -> bool| {
        let error = backend.create(shell_in(root, "")).await.expect_err("refused");
        assert!(what(&error), "{error:?}");
    };
    let at = |error: &Error, wanted: &str| matches!(error, Error::Failed { path: Some(path), .. } if path == Path::new(wanted));
    check(Root::of_layers(["/not/there"]), &|error| at(error, "/not/there")).await;
    check(Root::of_layers(vec!["/usr"; 33]), &|error| {
        matches!(error, Error::Invalid { setting: "root.layers", .. })
    })
    .await;
    check(Root::of_layers(["usr"]), &|error| {
        matches!(error, Error::Invalid { setting: "root.layers", .. })
    })
    .await;
    let long = format!("/{}", "x/".repeat(3000));
    check(Root::of_layers([long]), &|error| {
        matches!(error, Error::Invalid { setting: "root.layers", value, .. } if value == "6001 bytes")
    })
    .await;
    let mut both = Root::of_directory("/usr");
    both.layers = vec!["/usr".into()];
    check(both, &|error| matches!(error, Error::Invalid { setting: "root", .. })).await;
    if unprivileged::inside().is_some() {
        return;
    }
    check(Root::of_image("/not/there"), &|error| at(error, "/not/there")).await;
    check(Root::of_image("/bin/sh"), &|error| {
        matches!(error, Error::Invalid { setting: "root.image", .. })
    })
    .await;
    // The first bytes of an image, and nothing after them.
    let place = tempfile::tempdir().expect("a folder");
    let broken = place.path().join("broken");
    std::fs::write(&broken, [&b"hsqs"[..], &[0xFF; 8192]].concat()).expect("written");
    check(Root::of_image(&broken), &|error| {
        matches!(
            error,
            Error::Failed { step: "mounting the root's image", .. } | Error::Unavailable { .. }
        )
    })
    .await;
    assert_eq!(loop_devices_of(&broken), 0);
}

/// Roots and layers are not trusted, and neither are their links. Where a link led out of the root,
/// folders and files for binds below it were made on the host.
#[tokio::test]
async fn links_of_others_lead_nowhere_on_the_host() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let victim = folder(&place.path().join("victim"), &[]);
    let data = folder(&place.path().join("data"), &[("file", "shown")]);
    let up: PathBuf = std::iter::repeat_n("..", 12).collect();
    let out = up.join(victim.strip_prefix("/").expect("absolute"));
    for (name, points_to) in [("absolute", &victim), ("relative", &out)] {
        let code = folder(&place.path().join(name), &[("real/place/file", "")]);
        std::os::unix::fs::symlink(points_to, code.join("evil")).expect("linked");
        std::os::unix::fs::symlink("real", code.join("good")).expect("linked");
        for below in ["evil/x", "evil/deep/er/x"] {
            for shown in [data.clone(), data.join("file")] {
                let root = Root::of_machine()
                    .with_bind(&code, "/var/task")
                    .with_bind(shown, Path::new("/var/task").join(below));
                refused_out(&backend, root).await;
            }
        }
        let root = Root::of_machine()
            .with_bind(&code, "/var/task")
            .with_bind(&data, "/var/task/good/place");
        assert_eq!(run(&backend, root, "cat /var/task/real/place/file").await.1, "shown");
        // An untrusted root with a link in the place of a mount point.
        let whole = base(&place.path().join(format!("whole-{name}")));
        std::fs::remove_dir(whole.join("dev")).expect("removed");
        std::os::unix::fs::symlink(points_to, whole.join("dev")).expect("linked");
        refused_out(&backend, Root::of_directory(&whole).with_bind("/usr", "/usr")).await;
        refused_out(&backend, Root::of_layers([&whole]).with_bind("/usr", "/usr")).await;
    }
    assert_eq!(std::fs::read_dir(&victim).expect("there").count(), 0);
}

async fn refused_out(backend: &LinuxBackend, root: Root) {
    let spec = shell_in(root, "exit 0");
    let error = backend.create(spec).await.expect_err("refused");
    let told = matches!(&error, Error::Failed { step: "looking where a path inside leads", source, .. }
        if source.raw_os_error() == Some(libc::EXDEV));
    assert!(told, "{error:?}");
}

/// Returns the number of loop devices with this file, according to the kernel.
fn loop_devices_of(image: &Path) -> usize {
    (std::fs::read_dir("/sys/block").expect("sys").flatten())
        .filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok())
        .filter(|file| Path::new(file.trim_end()) == image)
        .count()
}

async fn loop_devices_become(image: &Path, wanted: usize) {
    let until = Instant::now() + Duration::from_secs(10);
    while loop_devices_of(image) != wanted && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(loop_devices_of(image), wanted, "{}", image.display());
}

async fn check_image(
    program: &str,
    arguments: &[&str],
    order: fn(PathBuf, PathBuf) -> [PathBuf; 2],
) {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let base = base(&place.path().join("base"));
    let image = place.path().join("image");
    let made = Command::new(program).args(order(base, image.clone())).args(arguments).output();
    match made {
        Err(error) => {
            test_support::left_out(
                &format!("a root from an image of {program}"),
                &error.to_string(),
            );
            return;
        }
        Ok(made) => assert!(made.status.success(), "{made:?}"),
    }
    let root = || Root::of_image(&image).with_bind("/usr", "/usr");
    let ran = backend.create(shell_in(root(), "")).await;
    if let Err(error @ Error::Unavailable { .. }) = ran {
        test_support::left_out(&format!("a root from an image of {program}"), &error.to_string());
        return;
    }
    ran.expect("created").destroy().await.expect("destroyed");
    let script = "cat /etc/base /opt/both; (echo x > /opt/both) 2>/dev/null && echo wrote";
    let (_, output) = run(&backend, root(), script).await;
    assert_eq!(output, "base\nbelow\n");
    let (_, output) = run(&backend, with_files(root()), FILES).await;
    assert_eq!(output, SHOWN);
    loop_devices_become(&image, 0).await;
    // Two at a time share a device. The device is released with the last, even if that is killed.
    let first = backend.create(shell_in(root(), "sleep 60")).await.expect("created");
    let second = backend.create(shell_in(root(), "sleep 60")).await.expect("created");
    assert_eq!(loop_devices_of(&image), 1);
    let killer = first.killer();
    let running = tokio::spawn(first.run());
    tokio::time::sleep(Duration::from_millis(20)).await;
    killer.kill();
    running.await.expect("joined").expect("run");
    assert_eq!(loop_devices_of(&image), 1);
    second.destroy().await.expect("destroyed");
    loop_devices_become(&image, 0).await;
    // Also if they are dropped at any moment.
    for round in 0..20 {
        let life = backend.create(shell_in(root(), "exit 0"));
        drop(tokio::time::timeout(Duration::from_micros(round * 300), life).await);
    }
    loop_devices_become(&image, 0).await;
}

#[tokio::test]
async fn a_root_from_a_squashfs_image() {
    if unprivileged::inside().is_none() {
        check_image("mksquashfs", &["-quiet", "-no-progress"], |base, image| [base, image]).await;
    }
}

#[tokio::test]
async fn a_root_from_an_erofs_image() {
    if unprivileged::inside().is_none() {
        check_image("mkfs.erofs", &[], |base, image| [image, base]).await;
    }
}

#[tokio::test]
async fn an_image_needs_root() {
    if unprivileged::inside().is_none() {
        return;
    }
    let Some(backend) = backend() else { return };
    let refused = backend.create(shell_in(Root::of_image("/etc/passwd"), "")).await;
    let refused = refused.expect_err("refused");
    assert!(
        matches!(refused, Error::Unavailable { what: "a root from an image", .. }),
        "{refused:?}"
    );
}

#[test]
fn a_user_has_layers() {
    if unprivileged::inside().is_none() {
        for test in [
            "layers_lie_one_over_another",
            "small_files_lie_above_any_root",
            "bad_roots_are_told_by_name",
            "an_image_needs_root",
        ] {
            unprivileged::run(test, With::Nothing);
        }
    }
}

/// The magic numbers of file systems whose mounts map owners on every kernel that maps any.
const MAPPED: [i64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

#[tokio::test]
async fn files_of_root_are_roots_and_grant_no_more() {
    let Some(backend) = backend() else { return };
    let place = tempfile::tempdir().expect("a folder");
    let task =
        folder(&place.path().join("task"), &[("mine", "root's"), ("secret", "x"), ("other", "y")]);
    let mode = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(task.join(name), mode).expect("a mode");
    };
    mode("secret", 0o600);
    mode("other", 0o604);
    std::os::unix::fs::chown(task.join("other"), Some(4242), Some(4343)).expect("an owner");
    let mut root = Root::of_machine().with_bind(&task, "/task");
    root.folders.push("/opt".into());
    root.files.push(SmallFile::new("/start", "#!/bin/sh\necho started\n").executable());
    let script = "stat -c '%n %a %u %g' / /opt /start /etc/passwd /tmp; /start; id -u
        stat -c '%n %u %g' /task /task/mine /task/other; cat /task/other
        cat /task/secret 2>&1; chown 0 /task/mine 2>&1; touch /opt/x 2>&1; wc -l < /proc/self/uid_map";
    let (exit, output) = run(&backend, root, script).await;
    assert_eq!(exit, Exit::Status(0), "{output}");
    let made = "/ 755 0 0\n/opt 755 0 0\n/start 755 0 0\n/etc/passwd 644 0 0\n/tmp 1777 0 0\nstarted\n1000\n";
    let (found, rest) = output.split_at(made.len().min(output.len()));
    assert_eq!(found, made, "{output}");
    let kind = nix::sys::statfs::statfs(&task).expect("a file system").filesystem_type().0;
    if MAPPED.contains(&kind) {
        assert!(
            rest.starts_with("/task 0 0\n/task/mine 0 0\n/task/other 65534 65534\ny"),
            "{rest}"
        );
    } else {
        let why = "the file system of the temporary folder may not map owners";
        test_support::left_out("owners of bound files", why);
    }
    let refused =
        "cat: /task/secret: Permission denied\nchown: changing ownership of '/task/mine': ";
    assert!(rest.contains(refused), "{rest}");
    assert!(rest.contains("touch: cannot touch '/opt/x': Read-only file system\n2\n"), "{rest}");
}
