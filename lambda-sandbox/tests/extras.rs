//! Options of the Linux backend: writable binds, volumes, devices, descriptors, a terminal,
//! profiles of system calls.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::{backend, shell};
use lambda_sandbox::linux::{Extras, LinuxBackend, SystemCalls, Terminal, TerminalEnd, Volume};
use lambda_sandbox::{Backend, Defence, EndedBy, Error, Root, SandboxSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PYTHON: &str = "/usr/bin/python3";

async fn said(backend: &LinuxBackend, spec: SandboxSpec) -> String {
    let done = backend.run(spec).await.expect("run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(backend.groups().is_empty());
    format!("{}{}", text(&done.stdout), text(&done.stderr))
}

#[tokio::test]
async fn a_volume_is_written_inside_and_read_outside() {
    let Some(backend) = backend("volumes") else { return };
    let volume = Volume::new(1 << 20, 10).expect("a volume");
    volume.write("in/input.txt", b"from the host").expect("written");
    let script = "cd /work; cat in/input.txt; echo changed > in/input.txt; mkdir out; \
        echo result > out/r.txt; ln -s /etc/passwd link; ln -s out/r.txt near; mkfifo pipe";
    let with = |script: &str| {
        let extras = Extras::default().with_volume("/work", &volume);
        shell(script).in_folder("/work").with_linux(extras)
    };
    let text = said(&backend, with(script)).await;
    assert!(text.starts_with("from the host"), "{text}");
    assert_eq!(volume.read("out/r.txt", 100).expect("read"), b"result\n");
    assert_eq!(volume.read("in/input.txt", 100).expect("read"), b"changed\n");
    assert!(volume.read("out/r.txt", 3).is_err(), "larger than asked for");
    for path in ["link", "near", "pipe", "out", "none", "../r", "/out/r.txt", ""] {
        assert!(volume.read(path, 100).is_err(), "{path:?} is no regular file in it");
    }
    let found: Vec<String> = (volume.list(100).expect("listed").into_iter())
        .filter(|entry| entry.is_file)
        .map(|entry| format!("{} {}", entry.path.display(), entry.bytes))
        .collect();
    assert_eq!(found, ["in/input.txt 8", "out/r.txt 7"]);
    assert!(volume.list(2).is_err(), "more than asked for");
    // A write of the host replaces a link that the sandbox has left.
    assert!(volume.write("link", b"x").is_ok() && volume.write("near/x", b"x").is_err());
    // The next sandbox finds the volume as the first has left it, and the size limit holds.
    let script = "cat out/r.txt; head -c 2000000 /dev/zero > big; wc -c < big; \
        for i in 1 2 3 4 5 6 7 8 9; do touch f$i; done";
    let text = said(&backend, with(script)).await;
    assert!(text.starts_with("result\n") && text.matches("No space left").count() >= 2, "{text}");
    assert!(volume.read("big", 4 << 20).expect("read").len() < (1 << 20));
    assert!(Volume::new(0, 1).is_err() && Volume::new(4096, 0).is_err());
}

#[tokio::test]
async fn volumes_attach_to_every_kind_of_root_and_leave_nothing() {
    let Some(backend) = backend("volumes in roots") else { return };
    let before = || std::fs::read_to_string("/proc/self/mountinfo").expect("read").lines().count();
    let mounts = before();
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("readable");
    for name in ["proc", "dev", "tmp", "work", "bin", "etc"] {
        std::fs::create_dir(folder.path().join(name)).expect("made");
    }
    std::os::unix::fs::symlink("/etc", folder.path().join("out")).expect("linked");
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        test_support::left_out("volumes in roots of folders", "no busybox");
        return;
    }
    std::fs::copy(busybox, folder.path().join("bin/sh")).expect("copied");
    let volume = Volume::new(1 << 20, 10).expect("a volume");
    let of = |root: Root, target: &str| {
        let script = format!("rm -f {target}/f; echo here > {target}/f; echo $?");
        let extras = Extras::default().with_volume(target, &volume);
        SandboxSpec::new(root, ["/bin/sh", "-c", &script]).with_linux(extras)
    };
    let directory = || Root::of_directory(folder.path());
    assert_eq!(said(&backend, of(directory(), "/work")).await, "0\n");
    assert_eq!(said(&backend, of(Root::of_layers([folder.path()]), "/work")).await, "0\n");
    assert_eq!(volume.read("f", 10).expect("read"), b"here\n");
    for target in ["/none", "/out"] {
        let error = backend.run(of(directory(), target)).await.expect_err(target);
        assert!(matches!(error, Error::Failed { .. }), "{target}: {error:?}");
    }
    drop(volume);
    assert_eq!(before(), mounts);
}

#[tokio::test]
async fn a_writable_bind_is_written_and_nothing_beside_it() {
    let Some(backend) = backend("writable binds") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("open");
    let extras = Extras::default().with_writable_bind(folder.path(), "/out");
    let script = "echo done > /out/result; touch /usr/x /x 2>&1 | wc -l; \
        cp /bin/true /out/t; chmod u+s /out/t; ls -l /out/t | cut -c1-4";
    let text = said(&backend, shell(script).with_linux(extras)).await;
    assert_eq!(text, "2\n-rws\n");
    assert_eq!(std::fs::read(folder.path().join("result")).expect("read"), b"done\n");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&folder.path().join("t").metadata().expect("there"));
    assert!(owner >= 0x7000_0000, "it is nobody's: {owner}");
    let file = folder.path().join("one");
    std::fs::write(&file, "").expect("made");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("open");
    let extras = Extras::default().with_writable_bind(&file, "/var/one");
    said(&backend, shell("echo text > /var/one").with_linux(extras)).await;
    assert_eq!(std::fs::read(&file).expect("read"), b"text\n");
}

