//! Attacks from inside a sandbox. Each must be refused there. Harmless ones are also tried on the
//! plain host, where they must succeed: a probe that is refused everywhere shows nothing.
//!
//! The test program runs itself inside the sandbox, with the one test `inside`, which prints the
//! attacks that succeeded.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arguments of system calls are machine words, whatever their sign"
)]

mod common;
mod probes;
mod unprivileged;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use lambda_sandbox::linux::Settings;
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::{Backend, Defence, Root, SandboxSpec};

use self::probes::uptime;
use self::unprivileged::With;

/// Probes that only an optional defence refuses. On a machine without that defence they are
/// reported as left out.
const NEEDS: &[(&str, Defence)] = &[
    ("its own memory as a file", Defence::FileAccess),
    ("how long the machine is up", Defence::Time),
];

/// Runs in the sandbox: prints the attacks that succeeded.
#[test]
fn inside() {
    if std::env::var_os("PROBE_TCP").is_none() {
        return;
    }
    let outside = std::env::var_os("PROBE_OUTSIDE").is_some();
    for probe in probes::all().filter(|probe| !outside || probe.works_outside) {
        let verdict = if (probe.attack)() { "through" } else { "refused" };
        let mut out = std::io::stdout();
        writeln!(out, "probe|{}|{verdict}", probe.name).expect("written");
    }
}

async fn verdicts(backend: &dyn Backend, outside: bool) -> BTreeMap<String, String> {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let name = format!("lambda-sandbox-probe-{}-{outside}", std::process::id());
    let address = UnixAddr::from_abstract_name(&name).expect("a name");
    let _unix = UnixListener::bind_addr(&address).expect("bound");
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/probe");
    let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    let log = common::logged(&mut spec);
    spec.limits.cpus = 1.0;
    spec.environment = vec![
        ("PROBE_TCP".into(), tcp.local_addr().expect("an address").to_string().into()),
        ("PROBE_UNIX".into(), name.into()),
        ("PROBE_UPTIME".into(), uptime().to_string().into()),
    ];
    if outside {
        spec.environment.push(("PROBE_OUTSIDE".into(), "1".into()));
    }
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    let output = String::from_utf8_lossy(&log.tail(1 << 20)).into_owned();
    assert_eq!(finished.exit, lambda_sandbox::Exit::Status(0), "{output}");
    output
        .lines()
        .filter_map(|line| line.split_once("probe|")?.1.split_once('|'))
        .map(|(name, verdict)| (name.to_owned(), verdict.to_owned()))
        .collect()
}

/// Runs every probe inside, and checks that each is refused. Reports those that no defence of this
/// machine refuses.
async fn check_inside(backend: &dyn Backend) {
    let verdicts_inside = verdicts(backend, false).await;
    let isolation = backend.isolation();
    let mut moot = Vec::new();
    for (name, defence) in NEEDS {
        if let Some(why) = isolation.absent.get(defence) {
            test_support::left_out(&format!("attack: {name}"), why);
            moot.push(*name);
        }
    }
    let through: Vec<_> = (verdicts_inside.iter())
        .filter(|(name, verdict)| *verdict != "refused" && !moot.contains(&name.as_str()))
        .collect();
    assert_eq!(through, Vec::<(&String, &String)>::new());
    assert_eq!(verdicts_inside.len(), probes::all().count());
}

#[tokio::test]
async fn attacks_are_refused_inside_and_work_outside() {
    if unprivileged::inside().is_some() {
        return;
    }
    let Some(backend) = common::backend("attacks") else { return };
    check_inside(&backend).await;

    let verdicts_outside = verdicts(&ProcessBackend::new(), true).await;
    let refused: Vec<_> =
        (verdicts_outside.iter()).filter(|(_, verdict)| *verdict != "through").collect();
    assert_eq!(refused, Vec::<(&String, &String)>::new());
}

/// The same attacks from a sandbox in a virtual machine.
#[cfg(feature = "vm")]
#[tokio::test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
async fn attacks_are_refused_in_a_machine() {
    use lambda_sandbox::vm::{Settings, VmBackend};

    let path = |variable: &str| {
        let path = std::env::var_os(variable).map(std::path::PathBuf::from);
        if path.is_none() {
            let why = format!("{variable} is not set: cargo xtask vm");
            test_support::left_out("attacks in a machine", &why);
        }
        path
    };
    let (Some(kernel), Some(guest)) = (path("VM_KERNEL"), path("VM_GUEST")) else { return };
    let Some(monitor) = path("LAMBDA_VMM") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings::new(kernel, guest, monitor, folder.path());
    let backend = VmBackend::start(settings).await.expect("a machine");
    assert!(backend.isolation().in_force.contains_key(&Defence::Kernel));
    check_inside(&backend).await;
}

#[test]
fn attacks_are_refused_without_root() {
    if unprivileged::inside().is_none() {
        unprivileged::run("attacks_on_a_user", With::Nothing);
        unprivileged::run("attacks_on_a_user", With::Groups);
    }
}

/// Run by another test as an unprivileged user, not on its own.
#[tokio::test]
async fn attacks_on_a_user() {
    if unprivileged::inside().is_none() {
        return;
    }
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "attacks without root") else { return };
    check_inside(&backend).await;
    let memory = backend.isolation().in_force.contains_key(&Defence::Memory);
    let groups = unprivileged::inside() == Some(With::Groups);
    assert_eq!(memory, groups, "{}", backend.isolation());
}
