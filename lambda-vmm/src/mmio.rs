//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2.2), as a state machine: registers,
//! the status protocol, and the queues of one device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY,
    VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;
use crate::devices::{Device, Rings};
use crate::memory::Memory;
use crate::wire::{Reader, Writer};

/// The interrupt line of a device.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    status: Arc<AtomicU32>,
    line: Arc<EventFd>,
}

impl Interrupt {
    pub(crate) fn new(line: Arc<EventFd>) -> Self {
        Self { status: Arc::default(), line }
    }

    fn raise(&self, reason: u32) {
        self.status.fetch_or(reason, Ordering::SeqCst);
        // The counter overflows after 2^64 - 2 writes that nobody reads.
        drop(self.line.write(1));
    }
}

/// What the writer of a register must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing.
    Done,
    /// Have the thread of the devices serve this queue.
    Notify(u16),
    /// Have the thread of the devices forget what the device knows.
    Reset,
}

/// One device with its registers and queues.
#[derive(Debug)]
pub(crate) struct Transport {
    device: Box<dyn Device>,
    queues: Vec<Queue>,
    memory: Memory,
    interrupt: Interrupt,
    status: u32,
    driver_features: u64,
    device_select: u32,
    driver_select: u32,
    queue_select: u32,
    reset_pending: bool,
}

