//! The trait of devices, and the view of the queues that a device gets for one call.

mod balloon;
mod disk;
#[expect(unsafe_code, reason = "getrandom writes to a buffer")]
mod entropy;
mod network;
pub(crate) mod vsock;

use std::any::Any;
use std::fmt;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

pub(crate) use self::balloon::Balloon;
pub(crate) use self::disk::DiskDevice;
pub(crate) use self::entropy::{Entropy, from_kernel};
pub(crate) use self::network::NetworkDevice;
pub(crate) use self::vsock::{Offer, Vsock};
use crate::memory::Memory;

/// A device of the guest. All methods but `config`, `features`, `kind`, `queue_sizes` and
/// `activate` are called by the thread of the devices alone.
pub(crate) trait Device: Any + Send + fmt::Debug {
    /// The device type of the virtio specification (section 5).
    fn kind(&self) -> u32;

    /// The offered features, without those of the transport.
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue. Each is a power of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// The configuration space. It never changes.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// The driver has accepted these features and is ready.
    fn activate(&mut self, _features: u64) {}

    /// The driver has put buffers into a queue.
    fn notify(&mut self, queue: usize, rings: &mut Rings<'_>);

    /// A host descriptor of the device is ready.
    fn ready(&mut self, _token: u32, _rings: &mut Rings<'_>) {}

    /// The machine was restored from a snapshot. What the device had open on the host is gone.
    fn resume(&mut self, _rings: &mut Rings<'_>) {}

    /// The driver has reset the device.
    fn reset(&mut self) {}
}

/// A chain of descriptors that the driver has made available.
pub(crate) type Chain<'a> = DescriptorChain<&'a Memory>;

/// The queues of a device during one call. A call serves a bounded number of chains, so that one
/// device cannot keep the thread from the others.
#[derive(Debug)]
pub(crate) struct Rings<'a> {
    queues: &'a mut [Queue],
    memory: &'a Memory,
    budget: u32,
    /// The driver must be interrupted.
    pub(crate) is_used: bool,
    /// The driver broke the rules of a queue: the device stops until the driver resets it.
    pub(crate) is_broken: bool,
    /// The budget is used up.
    pub(crate) is_left: bool,
}

impl<'a> Rings<'a> {
    pub(crate) fn new(queues: &'a mut [Queue], memory: &'a Memory) -> Self {
        let (is_used, is_broken, is_left) = (false, false, false);
        Self { queues, memory, budget: CHAINS_MAX, is_used, is_broken, is_left }
    }

    pub(crate) fn memory(&self) -> &'a Memory {
        self.memory
    }

    /// Takes the next chain of a queue. Returns `None` if there is none, the budget is used up, or
    /// the queue is broken.
    pub(crate) fn next(&mut self, queue: usize) -> Option<Chain<'a>> {
        if self.is_broken {
            return None;
        }
        let queue = self.queues.get_mut(queue).filter(|queue| queue.ready())?;
        if self.budget == 0 {
            self.is_left = true;
            return None;
        }
        let Ok(mut chains) = queue.iter(self.memory) else {
            self.is_broken = true;
            return None;
        };
        let chain = chains.next()?;
        self.budget -= 1;
        Some(chain)
    }

    /// Makes the chain that [`Self::next`] returned last the next one again.
    pub(crate) fn put_back(&mut self, queue: usize) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.go_to_previous_position();
            self.budget += 1;
        }
    }

    /// Returns a chain to the driver, with the number of bytes written to it.
    pub(crate) fn give(&mut self, queue: usize, head: u16, written: u32) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        match queue.add_used(self.memory, head, written) {
            Ok(()) => self.is_used = true,
            Err(_) => self.is_broken = true,
        }
    }
}

/// The largest number of chains that one call serves.
pub(crate) const CHAINS_MAX: u32 = 256;
/// The size of queues.
const QUEUE_SIZE: u16 = 128;