#[tokio::test]
async fn a_device_is_the_programs_own() {
    let Some(backend) = backend("devices") else { return };
    for (device, open) in
        [("/dev/kvm", "exec 3<>/dev/kvm"), ("/dev/net/tun", "exec 3<>/dev/net/tun")]
    {
        if !Path::new(device).exists() {
            test_support::left_out(&format!("{device} inside"), "it is not there");
            continue;
        }
        let extras = Extras::default().with_device(device);
        let script = format!("{open} && echo open; stat -c '%a %U' {device}; ls /dev/sda 2>&1");
        let text = said(&backend, shell(&script).with_linux(extras)).await;
        assert!(text.starts_with("open\n600 "), "{device}: {text}");
        let text = said(&backend, shell(&format!("ls {device}"))).await;
        assert!(text.contains("No such file"), "{text}");
    }
    let error = backend.run(shell("").with_linux(Extras::default().with_device("/dev/null"))).await;
    assert!(matches!(error, Err(Error::Invalid { .. })), "every sandbox has it");
    let error = backend.run(shell("").with_linux(Extras::default().with_device("/dev/shm"))).await;
    assert!(matches!(error, Err(Error::Invalid { .. })), "{error:?}");
}

#[tokio::test]
async fn kvm_makes_a_machine_inside() {
    let Some(backend) = backend("a virtual machine") else { return };
    for needed in ["/dev/kvm", PYTHON] {
        if !Path::new(needed).exists() {
            return test_support::left_out("a virtual machine inside", &format!("no {needed}"));
        }
    }
    let code = "import fcntl, mmap, os\n\
        kvm = os.open('/dev/kvm', os.O_RDWR | os.O_CLOEXEC)\n\
        print('version', fcntl.ioctl(kvm, 0xAE00, 0))\n\
        vm = fcntl.ioctl(kvm, 0xAE01, 0)\n\
        cpu = fcntl.ioctl(vm, 0xAE41, 0)\n\
        size = fcntl.ioctl(kvm, 0xAE04, 0)\n\
        print('run', len(mmap.mmap(cpu, size)) == size)\n";
    let spec = SandboxSpec::new(Root::of_machine(), [PYTHON, "-c", code]);
    let spec = spec.with_cpus(1.0).with_linux(Extras::default().with_device("/dev/kvm"));
    let text = said(&backend, spec).await;
    assert_eq!(text, "version 12\nrun True\n");
}

