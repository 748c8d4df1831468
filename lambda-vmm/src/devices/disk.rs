//! The block device (virtio 1.2, section 5.2), over an image that many machines share, over a file of
//! one machine, or over images that come and go while the machine runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Reader, Writer};

use super::{Chain, Device, QUEUE_SIZE, Rings};
use crate::memory::Memory;
use crate::{During, Error};

/// A disk of the guest.
#[derive(Debug)]
pub(crate) struct DiskDevice {
    store: Store,
    bytes: u64,
    config: Vec<u8>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Store {
    /// A read-only image, which all machines read through the host's page cache.
    Image(File),
    /// A file of this machine.
    Scratch(File),
    /// A read-only image that can be exchanged. Beyond its end, and without one, sectors are zeros.
    Slot(Option<File>),
}

impl DiskDevice {
    /// A read-only disk.
    pub(crate) fn image(file: File) -> Result<Self, Error> {
        let bytes = length(&file)?;
        Ok(Self::new(Store::Image(file), bytes))
    }

    /// A disk of the file's present size, which the guest may write to.
    pub(crate) fn scratch(file: File) -> Result<Self, Error> {
        let bytes = length(&file)?;
        Ok(Self::new(Store::Scratch(file), bytes))
    }

    /// An empty slot. Its size is the same whatever is in it, so that a driver reads it once.
    pub(crate) fn slot() -> Self {
        Self::new(Store::Slot(None), SLOT_BYTES)
    }

    /// Puts an image into a slot, or empties it. Returns whether this is a slot.
    pub(crate) fn attach(&mut self, image: Option<File>) -> bool {
        let Store::Slot(slot) = &mut self.store else { return false };
        *slot = image;
        true
    }

    fn new(store: Store, bytes: u64) -> Self {
        let bytes = bytes / SECTOR_BYTES * SECTOR_BYTES;
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&(bytes / SECTOR_BYTES).to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS_MAX.to_le_bytes());
        // The best size of a request, by which the guest reads ahead: fewer requests at its start.
        config[28..32].copy_from_slice(&BEST_SECTORS.to_le_bytes());
        Self { store, bytes, config, buffer: vec![0; PIECE_BYTES] }
    }

    /// Answers a request. Returns how many bytes were written, or `None` if the chain is broken.
    fn answer(&mut self, chain: Chain<'_>, memory: &Memory) -> Option<usize> {
        let mut request = chain.clone().reader(memory).ok()?;
        let mut data = chain.writer(memory).ok()?;
        // The last byte is the status.
        let mut status = data.split_at(data.available_bytes().checked_sub(1)?).ok()?;
        let code = self.serve(&mut request, &mut data);
        status.write_all(&[u8::try_from(code).unwrap_or(u8::MAX)]).ok()?;
        Some(data.bytes_written() + 1)
    }

    /// Carries out one request and returns its status. `data` is the space for the answer.
    fn serve(&mut self, request: &mut Reader<'_, ()>, data: &mut Writer<'_, ()>) -> u32 {
        let mut header = [0; 16];
        if request.read_exact(&mut header).is_err() {
            return VIRTIO_BLK_S_IOERR;
        }
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let sector = u64::from_le_bytes(sector);
        let done = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, data),
            VIRTIO_BLK_T_OUT => self.write(sector, request),
            VIRTIO_BLK_T_FLUSH => match &self.store {
                Store::Scratch(file) => file.sync_data().ok(),
                Store::Image(_) | Store::Slot(_) => Some(()),
            },
            _ => return VIRTIO_BLK_S_UNSUPP,
        };
        if done.is_some() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR }
    }

    fn read(&mut self, sector: u64, data: &mut Writer<'_, ()>) -> Option<()> {
        let mut at = self.range(sector, data.available_bytes())?;
        while data.available_bytes() > 0 {
            let length = data.available_bytes().min(PIECE_BYTES);
            let piece = &mut self.buffer[..length];
            match &self.store {
                Store::Image(file) | Store::Scratch(file) => file.read_exact_at(piece, at).ok()?,
                Store::Slot(image) => read_or_zeros(image.as_ref(), piece, at).ok()?,
            }
            data.write_all(piece).ok()?;
            at += length as u64;
        }
        Some(())
    }

    fn write(&mut self, sector: u64, data: &mut Reader<'_, ()>) -> Option<()> {
        let Store::Scratch(file) = &self.store else { return None };
        let mut at = self.range(sector, data.available_bytes())?;
        while data.available_bytes() > 0 {
            let piece = &mut self.buffer[..data.available_bytes().min(PIECE_BYTES)];
            data.read_exact(piece).ok()?;
            file.write_all_at(piece, at).ok()?;
            at += piece.len() as u64;
        }
        Some(())
    }

    /// Returns the offset of a sector, if whole sectors from there on lie on the disk.
    fn range(&self, sector: u64, length: usize) -> Option<u64> {
        let (at, length) = (sector.checked_mul(SECTOR_BYTES)?, u64::try_from(length).ok()?);
        let is_inside = at.checked_add(length)? <= self.bytes;
        (is_inside && length % SECTOR_BYTES == 0 && length <= REQUEST_BYTES_MAX).then_some(at)
    }
}

impl Device for DiskDevice {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let of_store = match self.store {
            Store::Image(_) | Store::Slot(_) => VIRTIO_BLK_F_RO,
            Store::Scratch(_) => VIRTIO_BLK_F_FLUSH,
        };
        1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_TOPOLOGY | 1 << of_store
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn notify(&mut self, _queue: usize, rings: &mut Rings<'_>) {
        while let Some(chain) = rings.next(0) {
            let head = chain.head_index();
            let written = self.answer(chain, rings.memory());
            rings.give(0, head, written.and_then(|count| u32::try_from(count).ok()).unwrap_or(0));
        }
    }
}

/// Reads from an image. What lies beyond its end is zeros.
fn read_or_zeros(image: Option<&File>, piece: &mut [u8], mut at: u64) -> io::Result<()> {
    let mut left = &mut piece[..];
    while let Some(image) = image.filter(|_| !left.is_empty()) {
        match image.read_at(left, at) {
            Ok(0) => break,
            Ok(count) => {
                left = &mut left[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    left.fill(0);
    Ok(())
}

fn length(file: &File) -> Result<u64, Error> {
    Ok(file.metadata().during("read a disk's length")?.len())
}

const SECTOR_BYTES: u64 = 512;
const PIECE_BYTES: usize = 64 * 1024;
/// 1 TiB: more than any image.
const SLOT_BYTES: u64 = 1 << 40;
/// The largest number of bytes that one request reads or writes.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// The largest number of data buffers of a request: the queue's size without header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// 256 KiB.
const BEST_SECTORS: u32 = 512;
