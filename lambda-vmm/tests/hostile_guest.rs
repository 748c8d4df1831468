//! A guest that is nothing but a hostile driver: it sets devices up by the rules, and then writes
//! random descriptors, indices and registers for ever. The machine's process must go on answering,
//! within its bounds.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "it says what was done")]
#![expect(unsafe_code, reason = "the guest's program lies between two symbols of this one")]
#![cfg(target_arch = "x86_64")]

mod machine;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lambda_vmm::{Config, Disk, Event, Source, memory_file};
use machine::{Machine, TIME, kernel, kvm, start, tiny};

// Registers: edi has the device's address, esi the generator's state, ebp the rounds that are left.
// Rings are at 1 MiB, one page a queue; buffers are below 1.5 MiB, or anywhere.
core::arch::global_asm!(
    r"
    .pushsection .rodata
    .code32
    .global hostile_guest_start
    .global hostile_guest_end
hostile_guest_start:
    mov esi, 1
    mov esp, 0x1f0000
1:  // A device, of 8 places.
    call 9f
    mov edi, esi
    and edi, 0x7000
    add edi, 0xd0000000
    // By the rules: all features that are offered, and four queues of 16.
    mov dword ptr [edi + 0x70], 0
    mov dword ptr [edi + 0x70], 1
    mov dword ptr [edi + 0x70], 3
    mov dword ptr [edi + 0x14], 0
    mov eax, [edi + 0x10]
    mov dword ptr [edi + 0x24], 0
    mov [edi + 0x20], eax
    mov dword ptr [edi + 0x24], 1
    mov dword ptr [edi + 0x20], 1
    mov dword ptr [edi + 0x70], 11
    xor ecx, ecx
2:  mov [edi + 0x30], ecx
    mov dword ptr [edi + 0x38], 16
    mov eax, ecx
    shl eax, 12
    add eax, 0x100000
    mov [edi + 0x80], eax
    mov dword ptr [edi + 0x84], 0
    add eax, 0x400
    mov [edi + 0x90], eax
    mov dword ptr [edi + 0x94], 0
    add eax, 0x400
    mov [edi + 0xa0], eax
    mov dword ptr [edi + 0xa4], 0
    mov dword ptr [edi + 0x44], 1
    inc ecx
    cmp ecx, 4
    jb 2b
    mov dword ptr [edi + 0x70], 15
    mov ebp, 16
3:  // Random descriptors of one queue.
    call 9f
    mov ebx, esi
    and ebx, 0x3000
    add ebx, 0x100000
    mov ecx, 16
4:  call 9f
    mov eax, esi
    and eax, 0x7ffff
    add eax, 0x100000
    mov [ebx], eax
    mov dword ptr [ebx + 4], 0
    call 9f
    mov eax, esi
    shr eax, 28
    jnz 5f
    mov [ebx], esi
    mov [ebx + 4], esi
5:  call 9f
    mov eax, esi
    and eax, 0x3fff
    mov [ebx + 8], eax
    call 9f
    mov eax, esi
    shr eax, 28
    jnz 6f
    mov [ebx + 8], esi
6:  call 9f
    mov eax, esi
    and eax, 0x001f0007
    mov [ebx + 12], eax
    add ebx, 16
    dec ecx
    jnz 4b
    // Random available chains, and an index.
    add ebx, 0x300
    mov ecx, 9
7:  call 9f
    mov eax, esi
    and eax, 0x001f001f
    mov [ebx + ecx * 4], eax
    dec ecx
    jnz 7b
    call 9f
    mov eax, esi
    and eax, 0x001f0000
    mov [ebx], eax
    call 9f
    mov eax, esi
    and eax, 3
    mov [edi + 0x50], eax
    // One time in four, a random register.
    call 9f
    test esi, 3
    jnz 8f
    mov eax, esi
    and eax, 0x1fc
    call 9f
    mov [edi + eax], esi
8:  dec ebp
    jnz 3b
    jmp 1b
9:  // The next random number (xorshift).
    push eax
    mov eax, esi
    shl eax, 13
    xor esi, eax
    mov eax, esi
    shr eax, 17
    xor esi, eax
    mov eax, esi
    shl eax, 5
    xor esi, eax
    pop eax
    ret
hostile_guest_end:
    .code64
    .popsection
"
);

