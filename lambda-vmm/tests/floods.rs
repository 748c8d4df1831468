//! Machines that do nothing, and guests that keep their devices busy for ever: how much memory, how
//! many descriptors and how much of the host's processors they take.
//!
//! The guests are a few instructions long. Where `/dev/kvm` emulates, the figures are those of the
//! emulation.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "the figures are what is looked for")]
#![cfg(target_arch = "x86_64")]

mod machine;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lambda_vmm::Event;
use machine::{Machine, TIME, boot, kvm, tiny};

/// `cli; hlt; jmp` to the `hlt`: a processor that waits for ever.
const IDLE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// `mov dx, 0x3f8; again: out dx, al; jmp again`
const CONSOLE: [u8; 7] = [0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfd];

/// What the threads of a process took of a processor: those that run processors of the guest, and
/// the thread of the devices.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    vcpus: Duration,
    devices: Duration,
}

/// Reads it from the scheduler's figures.
fn taken(process: u32) -> Taken {
    let mut taken = Taken::default();
    for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap();
        let is_vcpu = name.starts_with("vcpu");
        let sum = if is_vcpu { &mut taken.vcpus } else { &mut taken.devices };
        *sum += of_thread(&thread.path());
    }
    taken
}

fn of_thread(folder: &Path) -> Duration {
    let figures = fs::read_to_string(folder.join("schedstat")).unwrap();
    Duration::from_nanos(figures.split(' ').next().unwrap().parse().unwrap())
}

fn of_this_thread() -> Duration {
    of_thread(Path::new("/proc/thread-self"))
}

fn kib(process: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[test]
fn a_hundred_idle_machines_take_no_processor() {
    const COUNT: usize = 100;
    let Some(kvm) = kvm("a_hundred_idle_machines_take_no_processor") else { return };
    let ours = descriptors(std::process::id());
    let began = Instant::now();
    let config = tiny();
    let machines: Vec<Machine> = (0..COUNT).map(|_| boot(&kvm, &config, &IDLE).unwrap()).collect();
    let made = began.elapsed();
    let ours = descriptors(std::process::id()) - ours;
    let processes = || machines.iter().map(|machine| machine.process.0.id());
    let all = || processes().map(taken).map(|it| it.vcpus + it.devices).sum::<Duration>();
    let sum = |name| processes().map(|it| kib(it, "smaps_rollup", name)).sum::<u64>() / 100;
    // The last ones have come to rest.
    std::thread::sleep(Duration::from_millis(500));
    let time = Duration::from_secs(if test_support::long() { 10 } else { 1 });
    let before = all();
    std::thread::sleep(time);
    let spent = all() - before;
    println!("measured: {COUNT} idle machines were made in {made:?}, in turn");
    println!("measured: an idle machine: {} KiB of its own", sum("Private_Dirty:"));
    println!("measured: an idle machine: {} KiB of a share of all", sum("Pss:"));
    let theirs = processes().map(descriptors).max().unwrap();
    println!("measured: an idle machine: {theirs} descriptors, {} of its host", ours / COUNT);
    println!("measured: {COUNT} idle machines: {spent:?} of a processor in {time:?}");
    assert_eq!(ours / COUNT, 1, "the host has the control socket alone");
    // An idle guest exits to nobody.
    for mut machine in machines {
        assert_eq!(machine.vm.report(TIME).unwrap().exits(), 0);
    }
}

/// A control group with a fifth of a processor, which is removed with it.
struct Fifth(PathBuf);

impl Fifth {
    /// Returns `None` on machines whose processor controller is not at the usual place.
    fn of(process: u32) -> Option<Self> {
        let version_1 = ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "20000");
        let version_2 = ("/sys/fs/cgroup", "cpu.max", "20000 100000");
        [version_1, version_2].into_iter().find_map(|(folder, file, quota)| {
            let path = Path::new(folder).join(format!("flood-{process}"));
            fs::create_dir(&path).ok()?;
            let group = Self(path);
            fs::write(group.0.join(file), quota).ok()?;
            fs::write(group.0.join("cgroup.procs"), process.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Fifth {
    fn drop(&mut self) {
        let deadline = Instant::now() + TIME;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lets a guest flood its machine for some time, while its host looks at it and takes its streams.
/// Returns what the machine and its host took of a processor, each second.
fn flood(kvm: &fs::File, name: &str, code: &[u8], is_limited: bool) -> Option<(f64, f64)> {
    let mut machine = boot(kvm, &tiny(), code).unwrap();
    let process = machine.process.0.id();
    let group = if is_limited { Some(Fifth::of(process)?) } else { None };
    let time = Duration::from_secs(if test_support::long() { 10 } else { 1 });
    let (began, before, host) = (Instant::now(), taken(process), of_this_thread());
    let (mut streams, mut reports) = (0_u64, 0_u64);
    while began.elapsed() < time {
        let report = machine.vm.report(TIME).unwrap();
        assert!(report.console.len() <= 16 << 10);
        reports += 1;
        while let Ok(Event::Stream { .. }) = machine.vm.event(Duration::ZERO) {
            streams += 1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = began.elapsed().as_secs_f64();
    let share = |before: Duration, after: Duration| (after - before).as_secs_f64() / seconds;
    let now = taken(process);
    let (vcpus, devices) = (share(before.vcpus, now.vcpus), share(before.devices, now.devices));
    let host = share(host, of_this_thread());
    let exits = machine.vm.report(TIME).unwrap().exits();
    let limit = if is_limited { "with a fifth of a processor" } else { "without a limit" };
    println!(
        "measured: flood of the {name} {limit}, each second: {vcpus:.2} s of its processor, \
         {devices:.2} s of its devices, {host:.4} s of its host; {exits} exits, {streams} streams \
         and {reports} reports in {seconds:.1} s"
    );
    assert!(kib(process, "status", "RssAnon:") < 8 << 10);
    assert!(descriptors(process) < 1100, "1,024 streams and the machine's own");
    // A group is removed once its processes are gone.
    drop(machine);
    drop(group);
    Some((vcpus + devices, host))
}

/// A flood takes what the control group of the machine's process has, and next to nothing of the
/// host's own process.
#[test]
fn floods_are_paid_by_the_machine_that_makes_them() {
    const NAME: &str = "floods_are_paid_by_the_machine_that_makes_them";
    let Some(kvm) = kvm(NAME) else { return };
    let (entropy, vsock) = (programs::flood_entropy(), programs::flood_vsock());
    for (name, code) in [("console", &CONSOLE[..]), ("queue", &entropy), ("vsock", &vsock)] {
        let (machine, _) = flood(&kvm, name, code, false).unwrap();
        assert!(machine > 0.0, "it does nothing");
        match flood(&kvm, name, code, true) {
            // Twice the limit: the first period is in the middle of one.
            Some((machine, _)) => assert!(machine < 0.4, "{name}: {machine} of a processor"),
            None => test_support::left_out(NAME, "no control group for processors at its place"),
        }
    }
}
