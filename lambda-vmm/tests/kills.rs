//! Hosts and machines' processes that are killed with SIGKILL at any moment of a machine's life:
//! empty, booting, running, paused, saved, restored. Nothing may run on.
//!
//! The memory of a machine and the files of a snapshot have no names, so that they end with the
//! processes. The tests of `lambda-sandbox` look for jails and control groups.
#![expect(clippy::unwrap_used, reason = "tests")]

mod machine;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lambda_vmm::{Disk, Error, Source};
use machine::{TIME, boot, kvm, start, tiny};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `jmp` to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];
const VARIABLE: &str = "HOST_TO_KILL";

/// Lives the life of a machine again and again. An error is what a killed machine must give.
fn live(kvm: &File) -> Result<(), Error> {
    let mut config = tiny();
    config.disks = vec![Disk::Slot];
    loop {
        let mut machine = boot(kvm, &config, &SPIN)?;
        machine.vm.attach(0, Some(File::open("/proc/self/exe").unwrap().as_fd()), TIME)?;
        drop(machine.vm.connect(7, TIME)?);
        machine.vm.pause(TIME)?;
        let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        machine.vm.snapshot(&config, &state, &memory, TIME)?;
        machine.vm.resume(TIME)?;
        let source = Source::Snapshot(state.as_fd());
        let mut clone = start(kvm, &config, memory.as_fd(), source, &[])?;
        clone.vm.report(TIME)?;
    }
}

/// Starts this test as a host that lives in a process of its own.
fn host(name: &str, marker: &str) -> Child {
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", name]).env(VARIABLE, marker);
    host.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Returns the processes of machines that a host with this marker has started. Processes that have
/// ended and wait to be collected have no environment.
fn machines(marker: &str) -> Vec<i32> {
    let wanted = format!("{VARIABLE}={marker}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |number: &i32| {
        let read = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
        read("comm") == b"lambda-vmm\n"
            && read("environ").split(|byte| *byte == 0).any(|it| it == wanted.as_bytes())
    };
    numbers.filter(is_ours).collect()
}

fn all_end(marker: &str) -> bool {
    let deadline = Instant::now() + TIME;
    while !machines(marker).is_empty() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn rounds() -> u64 {
    let given = std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    given.unwrap_or_else(|| if test_support::long() { 500 } else { 10 })
}

/// A moment that differs from round to round, and is the same in each run.
fn moment(round: u64) -> Duration {
    Duration::from_micros((round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 90_000)
}

#[test]
fn a_host_that_is_killed_at_any_moment_leaves_no_machine() {
    const NAME: &str = "a_host_that_is_killed_at_any_moment_leaves_no_machine";
    let Some(kvm) = kvm(NAME) else { return };
    if std::env::var_os(VARIABLE).is_some() {
        panic!("{:?}", live(&kvm));
    }
    for round in 0..rounds() {
        let marker = format!("host-{}-{round}", std::process::id());
        let mut host = host(NAME, &marker);
        std::thread::sleep(moment(round));
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(all_end(&marker), "round {round}: a machine runs on");
    }
    println!("{} hosts were killed", rounds());
}

#[test]
fn a_machine_that_is_killed_at_any_moment_is_an_error_of_its_host() {
    const NAME: &str = "a_machine_that_is_killed_at_any_moment_is_an_error_of_its_host";
    let Some(kvm) = kvm(NAME) else { return };
    if std::env::var_os(VARIABLE).is_some() {
        let error = live(&kvm).unwrap_err();
        assert!(matches!(error, Error::Closed), "{error:?}");
        return;
    }
    let mut killed = 0;
    for round in 0..rounds() {
        let marker = format!("machine-{}-{round}", std::process::id());
        let mut host = host(NAME, &marker);
        let deadline = Instant::now() + TIME;
        std::thread::sleep(moment(round));
        let ended = loop {
            if let Some(ended) = host.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < deadline, "round {round}: its host does not notice");
            // Of the two that it may have, one. Its host may be ending it at the same time, and then
            // goes on: the next one is killed.
            if let Some(machine) = machines(&marker).pop() {
                let machine = Pid::from_raw(machine);
                killed += u64::from(kill(machine, Signal::SIGKILL).is_ok());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(ended.success(), "round {round}: {ended}");
        assert!(all_end(&marker), "round {round}: a machine runs on");
    }
    println!("{killed} machines were killed");
}
