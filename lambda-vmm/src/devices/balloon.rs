//! The balloon device (virtio 1.2, section 5.5), for free page reporting alone: the guest names
//! pages that it does not use, and they are given back to the host. It is never inflated.

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

use super::{Device, QUEUE_SIZE, Rings};
use crate::memory::{Mapping, discard};

/// Gives reported pages back.
#[derive(Debug)]
pub(crate) struct Balloon {
    mapping: Mapping,
}

impl Balloon {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self { mapping }
    }
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BALLOON_F_REPORTING
    }

    /// Inflate, deflate, reports. Drivers number the queues without gaps.
    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    /// The wanted size is always zero.
    fn config(&self) -> &[u8] {
        &[0; 8]
    }

    fn notify(&mut self, queue: usize, rings: &mut Rings<'_>) {
        while let Some(chain) = rings.next(queue) {
            let head = chain.head_index();
            if queue == REPORTS {
                for part in chain.writable() {
                    discard(rings.memory(), self.mapping, part.addr(), part.len() as usize);
                }
            }
            rings.give(queue, head, 0);
        }
    }
}

const REPORTS: usize = 2;
/// The number of the feature "free page reporting".
const VIRTIO_BALLOON_F_REPORTING: u32 = 5;
