//! A driver for tests and fuzzing: sets up the queues of a device in a memory of its own, well or
//! badly.
#![expect(clippy::unwrap_used, reason = "a fault of a test ends it")]

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model;
pub(crate) mod steps;
#[cfg(fuzzing)]
pub(crate) mod streams;

use std::fs::File;

use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::Device;
use crate::memory::{Mapping, Memory, Ram};
use crate::mmio::{Transport, Written};

/// A device with its driver.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) transport: Transport,
    pub(crate) memory: Memory,
    pub(crate) interrupt: EventFd,
    /// The next free descriptor and position of each queue.
    next: Vec<(u16, u16)>,
    taken: Vec<u16>,
}

/// A buffer of a chain: address, length, and whether the device writes to it.
pub(crate) type Part = (u64, u32, bool);

pub(crate) const MEMORY_BYTES: u64 = 2 << 20;
/// Size of the queues that the driver asks for.
pub(crate) const SIZE: u16 = 16;
/// Where buffers may lie.
pub(crate) const BUFFERS: u64 = 0x10_0000;
/// Where the rings of queue 0 lie; those of the others follow.
pub(crate) const RINGS: u64 = 0x1000;
const RING_BYTES: u64 = 0x1000;

impl Driver {
    pub(crate) fn new(device: Box<dyn Device>) -> Self {
        let ram =
            Ram::map(memory_file(MEMORY_BYTES).into(), MEMORY_BYTES, Mapping::Shared).unwrap();
        let memory = ram.memory().clone();
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let wire = interrupt.try_clone().unwrap();
        let transport = Transport::new(device, memory.clone(), wire).unwrap();
        Self { transport, memory, interrupt, next: Vec::new(), taken: Vec::new() }
    }

    pub(crate) fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, register: u64, value: u32) -> Written {
        self.transport.write(register, &value.to_le_bytes())
    }

    /// Follows the protocol of section 3.1.1 up to DRIVER_OK.
    pub(crate) fn set_up(&mut self) {
        self.write(0x70, 0);
        self.transport.settle();
        self.write(0x70, 1);
        self.write(0x70, 3);
        for select in 0..2 {
            self.write(0x14, select);
            let offered = self.read(0x10);
            self.write(0x24, select);
            self.write(0x20, offered);
        }
        self.write(0x70, 11);
        assert_eq!(self.read(0x70), 11, "features are accepted");
        let count = self.transport.queue_count();
        for queue in 0..count {
            self.write(0x30, u32::from(queue));
            let (table, avail, used) = rings(usize::from(queue));
            self.memory.write_slice(&[0; 0x1000], GuestAddress(table)).unwrap();
            self.write(0x38, u32::from(SIZE));
            for (register, address) in [(0x80, table), (0x90, avail), (0xa0, used)] {
                self.write(register, u32::try_from(address).unwrap());
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(0x70, 15);
        self.next = vec![(0, 0); usize::from(count)];
        self.taken = vec![0; usize::from(count)];
    }

    /// Makes a chain available. The number of chains in use must stay below the queue's size.
    pub(crate) fn add(&mut self, queue: usize, parts: &[Part]) {
        let (table, avail, _) = rings(queue);
        let (mut at, position) = self.next[queue];
        let head = at;
        for (index, (address, length, is_written)) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let mut flags = if *is_written { VRING_DESC_F_WRITE } else { 0 };
            flags |= if is_last { 0 } else { VRING_DESC_F_NEXT };
            let next = (at + 1) % SIZE;
            let place = GuestAddress(table + u64::from(at) * 16);
            self.memory.write_obj(*address, place).unwrap();
            let rest = u64::from(*length) | u64::from(flags) << 32 | u64::from(next) << 48;
            self.memory.write_obj(rest, GuestAddress(place.0 + 8)).unwrap();
            at = next;
        }
        let place = avail + 4 + u64::from(position % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        let position = position.wrapping_add(1);
        self.memory.write_obj(position, GuestAddress(avail + 2)).unwrap();
        self.next[queue] = (at, position);
    }

    /// Returns the length that the device wrote to the next chain that it gave back.
    pub(crate) fn take(&mut self, queue: usize) -> Option<u32> {
        let (_, _, used) = rings(queue);
        let position: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
        let taken = self.taken[queue];
        if position == taken {
            return None;
        }
        self.taken[queue] = taken.wrapping_add(1);
        let place = used + 4 + u64::from(taken % SIZE) * 8;
        Some(self.memory.read_obj(GuestAddress(place + 4)).unwrap())
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// Returns the addresses of a queue's descriptors, available and used ring.
fn rings(queue: usize) -> (u64, u64, u64) {
    let start = RINGS + queue as u64 * RING_BYTES;
    (start, start + 0x400, start + 0x800)
}

/// Makes a file in memory.
pub(crate) fn memory_file(bytes: u64) -> File {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let file = File::from(nix::sys::memfd::memfd_create(c"test", flags).unwrap());
    file.set_len(bytes).unwrap();
    file
}
