//! Guests with a Linux kernel. They need a KVM that runs kernels: `cargo xtask vm` provides one in
//! QEMU, with a kernel (`VM_KERNEL`) and a root image whose first process is the example `init`
//! (`VM_ROOT`).
#![expect(clippy::unwrap_used, reason = "tests")]

mod machine;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lambda_vmm::{Cause, Config, Disk, Event, Network, Packets, Resources, Source, memory_file};
use machine::{Machine, TIME, kvm, prepare, start};

/// A guest whose first process has said hello.
struct Guest {
    machine: Machine,
    stream: BufReader<UnixStream>,
    hello: String,
}

/// What the tests need, or `None` if the machine lacks it and `test` is left out.
struct Bed {
    kvm: File,
    kernel: File,
    root: File,
}

impl Bed {
    fn find(test: &str) -> Option<Self> {
        let open = |variable: &str| {
            let path = std::env::var_os(variable);
            let Some(path) = path else {
                test_support::left_out(test, &format!("{variable} is not set: cargo xtask vm"));
                return None;
            };
            Some(File::open(path).unwrap())
        };
        let (kernel, root) = (open("VM_KERNEL")?, open("VM_ROOT")?);
        Some(Self { kvm: kvm(test)?, kernel, root })
    }

    fn boot(&self, config: &Config) -> Guest {
        let memory = memory_file(config).unwrap();
        let kernel = Source::Kernel(self.kernel.as_fd());
        let disks = [self.root.as_fd()];
        Guest::of(start(&self.kvm, config, memory.as_fd(), kernel, &disks).unwrap())
    }

    fn restore(&self, config: &Config, state: &File, memory: &File) -> Guest {
        let state = Source::Snapshot(state.as_fd());
        let disks = [self.root.as_fd()];
        Guest::of(start(&self.kvm, config, memory.as_fd(), state, &disks).unwrap())
    }
}

impl Guest {
    fn of(mut machine: Machine) -> Self {
        let stream = match machine.vm.event(TIME) {
            Ok(Event::Stream { port: 1, stream }) => stream,
            other => panic!("{other:?}: {:?}", machine.vm.report(TIME)),
        };
        stream.set_read_timeout(Some(TIME)).unwrap();
        let mut guest = Self { machine, stream: BufReader::new(stream), hello: String::new() };
        guest.hello = guest.line();
        guest
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.stream.get_mut(), "{command}").unwrap();
        self.line()
    }

    /// Wakes a restored guest, as an agent would, and returns its first random bytes.
    fn wake(&mut self) -> String {
        let mut seed = [0; 32];
        File::open("/dev/urandom").unwrap().read_exact(&mut seed).unwrap();
        let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("wake {seed} {}", now().as_nanos()))
    }

    fn echo(&mut self, bytes: &[u8]) {
        writeln!(self.stream.get_mut(), "echo {}", bytes.len()).unwrap();
        let mut writer = self.stream.get_ref().try_clone().unwrap();
        let mut back = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(bytes).unwrap());
            self.stream.read_exact(&mut back).unwrap();
        });
        assert!(back == bytes, "the echo differs");
    }
}

