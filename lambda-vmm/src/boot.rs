//! What a kernel finds in memory at its start: itself, PVH's start info (Xen's HVM boot ABI), the
//! command line and an MP table (Intel's MultiProcessor Specification 1.4). There is no firmware.

use std::fs::File;
use std::os::unix::fs::FileExt;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use crate::kernel::{self, Segment};
use crate::memory::{PAGE_BYTES, Ram, ranges};
use crate::wire::Writer;
use crate::{Config, Error};

/// Loads the kernel and all that it needs. Returns the address of its entry point.
///
/// # Errors
///
/// [`Error::Invalid`] if the file is no ELF kernel with a PVH note, or does not fit in the memory.
pub(crate) fn load(
    ram: &mut Ram,
    kernel: &File,
    config: &Config,
    command_line: &str,
) -> Result<u64, Error> {
    let loaded = kernel::parse(kernel)?;
    for segment in &loaded.segments {
        load_segment(ram, kernel, segment)?;
    }
    let mut line = command_line.as_bytes().to_vec();
    line.push(0);
    if line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(Error::invalid("the command line", "it is too long with the devices added"));
    }
    let map = memory_map(config.memory_bytes);
    let mut entries = Writer::default();
    for (address, length) in &map {
        // Memory that is free for use.
        entries.u64(*address).u64(*length).u32(1).u32(0);
    }
    let mut info = Writer::default();
    info.u32(START_MAGIC).u32(1).u32(0).u32(0).u64(0).u64(COMMAND_LINE).u64(0);
    info.u64(MEMORY_MAP).u32(u32::try_from(map.len()).unwrap_or(0)).u32(0);
    let memory = ram.memory();
    for (bytes, address) in [
        (line, COMMAND_LINE),
        (entries.finish(), MEMORY_MAP),
        (info.finish(), START_INFO),
        (mp_table(config.vcpus), MP_TABLE),
    ] {
        let written = memory.write_slice(&bytes, GuestAddress(address));
        written.map_err(|error| Error::invalid("the guest's memory", error.to_string()))?;
    }
    Ok(loaded.entry)
}

/// Maps the whole pages of a segment from the file, which all machines share until the guest writes
/// to them, and copies the rest.
fn load_segment(ram: &mut Ram, kernel: &File, segment: &Segment) -> Result<(), Error> {
    let misplaced = || Error::invalid("the kernel", "a segment lies outside of the memory");
    let page = PAGE_BYTES as u64;
    let end = segment.address.checked_add(segment.memory_bytes).ok_or_else(misplaced)?;
    if segment.address < HIGH_MEMORY || end > ram.low_bytes() {
        return Err(misplaced());
    }
    let is_aligned = segment.address.is_multiple_of(page) && segment.offset.is_multiple_of(page);
    let mapped = if is_aligned { segment.file_bytes / page * page } else { 0 };
    if mapped > 0 {
        ram.overlay(kernel, segment.offset, segment.address, mapped)?;
    }
    let mut rest = vec![0; usize::try_from(segment.file_bytes - mapped).unwrap_or(usize::MAX)];
    kernel
        .read_exact_at(&mut rest, segment.offset + mapped)
        .map_err(|_| Error::invalid("the kernel", "it ends early"))?;
    let written = ram.memory().write_slice(&rest, GuestAddress(segment.address + mapped));
    written.map_err(|_| misplaced())
}

/// Returns the usable memory as addresses and lengths: all but the area of the MP table and the
/// former video memory.
fn memory_map(memory_bytes: u64) -> Vec<(u64, u64)> {
    let mut map = vec![(0, MP_TABLE)];
    for range in ranges(memory_bytes) {
        let start = range.start.max(HIGH_MEMORY);
        map.push((start, range.start + range.length - start));
    }
    map
}

/// Sets the registers with which PVH enters a kernel: 32-bit protected mode without paging.
pub(crate) fn registers(special: &mut kvm_sregs, entry: u64) -> kvm_regs {
    let segment = |kind, selector, db, s, limit| kvm_segment {
        base: 0,
        limit,
        selector,
        type_: kind,
        present: 1,
        db,
        s,
        g: db,
        ..Default::default()
    };
    let data = segment(0x3, 0x10, 1, 1, u32::MAX);
    special.cs = segment(0xb, 0x8, 1, 1, u32::MAX);
    special.ds = data;
    special.es = data;
    special.fs = data;
    special.gs = data;
    special.ss = data;
    special.tr = segment(0xb, 0x18, 0, 0, 0x67);
    // Protection enabled; the extension type bit is always set.
    special.cr0 = 0x11;
    special.cr4 = 0;
    special.efer = 0;
    kvm_regs { rip: entry, rbx: START_INFO, rflags: 2, ..Default::default() }
}

