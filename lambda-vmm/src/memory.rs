//! Guest memory: a file of the host's, mapped at the addresses where the guest finds it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::unistd::{Whence, lseek};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};

use crate::{During, Error};

/// Guest memory as devices see it. A clone is another handle to the same memory.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// How the memory file is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The guest writes to the file.
    Shared,
    /// The guest's writes stay in this process, and untouched pages are shared with every other
    /// process that maps the file.
    Private,
}

/// The memory of one machine with the file behind it.
#[derive(Debug, Clone)]
pub(crate) struct Ram {
    memory: Memory,
    file: Arc<File>,
    mapping: Mapping,
    bytes: u64,
    /// Parts that are mapped privately from another file: address and length.
    overlays: Vec<(u64, u64)>,
}

impl Ram {
    /// Maps `bytes` bytes of `file`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the file is shorter: an access past its end would end this process.
    pub(crate) fn map(file: OwnedFd, bytes: u64, mapping: Mapping) -> Result<Self, Error> {
        let file = Arc::new(File::from(file));
        let length = file.metadata().during("read the memory file's length")?.len();
        if length < bytes {
            return Err(Error::invalid("the memory file", format!("{length} of {bytes} bytes")));
        }
        let mode = match mapping {
            Mapping::Shared => libc::MAP_SHARED,
            Mapping::Private => libc::MAP_PRIVATE,
        };
        let map = |range: Range| {
            let size = usize::try_from(range.length).map_err(io::Error::other)?;
            let file = FileOffset::from_arc(Arc::clone(&file), range.offset);
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let region = MmapRegion::build(Some(file), size, rights, libc::MAP_NORESERVE | mode);
            let region = region.map_err(io::Error::other)?;
            GuestRegionMmap::new(region, GuestAddress(range.start))
                .ok_or_else(|| io::Error::other("the address range overflows"))
        };
        let regions = ranges(bytes).map(map).collect::<Result<_, _>>();
        let memory = regions.and_then(|all| Memory::from_regions(all).map_err(io::Error::other));
        let memory = memory.during("map the guest's memory")?;
        Ok(Self { memory, file, mapping, bytes, overlays: Vec::new() })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the length of the memory below the devices.
    pub(crate) fn low_bytes(&self) -> u64 {
        self.bytes.min(LOW_BYTES_MAX)
    }

    /// Maps whole pages of another file over the memory, privately: the guest finds the file's
    /// content, and its writes stay in this process. The file must not be truncated later.
    pub(crate) fn overlay(
        &mut self,
        file: &File,
        offset: u64,
        address: u64,
        length: u64,
    ) -> Result<(), Error> {
        let failed = |why: &str| Error::invalid("the kernel", why);
        let size = file.metadata().during("read the kernel's length")?.len();
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(failed("it ends early"));
        }
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let start = i64::try_from(offset).map_err(|_| failed("it is too long"))?;
        let slice = self.memory.get_slice(GuestAddress(address), bytes);
        let slice = slice.map_err(|_| failed("a segment lies outside of the memory"))?;
        let place = slice.ptr_guard_mut().as_ptr();
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: `get_slice` succeeded, so the range lies in one mapping of guest memory, which
        // belongs to this value. The new mapping takes its place there and is unmapped with it: it
        // has the same rights, and Rust code holds no references into guest memory.
        let mapped =
            unsafe { libc::mmap(place.cast(), bytes, rights, flags, file.as_raw_fd(), start) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).during("map the kernel");
        }
        self.overlays.push((address, length));
        Ok(())
    }

    /// Writes every page that is not zero to `out`, which must be empty and as long as the memory.
    /// Returns the number of bytes written. The processors must stand still.
    pub(crate) fn save(&self, out: &File) -> Result<u64, Error> {
        let mut written = 0;
        for range in ranges(self.bytes) {
            let mut at = 0;
            while at < range.length {
                // A shared file knows which of its pages were ever touched.
                let (from, until) = match self.mapping {
                    Mapping::Shared => match self.touched(range.offset + at) {
                        Some((from, until)) => {
                            (from.saturating_sub(range.offset), until.saturating_sub(range.offset))
                        }
                        None => break,
                    },
                    Mapping::Private => (at, range.length),
                };
                at = until.min(range.length);
                if from < at {
                    written += self.save_part(range, from, at, out)?;
                }
            }
        }
        for (address, length) in &self.overlays {
            // Overlays lie in the first part, whose addresses are the offsets in the file.
            let first = Range { start: 0, length: self.low_bytes(), offset: 0 };
            written += self.save_part(first, *address, address + length, out)?;
        }
        Ok(written)
    }

    /// Writes the pages of a part that are not zero. `from` and `until` count from its start.
    fn save_part(&self, range: Range, from: u64, until: u64, out: &File) -> Result<u64, Error> {
        let (mut at, mut written) = (from, 0);
        let mut piece = vec![0; PIECE_BYTES];
        while at < until {
            let left = usize::try_from(until - at).unwrap_or(PIECE_BYTES);
            let part = &mut piece[..left.min(PIECE_BYTES)];
            let read = self.memory.read_slice(part, GuestAddress(range.start + at));
            read.map_err(|error| Error::invalid("the guest's memory", error.to_string()))?;
            for (index, page) in part.chunks(PAGE_BYTES).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    let offset = range.offset + at + (index * PAGE_BYTES) as u64;
                    out.write_all_at(page, offset).during("write the memory file")?;
                    written += page.len() as u64;
                }
            }
            at += part.len() as u64;
        }
        Ok(written)
    }

    /// Returns the next range of the file, from `offset` on, that has pages.
    fn touched(&self, offset: u64) -> Option<(u64, u64)> {
        let at = i64::try_from(offset).ok()?;
        let from = lseek(&*self.file, at, Whence::SeekData).ok()?;
        let until = lseek(&*self.file, from, Whence::SeekHole).ok()?;
        Some((u64::try_from(from).ok()?, u64::try_from(until).ok()?))
    }
}

