//! Bad input and sudden ends: an error that names the step, and a process that is gone.
#![expect(clippy::unwrap_used, reason = "tests")]

mod machine;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lambda_vmm::{Config, Error, Resources, Source, Vm, memory_file};
use nix::sys::signal::{Signal, kill};

use machine::{Machine, TIME, boot, kernel, kvm, prepare, start, tiny};

/// `jmp` to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];

/// Starts a machine that must be refused. Returns the reason, after the process has ended.
fn refused(kvm: &File, config: &Config, memory: &File, kernel: &File) -> String {
    let (prepared, mut process) = prepare(kvm).unwrap();
    let (memory, boot) = (memory.as_fd(), Source::Kernel(kernel.as_fd()));
    let resources = Resources { memory, boot, disks: &[], network: None };
    let error = prepared.start(config, &resources, TIME).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(!process.0.wait().unwrap().success());
    error.to_string()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn kernels_that_are_none_are_refused_by_name() {
    let Some(kvm) = kvm("kernels_that_are_none_are_refused_by_name") else { return };
    let config = tiny();
    let memory = memory_file(&config).unwrap();
    let check = |kernel: &File, why: &str| {
        let error = refused(&kvm, &config, &memory, kernel);
        assert!(error.contains("the kernel is refused") && error.contains(why), "{error}");
    };
    check(&file(b""), "ends early");
    check(&file(&[b'x'; 5000]), "no ELF file");
    check(&File::open(std::env::current_exe().unwrap()).unwrap(), "no PVH note");
    let cut = kernel(&[0x90; 5000]);
    cut.set_len(1000).unwrap();
    check(&cut, "ends early");
}

#[test]
fn a_kernel_outside_of_the_memory_is_refused() {
    let Some(kvm) = kvm("a_kernel_outside_of_the_memory_is_refused") else { return };
    let mut config = tiny();
    config.memory_bytes = 2 << 20;
    let memory = memory_file(&config).unwrap();
    let error = refused(&kvm, &config, &memory, &kernel(&SPIN));
    assert!(error.contains("a segment lies outside of the memory"), "{error}");
}

#[test]
fn memory_that_is_too_short_is_refused() {
    let Some(kvm) = kvm("memory_that_is_too_short_is_refused") else { return };
    let config = tiny();
    let error = refused(&kvm, &config, &file(&[0; 4096]), &kernel(&SPIN));
    assert!(error.contains("the memory file is refused: 4096 of 4194304 bytes"), "{error}");
}

#[test]
fn missing_descriptors_and_another_device_are_refused() {
    let Some(kvm) = kvm("missing_descriptors_and_another_device_are_refused") else { return };
    let mut config = tiny();
    config.disks = vec![lambda_vmm::Disk::ReadOnly];
    let memory = memory_file(&config).unwrap();
    let error = refused(&kvm, &config, &memory, &kernel(&SPIN));
    assert!(error.contains("the list of descriptors is refused: 2 instead of 3"), "{error}");
    let error = prepare(&File::open("/dev/null").unwrap()).unwrap_err().to_string();
    assert!(error.contains("the descriptor of /dev/kvm is refused"), "{error}");
}

#[test]
fn images_are_attached_to_slots_alone() {
    let Some(kvm) = kvm("images_are_attached_to_slots_alone") else { return };
    let mut config = tiny();
    config.disks = vec![lambda_vmm::Disk::ReadOnly, lambda_vmm::Disk::Slot];
    let memory = memory_file(&config).unwrap();
    let (kernel, image) = (kernel(&SPIN), file(&[1; 4096]));
    let boot = Source::Kernel(kernel.as_fd());
    let machine = start(&kvm, &config, memory.as_fd(), boot, &[image.as_fd()]);
    let mut vm = machine.unwrap();
    vm.vm.attach(1, Some(image.as_fd()), TIME).unwrap();
    vm.vm.attach(1, None, TIME).unwrap();
    for disk in [0, 2, 255] {
        let error = vm.vm.attach(disk, Some(image.as_fd()), TIME).unwrap_err().to_string();
        assert!(error.contains("there is no such slot"), "{error}");
    }
}

#[test]
fn a_configuration_out_of_its_limits_is_refused_before_it_is_sent() {
    let Some(kvm) = kvm("a_configuration_out_of_its_limits_is_refused_before_it_is_sent") else {
        return;
    };
    let mut config = tiny();
    config.vcpus = 0;
    let memory = memory_file(&config).unwrap();
    let kernel = kernel(&SPIN);
    let error = start(&kvm, &config, memory.as_fd(), Source::Kernel(kernel.as_fd()), &[]);
    assert!(matches!(error.unwrap_err(), Error::Invalid { .. }));
}

#[test]
fn a_prepared_and_a_running_process_end_with_their_control_socket() {
    let name = "a_prepared_and_a_running_process_end_with_their_control_socket";
    let Some(kvm) = kvm(name) else { return };
    let (prepared, mut process) = prepare(&kvm).unwrap();
    drop(prepared);
    assert!(!process.0.wait().unwrap().success());
    let Machine { vm, mut process } = boot(&kvm, &tiny(), &SPIN).unwrap();
    drop(vm);
    assert!(!process.0.wait().unwrap().success());
}

/// The host's end closes the control socket, however it ends.
#[test]
fn a_killed_host_takes_its_machine_along() {
    const NAME: &str = "a_killed_host_takes_its_machine_along";
    let Some(kvm) = kvm(NAME) else { return };
    if std::env::var_os("HOST").is_some() {
        let machine = boot(&kvm, &tiny(), &SPIN).unwrap();
        let file = std::env::var_os("HOST").unwrap();
        std::fs::write(file, machine.process.0.id().to_string()).unwrap();
        std::thread::sleep(TIME);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("HOST", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + TIME;
    let read = || std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty());
    while read().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let machine = std::path::Path::new("/proc").join(read().unwrap());
    let command = std::fs::read(machine.join("comm")).unwrap();
    assert_eq!(command, b"lambda-vmm\n");
    host.kill().unwrap();
    host.wait().unwrap();
    // It may remain as a zombie where nobody collects orphans.
    let runs = || {
        let stat = std::fs::read_to_string(machine.join("stat")).unwrap_or_default();
        stat.contains("(lambda-vmm)") && !stat.contains(") Z ")
    };
    while runs() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!runs(), "its machine runs on");
}

#[test]
fn a_killed_process_is_noticed() {
    let Some(kvm) = kvm("a_killed_process_is_noticed") else { return };
    let Machine { mut vm, mut process } = boot(&kvm, &tiny(), &SPIN).unwrap();
    process.0.kill().unwrap();
    assert!(matches!(vm.event(TIME).unwrap_err(), Error::Closed));
    assert!(matches!(vm.pause(TIME).unwrap_err(), Error::Closed));
}

#[test]
fn a_process_that_does_not_answer_is_given_up() {
    let (ours, theirs) = Vm::control_sockets().unwrap();
    let mut sleeper =
        std::process::Command::new("sleep").arg("60").stdin(Stdio::from(theirs)).spawn().unwrap();
    let null = File::open("/dev/null").unwrap();
    let error = Vm::prepare(ours, null.as_fd(), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error:?}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_late_reply_answers_no_later_request() {
    let Some(kvm) = kvm("a_late_reply_answers_no_later_request") else { return };
    let Machine { mut vm, process } = boot(&kvm, &tiny(), &SPIN).unwrap();
    let id = nix::unistd::Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    kill(id, Signal::SIGSTOP).unwrap();
    for late in [Vm::pause, Vm::resume] {
        let error = late(&mut vm, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::TimedOut), "{error:?}");
    }
    kill(id, Signal::SIGCONT).unwrap();
    // The replies to both requests arrive first.
    vm.report(TIME).unwrap();
    vm.pause(TIME).unwrap();
    vm.resume(TIME).unwrap();
}

#[test]
fn a_full_disk_is_named_and_the_machine_goes_on() {
    let Some(kvm) = kvm("a_full_disk_is_named_and_the_machine_goes_on") else { return };
    let config = tiny();
    let mut machine = boot(&kvm, &config, &SPIN).unwrap();
    machine.vm.pause(TIME).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let memory = tempfile::tempfile().unwrap();
    let error = machine.vm.snapshot(&config, &full, &memory, TIME).unwrap_err().to_string();
    assert!(error.contains("write the state file: No space left on device"), "{error}");
    machine.vm.resume(TIME).unwrap();
    machine.vm.pause(TIME).unwrap();
}

/// The state and memory files of a guest that spins.
fn saved(kvm: &File, config: &Config) -> (Vec<u8>, File) {
    let mut machine = boot(kvm, config, &SPIN).unwrap();
    machine.vm.pause(TIME).unwrap();
    let (mut state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    machine.vm.snapshot(config, &state, &memory, TIME).unwrap();
    let mut bytes = Vec::new();
    state.rewind().unwrap();
    state.read_to_end(&mut bytes).unwrap();
    (bytes, memory)
}

/// Puts the right checksum at the end of a changed state.
fn sealed(mut state: Vec<u8>) -> Vec<u8> {
    let end = state.len() - 4;
    let sum = crc32fast::hash(&state[..end]);
    state[end..].copy_from_slice(&sum.to_le_bytes());
    state
}

#[test]
fn broken_snapshots_are_refused_by_name_and_leave_no_process() {
    let name = "broken_snapshots_are_refused_by_name_and_leave_no_process";
    let Some(kvm) = kvm(name) else { return };
    let config = tiny();
    let (state, memory) = saved(&kvm, &config);
    let check = |state: &[u8], memory: &File, why: &str| {
        let (prepared, mut process) = prepare(&kvm).unwrap();
        let state = file(state);
        let (memory, boot) = (memory.as_fd(), Source::Snapshot(state.as_fd()));
        let resources = Resources { memory, boot, disks: &[], network: None };
        let error = prepared.start(&config, &resources, TIME).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!process.0.wait().unwrap().success());
    };
    check(b"", &memory, "the snapshot is refused");
    check(&[b'x'; 5000], &memory, "it is no state file");
    check(&state[..state.len() - 1], &memory, "it ends early");
    let mut changed = state.clone();
    changed[100] ^= 1;
    check(&changed, &memory, "its checksum is wrong");
    let mut newer = state.clone();
    newer[8] += 1;
    check(&sealed(newer), &memory, "it has version 4, and this program reads 3");
    // The description of the processor follows the configuration: its length, and then its entries.
    // Memory, processors, address, command line, no disks, no network, three choices.
    let configuration = 8 + 1 + 4 + 4 + config.command_line.len() + 4 + 1 + 3;
    let processor = 8 + 4 + 4 + configuration + 4;
    let mut other = state.clone();
    other[processor + 1] ^= 1;
    check(&sealed(other), &memory, "it is of a machine with another processor or KVM");
    let short = memory.try_clone().unwrap();
    short.set_len(4096).unwrap();
    check(&state, &short, "4096 of 4194304 bytes");
}

/// A limit of the process stands for a machine without memory: the guest's cannot be mapped.
#[test]
fn a_machine_without_memory_is_refused_by_name() {
    let Some(kvm) = kvm("a_machine_without_memory_is_refused_by_name") else { return };
    let (ours, theirs) = Vm::control_sockets().unwrap();
    let mut limited = std::process::Command::new("sh");
    // The KiB of addresses that its program takes, and not those of the guest.
    limited.args(["-c", "ulimit -v 200000; exec \"$0\""]).arg(machine::program());
    let mut process = machine::Process(limited.stdin(Stdio::from(theirs)).spawn().unwrap());
    let prepared = Vm::prepare(ours, kvm.as_fd(), TIME).unwrap();
    let mut config = tiny();
    config.memory_bytes = 1 << 30;
    let (memory, kernel) = (memory_file(&config).unwrap(), kernel(&SPIN));
    let (memory, boot) = (memory.as_fd(), Source::Kernel(kernel.as_fd()));
    let resources = Resources { memory, boot, disks: &[], network: None };
    let error = prepared.start(&config, &resources, TIME).unwrap_err().to_string();
    assert!(error.contains("memory") && error.contains("Cannot allocate"), "{error}");
    assert!(!process.0.wait().unwrap().success());
}

/// A guest that counts on its console. An access to a port that was served but not completed when
/// the machine stopped must be neither lost nor repeated.
#[test]
fn a_clone_goes_on_where_its_original_stopped() {
    let Some(kvm) = kvm("a_clone_goes_on_where_its_original_stopped") else { return };
    let config = tiny();
    // mov dx, 0x3f8; again: out dx, al; inc al; jmp again
    let code = [0x66, 0xba, 0xf8, 0x03, 0xee, 0xfe, 0xc0, 0xeb, 0xfb];
    let mut machine = boot(&kvm, &config, &code).unwrap();
    let deadline = Instant::now() + TIME;
    while machine.vm.report(TIME).unwrap().console.is_empty() && Instant::now() < deadline {}
    for _ in 0..5 {
        machine.vm.pause(TIME).unwrap();
        let last = *machine.vm.report(TIME).unwrap().console.last().unwrap();
        let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
        let source = Source::Snapshot(state.as_fd());
        machine = start(&kvm, &config, memory.as_fd(), source, &[]).unwrap();
        let mut console = Vec::new();
        // The console keeps its last 16 KiB: look while the first byte is still there.
        while console.is_empty() && Instant::now() < deadline {
            console = machine.vm.report(TIME).unwrap().console;
        }
        let report = machine.vm.report(TIME).unwrap();
        if report.ports <= 16 * 1024 {
            console = report.console;
            assert_eq!(console[0], last.wrapping_add(1));
        }
        let steps = console.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count();
        assert_eq!(steps, 0, "{console:?}");
    }
}