#[tokio::test]
async fn descriptors_are_passed_from_three_on() {
    let Some(backend) = backend("descriptors") else { return };
    let files: Vec<(std::io::PipeReader, OwnedFd)> = (0..8)
        .map(|_| std::io::pipe().expect("a pipe"))
        .map(|(reader, writer)| (reader, writer.into()))
        .collect();
    let mut extras = Extras::default();
    let mut readers = Vec::new();
    for (reader, writer) in files {
        readers.push(reader);
        extras = extras.with_descriptor(writer);
    }
    // A shell can name descriptors of one digit only.
    let script = "for i in 3 4 5 6 7 8 9; do echo $i >&$i; done; ls /proc/self/fd | wc -l";
    // 0 to 2, the eight passed ones, and the folder that `ls` reads.
    assert_eq!(said(&backend, shell(script).with_linux(extras)).await, "12\n");
    for (number, mut reader) in (3..10).zip(readers) {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the end, as nobody else has it open");
        assert_eq!(text, format!("{number}\n"));
    }
    let one = std::fs::File::open("/dev/null").expect("open");
    let extras = Extras::default().with_descriptor(one);
    let mut broken = shell("").with_linux(extras.clone());
    broken.command[0] = "/bin/none".into();
    let error = backend.run(broken).await.expect_err("no such program");
    assert!(matches!(&error, Error::Failed { path: Some(path), .. } if path.ends_with("none")));
    assert_eq!(said(&backend, shell("ls /proc/self/fd | wc -l").with_linux(extras)).await, "5\n");
}

fn terminal() -> Option<(Terminal, TerminalEnd)> {
    if Path::new("/dev/pts/ptmx").exists() {
        return Some(Terminal::open(24, 80).expect("a terminal"));
    }
    test_support::left_out("a terminal inside", "no devpts on /dev/pts");
    None
}

#[tokio::test]
async fn a_terminal_is_one_for_the_program() {
    let Some(backend) = backend("a terminal") else { return };
    let Some((mut terminal, end)) = terminal() else { return };
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; \
        read line; echo got $line; trap 'echo winch; stty size; exit 5' WINCH; \
        while :; do sleep 0.05; done";
    let spec = shell(script).with_linux(Extras::default().with_terminal(end.clone()));
    let running = tokio::spawn({
        let backend = backend.clone();
        async move { backend.run(spec).await }
    });
    let mut seen = String::new();
    let mut until = async |terminal: &mut Terminal, wanted: &str| {
        while !seen.contains(wanted) {
            let mut bytes = [0; 1024];
            let read =
                tokio::time::timeout(Duration::from_secs(10), terminal.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("{wanted:?} in {seen:?}")).expect("read");
            assert!(read > 0, "the end before {wanted:?}: {seen:?}");
            seen += &String::from_utf8_lossy(&bytes[..read]);
        }
    };
    until(&mut terminal, "24 80").await;
    terminal.write_all(b"hello\n").await.expect("written");
    until(&mut terminal, "got hello").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    terminal.resize(50, 132).expect("resized");
    until(&mut terminal, "50 132").await;
    let done = running.await.expect("joined").expect("run");
    assert_eq!(done.finished.exit, lambda_sandbox::Exit::Status(5));
    let mut rest = Vec::new();
    terminal.read_to_end(&mut rest).await.expect("the end");
    let spec = shell("").with_linux(Extras::default().with_terminal(end));
    assert!(matches!(backend.run(spec).await, Err(Error::Invalid { .. })), "it is taken");
}

