//! The entropy device (virtio 1.2, section 5.4): random bytes of the host's kernel.

use std::io::Write;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::{Device, QUEUE_SIZE, Rings};

/// Fills the driver's buffers with random bytes.
#[derive(Debug)]
pub(crate) struct Entropy {
    fill: fn(&mut [u8]) -> bool,
}

impl Entropy {
    /// `fill` fills a buffer with random bytes, and returns whether it did.
    pub(crate) fn new(fill: fn(&mut [u8]) -> bool) -> Self {
        Self { fill }
    }
}

impl Device for Entropy {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn notify(&mut self, _queue: usize, rings: &mut Rings<'_>) {
        let mut bytes = [0; BYTES_MAX];
        while let Some(chain) = rings.next(0) {
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer::<()>(rings.memory()) {
                let part = &mut bytes[..writer.available_bytes().min(BYTES_MAX)];
                if (self.fill)(part) && writer.write_all(part).is_ok() {
                    written = u32::try_from(part.len()).unwrap_or(0);
                }
            }
            rings.give(0, head, written);
        }
    }
}

/// Fills a buffer from the host's kernel.
pub(crate) fn from_kernel(bytes: &mut [u8]) -> bool {
    // SAFETY: the pointer and the length are those of one exclusive slice, which lives through the
    // call.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes are never interrupted.
    usize::try_from(got) == Ok(bytes.len())
}

/// The largest number of bytes for one buffer. A driver that wants more asks again.
const BYTES_MAX: usize = 256;
