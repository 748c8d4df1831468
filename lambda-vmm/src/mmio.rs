//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2.2), as a state machine: registers,
//! the status protocol, and the queues of one device.

use std::any::Any;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
    VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL,
    VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use virtio_queue::{Queue, QueueState, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;
use crate::devices::{Device, Rings};
use crate::memory::Memory;
use crate::wire::structures;

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
    /// The line to the interrupt controller.
    wire: EventFd,
    /// The reasons of interrupts that the driver has not acknowledged.
    interrupts: u32,
    status: u32,
    driver_features: u64,
    device_select: u32,
    driver_select: u32,
    queue_select: u32,
    reset_pending: bool,
}

/// The saved state of a device's registers and queues.
#[derive(Debug)]
pub(crate) struct State {
    kind: u32,
    config: Vec<u8>,
    status: u32,
    interrupts: u32,
    driver_features: u64,
    device_select: u32,
    driver_select: u32,
    queue_select: u32,
    queues: Vec<QueueState>,
}

structures! {
    State {
        kind, config, status, interrupts, driver_features, device_select, driver_select,
        queue_select, queues,
    }
    QueueState {
        max_size, next_avail, next_used, event_idx_enabled, size, ready, desc_table, avail_ring,
        used_ring,
    }
}

impl Transport {
    pub(crate) fn new(
        device: Box<dyn Device>,
        memory: Memory,
        wire: EventFd,
    ) -> Result<Self, Error> {
        let queue = |size: &u16| {
            Queue::new(*size).map_err(|error| Error::invalid("a queue's size", error.to_string()))
        };
        let queues = device.queue_sizes().iter().map(queue).collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            queues,
            memory,
            wire,
            interrupts: 0,
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
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupts,
            VIRTIO_MMIO_STATUS => self.status,
            // VIRTIO_MMIO_CONFIG_GENERATION, too: no device's configuration changes.
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
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupts &= !value,
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

    /// Returns the device, if it is of this type.
    pub(crate) fn device_mut<T: Device>(&mut self) -> Option<&mut T> {
        let device: &mut dyn Any = &mut *self.device;
        device.downcast_mut()
    }

    /// Returns the number of queues. No device has more than a few.
    pub(crate) fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn interrupt(&mut self, reason: u32) {
        self.interrupts |= reason;
        // The counter overflows after 2^64 - 2 writes that nobody reads.
        drop(self.wire.write(1));
    }

    fn serve(&mut self, work: impl FnOnce(&mut dyn Device, &mut Rings<'_>)) -> bool {
        self.settle();
        if !self.is_running() {
            return false;
        }
        let mut rings = Rings::new(&mut self.queues, &self.memory);
        work(&mut *self.device, &mut rings);
        let Rings { is_used, is_broken, is_left, .. } = rings;
        if is_broken {
            self.fail();
        } else if is_used {
            self.interrupt(USED);
        }
        is_left && !is_broken
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
        self.interrupt(CONFIG_CHANGED);
    }

    fn set_status(&mut self, value: u32) -> Written {
        if value == 0 {
            self.queues.iter_mut().for_each(QueueT::reset);
            self.driver_features = 0;
            self.queue_select = 0;
            self.status = 0;
            self.interrupts = 0;
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

    /// Returns the state that a snapshot contains.
    pub(crate) fn save(&mut self) -> State {
        self.settle();
        State {
            kind: self.device.kind(),
            config: self.device.config().to_vec(),
            status: self.status,
            interrupts: self.interrupts,
            driver_features: self.driver_features,
            device_select: self.device_select,
            driver_select: self.driver_select,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(Queue::state).collect(),
        }
    }

    /// Takes the state over. The device itself starts anew.
    pub(crate) fn restore(&mut self, saved: State) -> Result<(), Error> {
        let refused = |why: &str| Err(Error::invalid("the snapshot", why));
        if saved.kind != self.device.kind() {
            return refused("a device is of another kind");
        }
        if saved.driver_features & !self.device_features() != 0 {
            return refused("a device offers less");
        }
        if saved.config != self.device.config() || saved.queues.len() != self.queues.len() {
            return refused("a device has another configuration, such as a disk's size");
        }
        for (queue, state) in self.queues.iter_mut().zip(saved.queues) {
            let is_same = state.max_size == queue.max_size();
            let restored = Queue::try_from(state).ok().filter(|_| is_same);
            match restored.filter(|it| !it.ready() || it.is_valid(&self.memory)) {
                Some(restored) => *queue = restored,
                None => return refused("a queue lies outside of the guest's memory"),
            }
        }
        self.status = saved.status;
        self.interrupts = saved.interrupts;
        self.driver_features = saved.driver_features;
        self.device_select = saved.device_select;
        self.driver_select = saved.driver_select;
        self.queue_select = saved.queue_select;
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

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"LMBD");
/// Bits of the interrupt status.
const USED: u32 = 1;
const CONFIG_CHANGED: u32 = 2;
