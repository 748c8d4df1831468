//! The backend in restricted places: in a container without rights, as root of a user namespace,
//! with a covered `/proc`. It works as far as possible, and reports what is missing with a remedy.
//! A process that cannot die delays nobody.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{run, shell};
use lambda_sandbox::linux::{Controller, LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error};

/// The capabilities that Docker leaves to root of a container.
const DOCKER: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
                      +net_bind_service,+sys_chroot,+kill,+audit_write";

/// Runs this test again through another program. Returns its output, or `None` if that is not
/// possible here.
fn told(place: &str, program: &[&str]) -> Option<String> {
    if std::fs::metadata("/proc/self").expect("proc").uid() != 0 {
        test_support::left_out(place, "only root can make that place");
        return None;
    }
    let me = std::env::current_exe().expect("a path");
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("readable");
    let copy = folder.path().join("places");
    std::fs::copy(&me, &copy).expect("copied");
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(&copy).args(["--exact", "there", "--nocapture"]);
    command.env("PLACE", place).env("XDG_RUNTIME_DIR", "").current_dir("/");
    let done = command.output();
    match done {
        Err(error) => {
            test_support::left_out(place, &format!("{}: {error}", program[0]));
            None
        }
        Ok(done) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let said = text(&done.stdout);
            assert!(said.contains("1 passed"), "{place}: {said}{}", text(&done.stderr));
            Some(said)
        }
    }
}

/// Run by the test above in the place that it made, not on its own.
#[tokio::test]
async fn there() {
    if std::env::var_os("PLACE").is_none() {
        return;
    }
    for (name, settings) in
        [("root", Settings::default()), ("rootless", Settings::default().rootless())]
    {
        match LinuxBackend::with_settings(&settings) {
            Err(Error::Unavailable { what, why, remedy }) => {
                println!("{name}|{what}|{why}|{remedy}")
            }
            Err(error) => println!("{name}|{error:?}"),
            Ok(backend) => {
                let made = backend.create(shell("exit 0")).await;
                if let Err(error) = made {
                    println!("{name}|{error:?}");
                    continue;
                }
                let (finished, said) = run(&backend, shell("id -u; echo runs")).await;
                println!("{name}|{finished:?}|{}", said.replace('\n', " "));
            }
        }
    }
}

#[test]
fn root_of_a_user_namespace_is_a_user() {
    let user =
        ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "unshare", "-Ur"];
    let Some(said) = told("root of a user namespace", &user) else { return };
    assert!(said.contains("root|root of the machine|"), "{said}");
    assert!(said.contains("Settings::rootless"), "{said}");
    assert!(said.contains("rootless|Finished") && said.contains("1000 runs"), "{said}");
}

#[test]
fn root_with_the_capabilities_of_a_container_is_a_user() {
    let Some(said) = told("root of a container", &["setpriv", "--bounding-set", DOCKER]) else {
        return;
    };
    assert!(
        said.contains("it lacks CAP_SYS_ADMIN") && said.contains("--cap-add SYS_ADMIN"),
        "{said}"
    );
    assert!(said.contains("rootless|Finished") && said.contains("1000 runs"), "{said}");
}

#[test]
fn a_covered_proc_is_told_with_a_remedy() {
    let script = "mount --bind /dev/null /proc/keys && \
                  exec setpriv --reuid 54321 --regid 54321 --clear-groups \"$@\"";
    let private = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"];
    let Some(said) = told("a covered /proc", &private) else { return };
    assert!(said.contains("rootless|a whole /proc|/proc/keys is covered"), "{said}");
    assert!(said.contains("systempaths=unconfined"), "{said}");
}

/// A process in a frozen group of somebody else does not die by SIGKILL.
#[tokio::test]
async fn what_cannot_die_holds_nobody_up() {
    let Some(backend) = common::backend("a process that cannot die") else { return };
    let hierarchies = LinuxBackend::probe().expect("probed").hierarchies;
    let (Some(freezer), Some(_)) = (hierarchies.v1.get(&Controller::Freezer), &hierarchies.v2)
    else {
        test_support::left_out(
            "a process that cannot die",
            "no freezer of version 1 beside version 2 here",
        );
        return;
    };
    let hold = freezer.join(format!("lambda-sandbox-places-{}", std::process::id()));
    std::fs::create_dir(&hold).expect("made");
    let sandbox = backend.create(shell("sleep 1000")).await.expect("created");
    let killer = sandbox.killer();
    let running = tokio::spawn(sandbox.run());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let inside: Vec<String> = (backend.groups().iter())
        .filter_map(|group| std::fs::read_to_string(group.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!inside.is_empty());
    for process in &inside {
        drop(std::fs::write(hold.join("cgroup.procs"), process));
    }
    std::fs::write(hold.join("freezer.state"), "FROZEN").expect("frozen");
    let began = Instant::now();
    killer.kill();
    let finished = tokio::time::timeout(Duration::from_secs(30), running).await;
    let took = began.elapsed();
    // Other sandboxes start and end meanwhile.
    let other = run(&backend, shell("echo other")).await.1;
    std::fs::write(hold.join("freezer.state"), "THAWED").expect("thawed");
    assert_eq!(other, "other\n");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let told = finished.expect("ends").expect("joined").expect_err("it is still there");
    assert!(
        matches!(told, Error::Failed { step: "waiting for killed processes to end", .. }),
        "{told:?}"
    );
    for _ in 0..500 {
        if std::fs::remove_dir(&hold).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!hold.exists());
}