fn config() -> Config {
    let mut config = Config::new(128 << 20);
    config.disks = vec![Disk::ReadOnly];
    config
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn a_kernel_boots_to_its_first_process() {
    let Some(bed) = Bed::find("a_kernel_boots_to_its_first_process") else { return };
    let began = Instant::now();
    let mut guest = bed.boot(&config());
    let cold = ms(began);
    assert!(guest.hello.starts_with("hello "), "{}", guest.hello);
    let report = guest.machine.vm.report(TIME).unwrap();
    println!("measured: exits to the first process = {} of {report:?}", report.exits());
    println!("measured: cold start = {cold:.2} ms");
    let began = Instant::now();
    assert_eq!(guest.ask("ping"), "pong");
    println!("measured: first ping = {:.2} ms", ms(began));
    let began = Instant::now();
    assert_eq!(guest.ask("ping"), "pong");
    println!("measured: ping = {:.2} ms", ms(began));
    let bytes: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    let began = Instant::now();
    guest.echo(&bytes);
    println!("measured: echo of 1 MiB = {:.2} ms", ms(began));
    resident("a new machine", guest.machine.process.0.id());
    writeln!(guest.stream.get_mut(), "exit").unwrap();
    match guest.machine.vm.event(TIME).unwrap() {
        Event::Ended { cause, .. } => assert_eq!(cause, Cause::Shutdown),
        other => panic!("{other:?}"),
    }
    assert!(guest.machine.process.0.wait().unwrap().success());
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn fewer_devices_make_fewer_exits() {
    let Some(bed) = Bed::find("fewer_devices_make_fewer_exits") else { return };
    let mut config = config();
    config.entropy = false;
    let with_balloon = bed.boot(&config).machine.vm.report(TIME).unwrap().exits();
    config.free_page_reporting = false;
    let with_disk = bed.boot(&config).machine.vm.report(TIME).unwrap().exits();
    println!("measured: exits without an entropy device = {with_balloon}");
    println!("measured: exits with vsock and disk alone = {with_disk}");
    assert!(with_disk < with_balloon);
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn clones_of_a_snapshot_differ_and_leave_their_files_alone() {
    let name = "clones_of_a_snapshot_differ_and_leave_their_files_alone";
    let Some(bed) = Bed::find(name) else { return };
    let config = config();
    let mut guest = bed.boot(&config);
    guest.ask("ping");
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let refused = guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap_err();
    assert!(refused.to_string().contains("not paused"), "{refused}");
    let began = Instant::now();
    guest.machine.vm.pause(TIME).unwrap();
    println!("measured: pause = {:.2} ms", ms(began));
    let began = Instant::now();
    let saved = guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
    let length = state.metadata().unwrap().len();
    println!("measured: snapshot = {:.2} ms for {saved} bytes, state {length}", ms(began));
    // The machine goes on after it was saved.
    guest.machine.vm.resume(TIME).unwrap();
    assert_eq!(guest.ask("ping"), "pong");
    drop(guest);

    let mut seen = Vec::new();
    for clone in 0..clones() {
        // Prepared ahead, as by a pool.
        let (prepared, process) = prepare(&bed.kvm).unwrap();
        let began = Instant::now();
        let disks = [bed.root.as_fd()];
        let resources = Resources {
            memory: memory.as_fd(),
            boot: Source::Snapshot(state.as_fd()),
            disks: &disks,
            network: None,
        };
        let vm = prepared.start(&config, &resources, TIME).unwrap();
        let mut guest = Guest::of(Machine { vm, process });
        let restored = ms(began);
        assert!(guest.hello.starts_with("again "), "{}", guest.hello);
        let awake = guest.wake();
        if clone == 1 {
            println!("measured: restore of a prepared machine = {restored:.2} ms");
            println!("measured: the same until it is awake = {:.2} ms", ms(began));
        }
        let began = Instant::now();
        assert_eq!(guest.ask("sleep 10"), "slept");
        println!("measured: a clone sleeps 10 ms in {:.2} ms", ms(began));
        // A clone whose clock stands still until its counter has caught up sleeps longer than its
        // original had run.
        assert!(ms(began) < 100.0, "{:.2} ms", ms(began));
        let random = awake.strip_prefix("awake ").unwrap().to_owned();
        assert_eq!(random.len(), 128, "{random:?}");
        let time = guest.ask("time");
        let real: u128 = time.split(' ').nth(1).unwrap().parse().unwrap();
        let late = now().as_nanos().abs_diff(real);
        assert!(late < 50_000_000, "{late} ns");
        seen.push(random);
        if clone == 1 {
            resident("a clone", guest.machine.process.0.id());
        }
        guest.echo(&[5; 100_000]);
        assert_eq!(guest.ask("read /data"), format!("4000000 {:08x}", crc32fast::hash(&data())));
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    assert_eq!(state.metadata().unwrap().len(), length);
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn a_clone_can_be_saved_again() {
    let Some(bed) = Bed::find("a_clone_can_be_saved_again") else { return };
    let config = config();
    let mut guest = bed.boot(&config);
    let mut sums = Vec::new();
    for _ in 0..3 {
        sums.push(guest.ask("read /data"));
        let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        guest.machine.vm.pause(TIME).unwrap();
        guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
        guest = bed.restore(&config, &state, &memory);
        guest.wake();
    }
    assert_eq!(sums, vec![format!("4000000 {:08x}", crc32fast::hash(&data())); 3]);
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn broken_snapshots_are_refused_by_name() {
    let Some(bed) = Bed::find("broken_snapshots_are_refused_by_name") else { return };
    let config = config();
    let mut guest = bed.boot(&config);
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    guest.machine.vm.pause(TIME).unwrap();
    guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
    drop(guest);
    let attempt = |config: &Config, state: &File, memory: &File| {
        let source = Source::Snapshot(state.as_fd());
        let disks = [bed.root.as_fd()];
        start(&bed.kvm, config, memory.as_fd(), source, &disks).unwrap_err().to_string()
    };
    let copy = |change: fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut &state).unwrap();
        (&state).read_to_end(&mut bytes).unwrap();
        change(&mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    };
    let cut = copy(|bytes| bytes.truncate(5000));
    assert!(attempt(&config, &cut, &memory).contains("it ends early"));
    let flipped = copy(|bytes| bytes[5000] ^= 1);
    assert!(attempt(&config, &flipped, &memory).contains("checksum"));
    let newer = copy(|bytes| bytes[8] = 9);
    assert!(attempt(&config, &newer, &memory).contains("version 9"));
    let mut larger = config.clone();
    larger.memory_bytes += 4096;
    memory.set_len(larger.memory_bytes).unwrap();
    assert!(attempt(&larger, &state, &memory).contains("another configuration"));
    memory.set_len(4096).unwrap();
    assert!(attempt(&config, &state, &memory).contains("4096 of 134217728 bytes"));
    memory.set_len(config.memory_bytes).unwrap();
    let small = tempfile::tempfile().unwrap();
    small.set_len(4096).unwrap();
    let source = Source::Snapshot(state.as_fd());
    let error = start(&bed.kvm, &config, memory.as_fd(), source, &[small.as_fd()]).unwrap_err();
    assert!(error.to_string().contains("a disk's size"), "{error}");
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn a_writable_disk_keeps_what_the_guest_writes() {
    let Some(bed) = Bed::find("a_writable_disk_keeps_what_the_guest_writes") else { return };
    let mut config = config();
    config.disks.push(Disk::Writable);
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(4 << 20).unwrap();
    let memory = memory_file(&config).unwrap();
    let kernel = Source::Kernel(bed.kernel.as_fd());
    let disks = [bed.root.as_fd(), disk.as_fd()];
    let mut guest = Guest::of(start(&bed.kvm, &config, memory.as_fd(), kernel, &disks).unwrap());
    let bytes: Vec<u8> = (0..=250).cycle().take(2 << 20).collect();
    let written = guest.ask("write /dev/vdb 2");
    assert_eq!(written, format!("Ok(\"{:08x}\")", crc32fast::hash(&bytes)));
    let mut kept = vec![0; 2 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&disk, &mut kept, 0).unwrap();
    assert!(kept == bytes);
    // The root is read-only, whatever the guest tries.
    assert!(guest.ask("write /dev/vda 1").starts_with("Err("));
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn several_processors_run() {
    let Some(bed) = Bed::find("several_processors_run") else { return };
    let mut config = config();
    config.vcpus = 2;
    let began = Instant::now();
    let mut guest = bed.boot(&config);
    println!("measured: cold start with two processors = {:.2} ms", ms(began));
    assert_eq!(guest.ask("processors"), "2");
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    guest.machine.vm.pause(TIME).unwrap();
    guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
    let mut clone = bed.restore(&config, &state, &memory);
    clone.wake();
    assert_eq!(clone.ask("processors"), "2");
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn the_host_connects_to_ports_of_the_guest() {
    let Some(bed) = Bed::find("the_host_connects_to_ports_of_the_guest") else { return };
    let mut guest = bed.boot(&config());
    guest.ask("ping");
    let mut streams: Vec<UnixStream> =
        (0..8).map(|_| guest.machine.vm.connect(7, TIME).unwrap()).collect();
    for (stream, byte) in streams.iter_mut().zip(0..) {
        stream.write_all(&[byte; 5000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    for (stream, byte) in streams.iter_mut().zip(0..) {
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, [byte; 5000]);
    }
    // Nobody listens here: the stream ends.
    let mut none = guest.machine.vm.connect(8, TIME).unwrap();
    assert_eq!(none.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn free_pages_go_back_to_the_host() {
    let Some(bed) = Bed::find("free_pages_go_back_to_the_host") else { return };
    let mut guest = bed.boot(&config());
    let before = guest_pages(guest.machine.process.0.id());
    assert_eq!(guest.ask("fill 48"), "filled 12288");
    let filled = guest_pages(guest.machine.process.0.id());
    let began = Instant::now();
    // The guest reports free pages after two seconds.
    let after = loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = guest_pages(guest.machine.process.0.id());
        if now < before + 8192 || began.elapsed() > Duration::from_secs(20) {
            break now;
        }
    };
    println!(
        "measured: guest memory {before} KiB, {filled} after filling, {after} after reporting"
    );
    assert!(filled >= before + 40_000 && after < before + 8192);
}

#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn a_guest_that_spins_is_paused_and_ended() {
    let Some(bed) = Bed::find("a_guest_that_spins_is_paused_and_ended") else { return };
    let mut guest = bed.boot(&config());
    writeln!(guest.stream.get_mut(), "spin").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    guest.machine.vm.pause(TIME).unwrap();
    guest.machine.vm.resume(TIME).unwrap();
    let mut process = guest.machine.process;
    drop(guest.machine.vm);
    // The process ends when its control socket is closed.
    assert!(!process.0.wait().unwrap().success());
}

/// Idle machines with a kernel: clones of one snapshot, which all live at once.
#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn idle_clones_take_little() {
    let Some(bed) = Bed::find("idle_clones_take_little") else { return };
    let config = config();
    let mut guest = bed.boot(&config);
    guest.ask("ping");
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    guest.machine.vm.pause(TIME).unwrap();
    guest.machine.vm.snapshot(&config, &state, &memory, TIME).unwrap();
    drop(guest);
    let mut guests: Vec<Guest> =
        (0..clones()).map(|_| bed.restore(&config, &state, &memory)).collect();
    for guest in &mut guests {
        assert!(guest.wake().starts_with("awake "));
    }
    // Timers of the start are over.
    std::thread::sleep(Duration::from_secs(3));
    let processes: Vec<u32> = guests.iter().map(|guest| guest.machine.process.0.id()).collect();
    let exits = |guests: &mut [Guest]| {
        guests.iter_mut().map(|it| it.machine.vm.report(TIME).unwrap().exits()).sum::<u64>()
    };
    let (before, exits_before) = (processor_time(&processes), exits(&mut guests));
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let (elapsed, spent) = (began.elapsed(), processor_time(&processes) - before);
    let exits = exits(&mut guests) - exits_before;
    let own: u64 = processes.iter().map(|process| private(*process)).sum();
    let descriptors =
        |process: &u32| std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    println!(
        "measured: {} idle clones: {spent:?} of a processor and {exits} exits in {elapsed:?}, \
         {} KiB of its own and {:?} descriptors each",
        guests.len(),
        own / guests.len() as u64,
        processes.iter().map(descriptors).max(),
    );
    for guest in &mut guests {
        assert_eq!(guest.ask("ping"), "pong");
    }
}

/// Returns what all threads of the processes took of a processor.
fn processor_time(processes: &[u32]) -> Duration {
    let mut sum = Duration::ZERO;
    for process in processes {
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
            let figures = std::fs::read_to_string(thread.path().join("schedstat")).unwrap();
            sum += Duration::from_nanos(figures.split(' ').next().unwrap().parse().unwrap());
        }
    }
    sum
}

/// Returns how many KiB of a process no other one shares.
fn private(process: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

/// The driver of a kernel asks for the host's address, and leaves checksums to the other end where
/// it may.
#[test]
#[ignore = "needs a kernel and emulated or real virtualization: cargo xtask vm runs it"]
fn a_kernel_exchanges_packets_with_its_host() {
    let Some(bed) = Bed::find("a_kernel_exchanges_packets_with_its_host") else { return };
    for (packets, header_bytes) in [(Packets::Ip, 0), (Packets::IpWithHeader, 10)] {
        let mut config = config();
        config.network = Some(Network::new([2, 0, 0, 0, 0, 9], packets));
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(TIME)).unwrap();
        let memory = memory_file(&config).unwrap();
        let disks = [bed.root.as_fd()];
        let (prepared, process) = prepare(&bed.kvm).unwrap();
        let resources = Resources {
            memory: memory.as_fd(),
            boot: Source::Kernel(bed.kernel.as_fd()),
            disks: &disks,
            network: Some(theirs.as_fd()),
        };
        let vm = prepared.start(&config, &resources, TIME).unwrap();
        let mut guest = Guest::of(Machine { vm, process });
        writeln!(guest.stream.get_mut(), "udp hello").unwrap();
        let mut frame = [0; 2000];
        let length = ours.recv(&mut frame).unwrap();
        let (header, packet) = frame[..length].split_at_mut(header_bytes);
        if let Some(header) = header.first_chunk::<10>() {
            assert_eq!(*header, [1, 0, 0, 0, 0, 0, 20, 0, 6, 0], "an unfinished checksum");
        }
        assert_eq!(
            (&packet[12..20], &packet[28..]),
            (&[10, 77, 0, 2, 10, 77, 0, 1][..], &b"hello"[..])
        );
        // Back to its sender, without a checksum of UDP.
        packet[12..20].rotate_left(4);
        packet[26..28].fill(0);
        packet[28..].copy_from_slice(b"world");
        header.fill(0);
        ours.send(&frame[..length]).unwrap();
        assert_eq!(guest.line(), "world", "{packets:?}");
    }
}

/// Prints what the process of a machine has resident: guest memory, files, and the rest.
#[expect(clippy::print_stdout, reason = "the bed reads what is measured")]
fn resident(what: &str, process: u32) {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let (mut guest, mut images, mut own) = (0, 0, 0);
    let mut kind = 2;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { continue };
        if first.contains('-') {
            kind = match () {
                () if line.contains("memfd:guest") || line.contains("/tmp/") => 0,
                () if line.contains("erofs") || line.contains("vmlinux") => 1,
                () => 2,
            };
        }
        if first == "Rss:" {
            let kib: u64 = second.unwrap().parse().unwrap();
            *[&mut guest, &mut images, &mut own][kind] += kib;
        }
    }
    println!("measured: guest memory of {what} = {guest} KiB, kernel and images {images} KiB");
    println!("measured: memory of the monitor of {what} = {own} KiB");
}

/// Returns how many KiB of a memory file are in memory.
fn guest_pages(process: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let (mut sum, mut is_guest) = (0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if first.contains('-') {
            is_guest = line.contains("memfd:guest");
        }
        if is_guest && first == "Rss:" {
            sum += second.parse::<u64>().unwrap();
        }
    }
    sum
}

/// The content of `/data` on the root image.
fn data() -> Vec<u8> {
    (0..=250).cycle().take(4_000_000).collect()
}

/// Returns how many clones are made of a snapshot.
fn clones() -> usize {
    std::env::var("VM_CLONE_COUNT").map_or(4, |count| count.parse().unwrap())
}
