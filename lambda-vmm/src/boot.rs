//! What a kernel finds in memory at its start: itself, PVH's start info (Xen's HVM boot ABI), the
//! command line and an MP table (Intel's MultiProcessor Specification 1.4). There is no firmware.

use std::fs::File;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::{Memory, ranges};
use crate::{Config, Error};

/// Loads the kernel and all that it needs. Returns the address of its entry point.
///
/// # Errors
///
/// [`Error::Invalid`] if the file is no ELF kernel with a PVH note, or does not fit in the memory.
pub(crate) fn load(
    memory: &Memory,
    kernel: &mut File,
    config: &Config,
    command_line: &str,
) -> Result<u64, Error> {
    let refused = |why: String| Error::invalid("the kernel", why);
    let loaded = Elf::load(memory, None, kernel, Some(GuestAddress(HIGH_MEMORY)));
    let loaded = loaded.map_err(|error| refused(error.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(refused("it has no PVH note".to_owned()));
    };
    let unwritable = |error: vm_memory::GuestMemoryError| {
        Error::invalid("the guest's memory", error.to_string())
    };
    let mut line = command_line.as_bytes().to_vec();
    line.push(0);
    if line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(Error::invalid("the command line", "it is too long with the devices added"));
    }
    memory.write_slice(&line, GuestAddress(COMMAND_LINE)).map_err(unwritable)?;
    let mut entries = 0;
    for entry in memory_map(config.memory_bytes) {
        let address = GuestAddress(MEMORY_MAP + u64::from(entries) * MEMORY_MAP_ENTRY_BYTES);
        memory.write_obj(entry, address).map_err(unwritable)?;
        entries += 1;
    }
    let info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        cmdline_paddr: COMMAND_LINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: entries,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(START_INFO)).map_err(unwritable)?;
    memory.write_slice(&mp_table(config.vcpus), GuestAddress(MP_TABLE)).map_err(unwritable)?;
    Ok(entry.0)
}

/// Returns the usable memory: all but the area of the MP table and the former video memory.
fn memory_map(memory_bytes: u64) -> Vec<hvm_memmap_table_entry> {
    let entry = |addr, size| hvm_memmap_table_entry { addr, size, type_: 1, reserved: 0 };
    let mut map = vec![entry(0, MP_TABLE)];
    for range in ranges(memory_bytes) {
        let start = range.start.max(HIGH_MEMORY);
        map.push(entry(start, range.start + range.length - start));
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
const MEMORY_MAP_ENTRY_BYTES: u64 = 24;
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
        let parts: Vec<_> = memory_map(4 << 30).iter().map(|it| (it.addr, it.size)).collect();
        let below = (HIGH_MEMORY, (3 << 30) - HIGH_MEMORY);
        assert_eq!(parts, [(0, MP_TABLE), below, (4 << 30, 1 << 30)]);
        let parts: Vec<_> = memory_map(2 << 20).iter().map(|it| (it.addr, it.size)).collect();
        assert_eq!(parts, [(0, MP_TABLE), (HIGH_MEMORY, 1 << 20)]);
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused() {
        use crate::memory::{Mapping, Ram};
        let memory = || tempfile::tempfile().unwrap();
        let config = Config::new(4 << 20);
        for content in [&b""[..], b"MZ", &[0x7f; 4096], b"\x7fELF\x02\x01\x01"] {
            let file = memory();
            file.set_len(4 << 20).unwrap();
            let ram = Ram::map(file.into(), 4 << 20, Mapping::Shared).unwrap();
            let mut kernel = memory();
            std::io::Write::write_all(&mut kernel, content).unwrap();
            let error = load(ram.memory(), &mut kernel, &config, "").unwrap_err();
            assert!(error.to_string().starts_with("the kernel is refused"), "{error}");
        }
    }
}
