//! What a processor reaches outside of its memory: the registers of the devices, and the ports.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::control::{CONSOLE_BYTES_MAX, Report};
use crate::mmio::{Transport, Written};

/// A device at its place, with the descriptors by which the processors wake its thread.
#[derive(Debug)]
pub(crate) struct Place {
    transport: Mutex<Transport>,
    /// One for each queue.
    kicks: Vec<EventFd>,
}

/// The devices and ports of a machine.
#[derive(Debug)]
pub(crate) struct Bus {
    places: Vec<Place>,
    attention: Arc<EventFd>,
    console: Option<Mutex<Console>>,
    counts: Counts,
}

/// The last bytes that the guest wrote to its serial port.
#[derive(Debug, Default)]
struct Console(VecDeque<u8>);

#[derive(Debug, Default)]
struct Counts {
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    ports: AtomicU64,
    others: AtomicU64,
}

/// What a processor does after an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Run,
    /// The guest has asked for a reset.
    Reset,
}

impl Place {
    pub(crate) fn new(transport: Transport, kicks: Vec<EventFd>) -> Self {
        Self { transport: Mutex::new(transport), kicks }
    }

    pub(crate) fn transport(&self) -> MutexGuard<'_, Transport> {
        // A device that has panicked has ended this process.
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }
}

impl Bus {
    pub(crate) fn new(places: Vec<Place>, attention: Arc<EventFd>, has_console: bool) -> Self {
        let console = has_console.then(Mutex::default);
        Self { places, attention, console, counts: Counts::default() }
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        self.counts.mmio_reads.fetch_add(1, Ordering::Relaxed);
        match self.place(address) {
            Some((place, offset)) => place.transport().read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        self.counts.mmio_writes.fetch_add(1, Ordering::Relaxed);
        let Some((place, offset)) = self.place(address) else { return };
        let written = place.transport().write(offset, data);
        let wake = match written {
            Written::Done => return,
            Written::Notify(queue) => place.kicks.get(usize::from(queue)),
            Written::Reset => Some(&*self.attention),
        };
        // The counter overflows after 2^64 - 2 writes that nobody reads.
        drop(wake.map(|wake| wake.write(1)));
    }

    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        self.counts.ports.fetch_add(1, Ordering::Relaxed);
        let is_ready = port == SERIAL + LINE_STATUS && self.console.is_some();
        data.fill(if is_ready { TRANSMITTER_EMPTY } else { 0xff });
    }

    pub(crate) fn port_write(&self, port: u16, data: &[u8]) -> Next {
        self.counts.ports.fetch_add(1, Ordering::Relaxed);
        match (port, &self.console) {
            (SERIAL, Some(console)) => {
                let mut console = console.lock().unwrap_or_else(PoisonError::into_inner);
                console.write(data);
            }
            (KEYBOARD_COMMAND, _) if data.first() == Some(&KEYBOARD_RESET) => return Next::Reset,
            _ => {}
        }
        Next::Run
    }

    pub(crate) fn count_other(&self) {
        self.counts.others.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn report(&self) -> Report {
        let console = self.console.as_ref().map(|console| {
            let console = console.lock().unwrap_or_else(PoisonError::into_inner);
            console.0.iter().copied().collect()
        });
        Report {
            mmio_reads: self.counts.mmio_reads.load(Ordering::Relaxed),
            mmio_writes: self.counts.mmio_writes.load(Ordering::Relaxed),
            ports: self.counts.ports.load(Ordering::Relaxed),
            others: self.counts.others.load(Ordering::Relaxed),
            console: console.unwrap_or_default(),
        }
    }

    fn place(&self, address: u64) -> Option<(&Place, u64)> {
        let offset = address.checked_sub(DEVICES)?;
        let index = usize::try_from(offset / DEVICE_BYTES).ok()?;
        Some((self.places.get(index)?, offset % DEVICE_BYTES))
    }
}

impl Console {
    fn write(&mut self, data: &[u8]) {
        for byte in data {
            if self.0.len() == CONSOLE_BYTES_MAX {
                self.0.pop_front();
            }
            self.0.push_back(*byte);
        }
    }
}

/// The address of the first device, and the distance from one to the next.
pub(crate) const DEVICES: u64 = 0xd000_0000;
pub(crate) const DEVICE_BYTES: u64 = 0x1000;
const SERIAL: u16 = 0x3f8;
const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u8 = 0x60;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus {
        let attention = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        Bus::new(Vec::new(), Arc::new(attention), true)
    }

    #[test]
    fn the_console_keeps_the_last_16_kib_alone() {
        let bus = bus();
        for _ in 0..CONSOLE_BYTES_MAX {
            bus.port_write(SERIAL, b"ab");
        }
        bus.port_write(SERIAL, b"end");
        let report = bus.report();
        assert_eq!(report.console.len(), CONSOLE_BYTES_MAX);
        assert!(report.console.ends_with(b"babend"));
        assert_eq!(report.ports, CONSOLE_BYTES_MAX as u64 + 1);
    }

    #[test]
    fn places_without_a_device_read_as_ones() {
        let mut data = [0; 8];
        for address in [0, DEVICES - 1, DEVICES, DEVICES + DEVICE_BYTES, u64::MAX] {
            data.fill(0);
            bus().read(address, &mut data);
            assert_eq!(data, [0xff; 8]);
        }
    }

    #[test]
    fn a_reset_by_the_keyboard_controller_is_noticed() {
        assert_eq!(bus().port_write(KEYBOARD_COMMAND, &[KEYBOARD_RESET]), Next::Reset);
        assert_eq!(bus().port_write(KEYBOARD_COMMAND, &[0]), Next::Run);
        assert_eq!(bus().port_write(KEYBOARD_COMMAND, &[]), Next::Run);
    }
}