unsafe extern "C" {
    static hostile_guest_start: u8;
    static hostile_guest_end: u8;
}

/// Returns the guest's program with a seed.
fn program(seed: u32) -> Vec<u8> {
    let (start, end) = (&raw const hostile_guest_start, &raw const hostile_guest_end);
    // SAFETY: both symbols belong to the bytes that are assembled above, the second behind the
    // first.
    let length = unsafe { end.offset_from_unsigned(start) };
    // SAFETY: the bytes between the symbols are read-only data of this program.
    let mut code = unsafe { std::slice::from_raw_parts(start, length) }.to_vec();
    assert_eq!(code[..5], [0xbe, 1, 0, 0, 0], "mov esi, 1");
    code[1..5].copy_from_slice(&seed.max(1).to_le_bytes());
    code
}

fn config() -> Config {
    let mut config = tiny();
    config.free_page_reporting = true;
    config.disks = vec![Disk::ReadOnly, Disk::Writable, Disk::Slot];
    config
}

/// Runs a hostile guest for some time. Returns how many exits it made, and whether it still ran.
fn attack(kvm: &std::fs::File, seed: u32, time: Duration) -> (u64, bool) {
    let config = config();
    let memory = memory_file(&config).unwrap();
    let (image, scratch) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    for file in [&image, &scratch] {
        file.set_len(1 << 20).unwrap();
    }
    let kernel = kernel(&program(seed));
    let (boot, disks) = (Source::Kernel(kernel.as_fd()), [image.as_fd(), scratch.as_fd()]);
    let started = start(kvm, &config, memory.as_fd(), boot, &disks);
    let Machine { mut vm, process } = started.unwrap();
    let began = Instant::now();
    let mut exits = 0;
    while began.elapsed() < time {
        // A process that has died answers `Closed`. A guest that has ended itself says so.
        match vm.report(TIME) {
            Ok(report) => exits = report.exits(),
            Err(_) => match vm.event(TIME).unwrap() {
                Event::Ended { cause, report } => {
                    println!("seed {seed}: {cause:?}");
                    return (report.exits(), false);
                }
                Event::Stream { .. } => {}
                other => panic!("{other:?}"),
            },
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It can still be controlled.
    vm.pause(TIME).unwrap();
    let (state, saved) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    vm.snapshot(&config, &state, &saved, TIME).unwrap();
    vm.resume(TIME).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(kib("RssAnon:") < 16 << 10, "{status}");
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.0.id())).unwrap().count();
    assert!(files < 1100, "{files} descriptors");
    assert_eq!(image.metadata().unwrap().len(), 1 << 20);
    assert_eq!(scratch.metadata().unwrap().len(), 1 << 20);
    (exits, true)
}

#[test]
fn a_hostile_driver_neither_ends_nor_grows_its_machine() {
    let Some(kvm) = kvm("a_hostile_driver_neither_ends_nor_grows_its_machine") else { return };
    let (seeds, time) = if test_support::long() {
        (64_u8, Duration::from_secs(5))
    } else {
        (6, Duration::from_millis(400))
    };
    let (mut all, mut living) = (0, 0);
    for seed in 1..=u32::from(seeds) {
        let (exits, lives) = attack(&kvm, seed.wrapping_mul(0x9e37_79b9), time);
        all += exits;
        living += u32::from(lives);
    }
    println!("{all} exits of {seeds} guests, of which {living} still ran");
    assert!(all > 1000, "{all} exits: the guests did nothing");
    assert!(living * 2 > u32::from(seeds), "{living} of {seeds} still ran");
}
