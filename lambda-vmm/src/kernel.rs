//! Kernels as ELF files: where their segments go, and the entry point that the PVH note names.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::Error;
use crate::wire::Reader;

/// A kernel's parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The guest address at which PVH enters it.
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
}

/// A part of the file and its place in guest memory. What follows the file's bytes is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) file_bytes: u64,
    pub(crate) memory_bytes: u64,
}

/// Reads the headers of a kernel.
///
/// # Errors
///
/// [`Error::Invalid`] if the file is no ELF file for x86-64 or has no PVH note.
pub(crate) fn parse(file: &File) -> Result<Kernel, Error> {
    let refused = |why: &str| Error::invalid("the kernel", why);
    let part = |offset, length| {
        let mut bytes = vec![0; length];
        let read = file.read_exact_at(&mut bytes, offset);
        read.map(|()| bytes).map_err(|_| refused("it ends early"))
    };
    let header = part(0, HEADER_BYTES)?;
    let mut from = Reader::new(&header, "the kernel");
    if from.raw(7)? != b"\x7fELF\x02\x01\x01" {
        return Err(refused("it is no ELF file of 64 bits, little endian"));
    }
    from.raw(11)?;
    if from.u16()? != MACHINE_X86_64 {
        return Err(refused("it is not for x86-64"));
    }
    from.raw(12)?;
    let table = from.u64()?;
    from.raw(14)?;
    let (entry_bytes, count) = (from.u16()?, from.u16()?);
    if usize::from(entry_bytes) != ENTRY_BYTES || count > SEGMENTS_MAX {
        return Err(refused("its program headers have another size or are too many"));
    }
    let table = part(table, usize::from(count) * ENTRY_BYTES)?;
    let mut from = Reader::new(&table, "the kernel");
    let (mut segments, mut entry) = (Vec::new(), None);
    for _ in 0..count {
        let (kind, _flags) = (from.u32()?, from.u32()?);
        let (offset, _virtual_address, address) = (from.u64()?, from.u64()?, from.u64()?);
        let (file_bytes, memory_bytes, _align) = (from.u64()?, from.u64()?, from.u64()?);
        match kind {
            LOAD => {
                if file_bytes > memory_bytes {
                    return Err(refused("a segment is longer in the file than in memory"));
                }
                segments.push(Segment { address, offset, file_bytes, memory_bytes });
            }
            NOTE if entry.is_none() => {
                let length = usize::try_from(file_bytes).unwrap_or(usize::MAX);
                if length > NOTES_BYTES_MAX {
                    return Err(refused("its notes are too long"));
                }
                entry = pvh_entry(&part(offset, length)?);
            }
            _ => {}
        }
    }
    let entry = entry.ok_or_else(|| refused("it has no PVH note"))?;
    Ok(Kernel { entry, segments })
}

/// Finds the entry point in a list of notes.
fn pvh_entry(notes: &[u8]) -> Option<u64> {
    let mut from = Reader::new(notes, "the kernel");
    loop {
        let (name, description) = (from.u32().ok()?, from.u32().ok()?);
        let kind = from.u32().ok()?;
        // Name and description are padded to four bytes each.
        let mut padded = |length: u32| {
            let length = usize::try_from(length).ok()?;
            from.raw(length.checked_next_multiple_of(4)?).ok()?.get(..length)
        };
        let (name, description) = (padded(name)?, padded(description)?);
        if name == b"Xen\0" && kind == PVH_ENTRY {
            let (low, high) = (description.get(..4)?, description.get(4..8).unwrap_or(&[0; 4]));
            let bytes: [u8; 8] = [low, high].concat().try_into().ok()?;
            return Some(u64::from_le_bytes(bytes));
        }
    }
}

const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 56;
const MACHINE_X86_64: u16 = 62;
const SEGMENTS_MAX: u16 = 64;
const NOTES_BYTES_MAX: usize = 64 * 1024;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_ENTRY: u32 = 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [u32::try_from(name.len()).unwrap(), u32::try_from(description.len()).unwrap()]
        {
            note.extend(word.to_le_bytes());
        }
        note.extend(kind.to_le_bytes());
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_note_is_found_behind_others() {
        let mut notes = note(b"Linux\0", 1, &[1]);
        notes.extend(note(b"Xen\0", 19, &[1; 12]));
        assert_eq!(pvh_entry(&notes), None);
        notes.extend(note(b"Xen\0", PVH_ENTRY, &0x100_0000_u64.to_le_bytes()));
        assert_eq!(pvh_entry(&notes), Some(0x100_0000));
        let short = note(b"Xen\0", PVH_ENTRY, &[0, 0, 0x20, 0]);
        assert_eq!(pvh_entry(&short), Some(0x20_0000));
    }

    proptest! {
        #[test]
        fn any_notes_and_any_file_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _found = pvh_entry(&bytes);
            let file = tempfile::tempfile().unwrap();
            let mut content = b"\x7fELF\x02\x01\x01".to_vec();
            content.extend(&bytes);
            // For x86-64, with program headers behind the header.
            if content.len() > 64 {
                content[18..20].copy_from_slice(&[62, 0]);
                content[32..40].copy_from_slice(&64_u64.to_le_bytes());
                content[54..58].copy_from_slice(&[56, 0, 3, 0]);
            }
            file.write_all_at(&content, 0).unwrap();
            drop(parse(&file));
        }
    }
}