/// Makes the floating pointer and the table: processors, one ISA bus, and one I/O APIC whose pins
/// are the interrupts.
fn mp_table(vcpus: u8) -> Vec<u8> {
    const PROCESSOR: u8 = 0;
    const BUS: u8 = 1;
    const IO_APIC: u8 = 2;
    const IO_INTERRUPT: u8 = 3;
    const LOCAL_INTERRUPT: u8 = 4;
    let io_apic = vcpus;
    let mut entries = Vec::new();
    for id in 0..vcpus {
        // Enabled; the first one starts the others.
        let flags = if id == 0 { 3 } else { 1 };
        entries.extend([PROCESSOR, id, APIC_VERSION, flags, 0, 6, 0, 0]);
        entries.extend([1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    entries.extend([BUS, 0]);
    entries.extend(b"ISA   ");
    entries.extend([IO_APIC, io_apic, APIC_VERSION, 1]);
    entries.extend(IO_APIC_ADDRESS.to_le_bytes());
    for pin in 0..IO_APIC_PINS {
        entries.extend([IO_INTERRUPT, 0, 0, 0, 0, pin, io_apic, pin]);
    }
    // External interrupts to pin 0 of every local APIC, non-maskable ones to pin 1.
    entries.extend([LOCAL_INTERRUPT, 3, 0, 0, 0, 0, 0, 0]);
    entries.extend([LOCAL_INTERRUPT, 1, 0, 0, 0, 0, 0xff, 1]);
    let count = u16::from(vcpus) + 2 + u16::from(IO_APIC_PINS) + 2;

    let mut table = b"PCMP".to_vec();
    let length = u16::try_from(44 + entries.len()).unwrap_or(0);
    table.extend(length.to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"LAMBDA  VMM         ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(APIC_ADDRESS.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);

    let mut all = b"_MP_".to_vec();
    all.extend(u32::try_from(MP_TABLE + 16).unwrap_or(0).to_le_bytes());
    all.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    all[10] = checksum(&all);
    all.extend(table);
    all
}

/// Returns the byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

const START_MAGIC: u32 = 0x336e_c578;
const START_INFO: u64 = 0x6000;
const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The length that Linux reads on x86.
const COMMAND_LINE_BYTES_MAX: usize = 2048;
/// The last KiB of conventional memory, where kernels look for the table.
const MP_TABLE: u64 = 0x9_fc00;
const HIGH_MEMORY: u64 = 0x10_0000;
const APIC_ADDRESS: u32 = 0xfee0_0000;
const IO_APIC_ADDRESS: u32 = 0xfec0_0000;
const APIC_VERSION: u8 = 0x14;
/// The number of interrupt lines.
pub(crate) const IO_APIC_PINS: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_of_the_mp_table_sum_to_zero_and_say_their_lengths() {
        for vcpus in [1, 2, 32] {
            let all = mp_table(vcpus);
            assert!(all.len() <= 1024, "{}", all.len());
            let (pointer, table) = all.split_at(16);
            let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!((sum(pointer), sum(table)), (0, 0));
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            assert_eq!(u16::from_le_bytes([table[34], table[35]]), u16::from(vcpus) + 28);
        }
    }

    #[test]
    fn memory_beyond_three_gib_lies_above_the_devices() {
        let below = (HIGH_MEMORY, (3 << 30) - HIGH_MEMORY);
        assert_eq!(memory_map(4 << 30), [(0, MP_TABLE), below, (4 << 30, 1 << 30)]);
        assert_eq!(memory_map(2 << 20), [(0, MP_TABLE), (HIGH_MEMORY, 1 << 20)]);
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused() {
        use crate::memory::{Mapping, Ram};
        let memory = || tempfile::tempfile().unwrap();
        let config = Config::new(4 << 20);
        for content in [&b""[..], b"MZ", &[0x7f; 4096], b"\x7fELF\x02\x01\x01"] {
            let file = memory();
            file.set_len(4 << 20).unwrap();
            let mut ram = Ram::map(file.into(), 4 << 20, Mapping::Shared).unwrap();
            let mut kernel = memory();
            std::io::Write::write_all(&mut kernel, content).unwrap();
            let error = load(&mut ram, &kernel, &config, "").unwrap_err();
            assert!(error.to_string().starts_with("the kernel is refused"), "{error}");
        }
    }
}