impl Transport {
    pub(crate) fn new(
        device: Box<dyn Device>,
        memory: Memory,
        interrupt: Interrupt,
    ) -> Result<Self, Error> {
        let queue = |size: &u16| {
            Queue::new(*size).map_err(|error| Error::invalid("a queue's size", error.to_string()))
        };
        let queues = device.queue_sizes().iter().map(queue).collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            queues,
            memory,
            interrupt,
            status: 0,
            driver_features: 0,
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
            reset_pending: false,
        })
    }

    /// Reads a register, or the device's configuration from offset 0x100. Other sizes than four
    /// bytes, and unknown registers, read as zeros.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            let config = self.device.config();
            let part = usize::try_from(at).ok().and_then(|at| config.get(at..)).unwrap_or(&[]);
            data.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
            return;
        }
        let Ok(data) = <&mut [u8; 4]>::try_from(data) else { return };
        let queue = self.queues.get(self.queue_select as usize);
        let value = match u32::try_from(offset).unwrap_or(u32::MAX) {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_DEVICE_ID => self.device.kind(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.device_features(), self.device_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status.load(Ordering::SeqCst),
            VIRTIO_MMIO_STATUS => self.status,
            // The configuration of no device changes while it runs.
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        };
        *data = value.to_le_bytes();
    }

    /// Writes a register. Writes of other sizes than four bytes, to unknown registers, or against
    /// the order of the status protocol are ignored. The configuration is read-only.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Written {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return Written::Done };
        let value = u32::from_le_bytes(bytes);
        let negotiates = self.has(VIRTIO_CONFIG_S_DRIVER) && !self.has(VIRTIO_CONFIG_S_FEATURES_OK);
        match u32::try_from(offset).unwrap_or(u32::MAX) {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES if negotiates => {
                let shift = 32 * (self.driver_select & 1);
                if self.driver_select < 2 {
                    self.driver_features &= !(0xffff_ffff << shift);
                    self.driver_features |= u64::from(value) << shift;
                }
            }
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_select = value,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                let queue = u16::try_from(value).unwrap_or(u16::MAX);
                if usize::from(queue) < self.queues.len() && self.is_running() {
                    return Written::Notify(queue);
                }
            }
            VIRTIO_MMIO_INTERRUPT_ACK => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
            }
            VIRTIO_MMIO_STATUS => return self.set_status(value),
            register => self.set_queue(register, value),
        }
        Written::Done
    }

    /// Serves the queue that the driver has notified. Returns whether work is left because the
    /// budget of one call is used up.
    pub(crate) fn notify(&mut self, queue: u16) -> bool {
        self.serve(|device, rings| device.notify(usize::from(queue), rings))
    }

    /// Handles readiness of a host descriptor of the device. Returns whether work is left.
    pub(crate) fn ready(&mut self, token: u32) -> bool {
        self.serve(|device, rings| device.ready(token, rings))
    }

    /// Carries out a reset by the driver, if one is pending.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.reset_pending) {
            self.device.reset();
        }
    }

    /// Serves all queues once: notifications before a snapshot were lost.
    pub(crate) fn resume(&mut self) {
        self.serve(|device, rings| device.resume(rings));
        for queue in 0..self.queues.len() {
            self.serve(|device, rings| device.notify(queue, rings));
        }
    }

    pub(crate) fn device_mut(&mut self) -> &mut dyn Device {
        &mut *self.device
    }

    pub(crate) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    fn serve(&mut self, work: impl FnOnce(&mut dyn Device, &mut Rings<'_>)) -> bool {
        self.settle();
        if !self.is_running() {
            return false;
        }
        let mut rings = Rings::new(&mut self.queues, &self.memory);
        work(&mut *self.device, &mut rings);
        let done = rings.finish();
        if done.is_broken {
            self.fail();
        } else if done.is_used {
            self.interrupt.raise(USED);
        }
        done.is_left && !done.is_broken
    }

    fn has(&self, status: u32) -> bool {
        self.status & status != 0
    }

    fn is_running(&self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER_OK) && !self.has(VIRTIO_CONFIG_S_NEEDS_RESET)
    }

    fn device_features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    /// Stops the device until the driver resets it (section 2.1.1).
    fn fail(&mut self) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.interrupt.raise(CONFIG_CHANGED);
    }

    fn set_status(&mut self, value: u32) -> Written {
        if value == 0 {
            self.queues.iter_mut().for_each(QueueT::reset);
            self.driver_features = 0;
            self.queue_select = 0;
            self.status = 0;
            self.interrupt.status.store(0, Ordering::SeqCst);
            self.reset_pending = true;
            return Written::Reset;
        }
        // A driver only adds bits (section 2.1.2), and cannot set NEEDS_RESET.
        let mut added = value & !self.status & !VIRTIO_CONFIG_S_NEEDS_RESET;
        let wanted = self.driver_features;
        let accepts =
            wanted & !self.device_features() == 0 && wanted >> VIRTIO_F_VERSION_1 & 1 == 1;
        if !accepts {
            added &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if (self.status | added) & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            added &= !VIRTIO_CONFIG_S_DRIVER_OK;
        }
        self.status |= added;
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.device.activate(self.driver_features);
            let memory = &self.memory;
            if self.queues.iter().any(|queue| queue.ready() && !queue.is_valid(memory)) {
                self.fail();
            }
        }
        Written::Done
    }

    fn set_queue(&mut self, register: u32, value: u32) {
        if !self.has(VIRTIO_CONFIG_S_FEATURES_OK) || self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else { return };
        if register == VIRTIO_MMIO_QUEUE_READY {
            queue.set_ready(value == 1);
        }
        if queue.ready() {
            return;
        }
        // The setters ignore invalid sizes and misaligned addresses.
        match register {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Writes the state that a snapshot contains.
    pub(crate) fn save(&mut self, out: &mut Writer) {
        self.settle();
        out.u32(self.device.kind()).u32(self.status);
        out.u32(self.interrupt.status.load(Ordering::SeqCst)).u64(self.driver_features);
        out.u32(self.device_select).u32(self.driver_select).u32(self.queue_select);
        out.bytes(self.device.config());
        for queue in &self.queues {
            out.u16(queue.size()).u8(u8::from(queue.ready()));
            out.u64(queue.desc_table()).u64(queue.avail_ring()).u64(queue.used_ring());
            out.u16(queue.next_avail()).u16(queue.next_used());
        }
    }

    /// Takes the state over. The device itself starts anew.
    pub(crate) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        if from.u32()? != self.device.kind() {
            return Err(from.invalid("a device is of another kind"));
        }
        self.status = from.u32()?;
        self.interrupt.status.store(from.u32()?, Ordering::SeqCst);
        self.driver_features = from.u64()?;
        if self.driver_features & !self.device_features() != 0 {
            return Err(from.invalid("a device offers less"));
        }
        self.device_select = from.u32()?;
        self.driver_select = from.u32()?;
        self.queue_select = from.u32()?;
        if from.bytes(CONFIG_BYTES_MAX)? != self.device.config() {
            return Err(from.invalid("a device has another configuration, such as a disk's size"));
        }
        for queue in &mut self.queues {
            let (size, is_ready) = (from.u16()?, from.u8()? == 1);
            let (table, avail, used) = (from.u64()?, from.u64()?, from.u64()?);
            queue.set_size(size);
            queue.set_desc_table_address(Some(half(table, 0)), Some(half(table, 1)));
            queue.set_avail_ring_address(Some(half(avail, 0)), Some(half(avail, 1)));
            queue.set_used_ring_address(Some(half(used, 0)), Some(half(used, 1)));
            queue.set_next_avail(from.u16()?);
            queue.set_next_used(from.u16()?);
            queue.set_ready(is_ready);
            if is_ready && !queue.is_valid(&self.memory) {
                return Err(from.invalid("a queue lies outside of the guest's memory"));
            }
        }
        if self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            self.device.activate(self.driver_features);
        }
        Ok(())
    }
}

/// Returns the lower (0) or upper (1) half. There are no further halves.
fn half(value: u64, select: u32) -> u32 {
    let bits = match select {
        0 => value,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(bits & 0xffff_ffff).unwrap_or(0)
}

const CONFIG_BYTES_MAX: usize = 0xf00;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"LMBD");
/// Bits of the interrupt status.
const USED: u32 = 1;
const CONFIG_CHANGED: u32 = 2;
