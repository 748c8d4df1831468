//! Harmless things that ordinary programs do work: each line of the script must succeed. And no
//! limit or setting of the host is inherited.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod unprivileged;

use common::{run, shell};
use lambda_sandbox::linux::Settings;

use self::unprivileged::With;

/// Commands that must succeed. The shell prints the result of each.
const COMMANDS: &[&str] = &[
    "echo x > /dev/stderr",
    "echo x >> /dev/stdout",
    "echo x | tee /dev/stdout",
    "cat < /dev/stdin",
    "mkfifo /tmp/pipe",
    "cp -p /etc/passwd /tmp/kept",
    "cp -a /usr/bin/env /tmp/all",
    "install -m 700 /etc/passwd /tmp/installed",
    "mv /tmp/kept /tmp/moved",
    "nice -n 5 true",
    "ionice -c 3 true",
    "chrt --other 0 true",
    "chrt --batch 0 true",
    "chrt --idle 0 true",
    "ulimit -c 0",
    "sync /tmp/moved",
    "touch /tmp/moved",
    "cat /proc/sys/kernel/random/uuid",
    "getconf ARG_MAX",
    "setpriv --inh-caps=-all true",
];

#[tokio::test]
async fn ordinary_programs_work() {
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "ordinary programs") else { return };
    let script: String = COMMANDS
        .iter()
        .map(|command| format!("({command}) >/dev/null 2>/tmp/error || {{ echo 'failed: {command}'; cat /tmp/error; }}\n"))
        .collect();
    let (finished, said) = run(&backend, shell(&script)).await;
    assert_eq!(said, "", "{finished:?}");
    let outputs = "echo out > /dev/stdout; echo error > /dev/stderr; echo tee | tee /dev/stderr";
    let (_, said) = run(&backend, shell(outputs)).await;
    for line in ["out\n", "error\n", "tee\n"] {
        assert!(said.contains(line), "{said:?}");
    }
}

/// The host that makes the sandbox is this test, with unusual settings.
#[tokio::test]
async fn habits_of_the_host_are_not_inherited() {
    let settings = Settings::default().rootless();
    if std::env::var_os("ODD_HABITS").is_none() {
        if unprivileged::inside().is_none() {
            let me = std::env::current_exe().expect("a path");
            let script = "umask 077; ulimit -S -f 100; ulimit -S -s 1024; exec setarch -R \"$@\"";
            let mut host = std::process::Command::new("/bin/bash");
            host.args(["-c", script, "sh"]).arg(me).env("ODD_HABITS", "1");
            host.args(["--exact", "habits_of_the_host_are_not_inherited", "--nocapture"]);
            let done = host.output().expect("started");
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(done.status.success() && said.contains("1 passed"), "{said}");
        }
        return;
    }
    let Some(backend) = common::backend_with(&settings, "habits of the host") else { return };
    let script = "umask; cat /proc/self/personality; ulimit -f; ulimit -s; ulimit -i; cat /proc/self/oom_score_adj; \
                  grep core /proc/self/limits | tr -s ' '";
    let (_, said) = run(&backend, shell(script)).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["0022", "00000000"], "{said}");
    assert_eq!(lines[2..4], ["unlimited", "8192"], "{said}");
    assert!(said.contains("Max core file size 1 1 bytes"), "{said}");
}

#[test]
fn without_root() {
    if unprivileged::inside().is_none() && std::env::var_os("ODD_HABITS").is_none() {
        unprivileged::run("ordinary_programs_work", With::Nothing);
    }
}

/// Resources that the kernel counts by user are not used up by one sandbox of that user.
#[tokio::test]
async fn quotas_of_a_user_are_left_to_others() {
    let Some(_) = unprivileged::inside() else {
        unprivileged::run("quotas_of_a_user_are_left_to_others", With::Nothing);
        return;
    };
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "quotas of a user") else { return };
    let script = "import ctypes, time\nlibc = ctypes.CDLL('libc.so.6')\nmade = 0\n\
                  while libc.inotify_init() >= 0: made += 1\nprint(made, flush=True)";
    let mut spec = shell("");
    spec.command = ["/usr/bin/python3", "-c", script].map(Into::into).into();
    if !std::path::Path::new("/usr/bin/python3").exists() {
        test_support::left_out("quotas of a user", "there is no /usr/bin/python3");
        return;
    }
    let (_, said) = run(&backend, spec).await;
    assert_eq!(said, "8\n");
}