/// Gives whole pages of guest memory back to the host. The guest does not use them, and finds
/// zeros or older data of its own in them later. Other ranges are left alone.
pub(crate) fn discard(memory: &Memory, mapping: Mapping, address: GuestAddress, length: usize) {
    if !address.0.is_multiple_of(PAGE_BYTES as u64) || !length.is_multiple_of(PAGE_BYTES) {
        return;
    }
    let Ok(slice) = memory.get_slice(address, length) else { return };
    let place = slice.ptr_guard_mut();
    let advices: &[i32] = match mapping {
        // The first frees the pages of the file, too. It fails for a range with pages of the
        // kernel, which are mapped privately.
        Mapping::Shared => &[libc::MADV_REMOVE, libc::MADV_DONTNEED],
        Mapping::Private => &[libc::MADV_DONTNEED],
    };
    let _is_done = advices.iter().any(|advice| {
        // SAFETY: `get_slice` succeeded, so the range lies in one mapping of guest memory, which
        // `memory` keeps mapped. Rust code holds no references into guest memory, only volatile
        // slices, so that no reference sees its data change.
        unsafe { libc::madvise(place.as_ptr().cast(), length, *advice) == 0 }
    });
}

/// A part of guest memory: where the guest finds it, and where it lies in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) offset: u64,
}

/// Returns the parts of a memory of `bytes` bytes: up to 3 GiB below the devices, the rest from
/// 4 GiB.
pub(crate) fn ranges(bytes: u64) -> impl Iterator<Item = Range> {
    let low = bytes.min(LOW_BYTES_MAX);
    let high = bytes - low;
    let high = (high > 0).then_some(Range { start: 4 << 30, length: high, offset: low });
    std::iter::once(Range { start: 0, length: low, offset: 0 }).chain(high)
}

const LOW_BYTES_MAX: u64 = 3 << 30;
pub(crate) const PAGE_BYTES: usize = 4096;
const PIECE_BYTES: usize = 64 * 1024;