#[tokio::test]
async fn a_terminal_that_is_dropped_hangs_up() {
    let Some(backend) = backend("a terminal's end") else { return };
    let Some((terminal, end)) = terminal() else { return };
    let spec = shell("sleep 100").with_linux(Extras::default().with_terminal(end));
    let spec = spec.with_wall_time(Duration::from_secs(20));
    let running = tokio::spawn(async move { backend.run(spec).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(terminal);
    assert_eq!(running.await.expect("joined").expect("run").finished.ended_by, EndedBy::Signal);
}

#[tokio::test]
async fn profiles_of_system_calls_go_by_name() {
    let Some(backend) = backend("profiles of system calls") else { return };
    if !Path::new(PYTHON).exists() {
        return test_support::left_out("profiles of system calls", &format!("no {PYTHON}"));
    }
    let trace = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n\
        print(libc.ptrace(0, 0, 0, 0), libc.socket(2, 1, 0) >= 0)";
    let check = async |profile: &str, expected: &str| {
        let extras =
            Extras::default().with_system_calls(profile.parse::<SystemCalls>().expect("known"));
        let spec = SandboxSpec::new(Root::of_machine(), [PYTHON, "-c", trace]);
        assert_eq!(
            said(&backend, spec.with_cpus(1.0).with_linux(extras)).await,
            expected,
            "{profile}"
        );
    };
    check("default", "-1 True\n").await;
    check("strict", "-1 False\n").await;
    check("wide", "0 True\n").await;
    let extras = Extras::default().with_system_calls(SystemCalls::Tripwire);
    let spec = SandboxSpec::new(Root::of_machine(), [PYTHON, "-c", trace]);
    let done = backend.run(spec.with_cpus(1.0).with_linux(extras)).await.expect("run");
    assert_eq!(done.finished.exit, lambda_sandbox::Exit::Signal(libc::SIGSYS), "{done:?}");
}

#[tokio::test]
async fn a_specification_cannot_weaken_what_it_demands() {
    let Some(backend) = backend("demands and extras") else { return };
    let file = std::fs::File::open("/dev/null").expect("open");
    let folder = tempfile::tempdir().expect("a folder");
    for (defence, extras) in [
        (Defence::FileSystem, Extras::default().with_writable_bind(folder.path(), "/out")),
        (Defence::FileSystem, Extras::default().with_device("/dev/tty")),
        (Defence::Descriptors, Extras::default().with_descriptor(file)),
        (Defence::SystemCalls, Extras::default().with_system_calls(SystemCalls::Wide)),
    ] {
        let mut spec = shell("true").with_linux(extras);
        assert!(backend.run(spec.clone()).await.expect("run").finished.is_success(), "{defence:?}");
        spec.limits.isolation_min = vec![defence];
        let error = backend.run(spec).await.expect_err("refused");
        assert!(matches!(error, Error::Unavailable { .. }), "{defence:?}: {error:?}");
    }
    let mut spec = shell("true");
    let strict = Extras::default().with_system_calls(SystemCalls::Strict);
    spec.limits.isolation_min = vec![Defence::SystemCalls, Defence::FileSystem];
    assert!(backend.run(spec.with_linux(strict)).await.expect("run").finished.is_success());
}

#[test]
fn what_cannot_be_attached_is_refused() {
    let check = |extras: Extras| {
        let error = shell("").with_linux(extras).check();
        assert!(matches!(error, Err(Error::Invalid { .. })), "{error:?}");
    };
    let some = Extras::default;
    check(some().with_writable_bind("relative", "/a"));
    for target in ["/", "/tmp/a", "/proc/a", "/dev/a", "a", "/a/../b"] {
        check(some().with_writable_bind("/srv", target));
    }
    check(some().with_writable_bind("/srv", "/a").with_writable_bind("/srv", "/a/b"));
    check(some().with_device("/etc/passwd"));
    check(some().with_device("/dev"));
    check(some().with_device("/dev/../etc/passwd"));
    check((0..17).fold(some(), |it, number| it.with_writable_bind("/srv", format!("/a{number}"))));
    let file = || std::fs::File::open("/dev/null").expect("open");
    check((0..9).fold(some(), |it, _| it.with_descriptor(file())));
}
