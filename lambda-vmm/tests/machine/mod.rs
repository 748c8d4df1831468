//! Starts machines in processes of their own, and makes kernels of a few instructions.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lambda_vmm::{Config, Error, Prepared, Resources, Source, Vm, memory_file};

/// More than any step takes on a busy machine. In the bed of `cargo xtask vm` a second is a
/// thousand million instructions, which take the host most of a minute if a guest spins.
pub const TIME: Duration =
    Duration::from_secs(if option_env!("VM_BED").is_some() { 5 } else { 60 });

/// A machine with its process, which is ended with it.
#[derive(Debug)]
pub struct Machine {
    pub vm: Vm,
    pub process: Process,
}

/// The process of a machine.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Opens `/dev/kvm`, or records that `test` is left out.
pub fn kvm(test: &str) -> Option<File> {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            test_support::left_out(test, &format!("/dev/kvm: {error}"));
            None
        }
    }
}

/// Starts a machine.
pub fn start(
    kvm: &File,
    config: &Config,
    memory: BorrowedFd<'_>,
    boot: Source<'_>,
    disks: &[BorrowedFd<'_>],
) -> Result<Machine, Error> {
    let (prepared, process) = prepare(kvm)?;
    let resources = Resources { memory, boot, disks, network: None };
    let vm = prepared.start(config, &resources, TIME)?;
    Ok(Machine { vm, process })
}

/// Makes an empty machine, as a pool does ahead.
pub fn prepare(kvm: &File) -> Result<(Prepared, Process), Error> {
    let (ours, theirs) = Vm::control_sockets()?;
    let child = Command::new(program()).stdin(Stdio::from(theirs)).spawn();
    let process = Process(child.unwrap());
    Ok((Vm::prepare(ours, kvm.as_fd(), TIME)?, process))
}

/// Boots a kernel of these instructions.
pub fn boot(kvm: &File, config: &Config, code: &[u8]) -> Result<Machine, Error> {
    let memory = memory_file(config).unwrap();
    let kernel = kernel(code);
    start(kvm, config, memory.as_fd(), Source::Kernel(kernel.as_fd()), &[])
}

/// Returns a configuration for a kernel of a few instructions.
pub fn tiny() -> Config {
    let mut config = Config::new(4 << 20);
    config.console = true;
    config.free_page_reporting = false;
    config
}

/// Makes an ELF file with 32-bit instructions at 2 MiB, where PVH enters it.
pub fn kernel(code: &[u8]) -> File {
    const ENTRY: u32 = 2 << 20;
    const HEADERS: u64 = 64 + 2 * 56;
    let mut note = Vec::new();
    for word in [4_u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(ENTRY.to_le_bytes());
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // An executable for x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend(u64::from(ENTRY).to_le_bytes());
    // Program headers follow this header; there are no sections.
    elf.extend(64_u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let (load, notes) = (1_u32, 4_u32);
    let note_length = note.len() as u64;
    for (kind, offset, address, length) in [
        (notes, HEADERS, 0, note_length),
        (load, HEADERS + note_length, u64::from(ENTRY), code.len() as u64),
    ] {
        elf.extend(kind.to_le_bytes());
        elf.extend(7_u32.to_le_bytes());
        for word in [offset, address, address, length, length, 4] {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.extend(note);
    elf.extend(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&elf).unwrap();
    file
}

/// Returns the program of machines: `LAMBDA_VMM` where the tests run on another machine than the
/// one that built them.
pub fn program() -> std::ffi::OsString {
    std::env::var_os("LAMBDA_VMM").unwrap_or_else(|| env!("CARGO_BIN_EXE_lambda-vmm").into())
}
