//! What a processor reaches outside of its memory: the registers of the devices, and the ports.

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
    has_console: bool,
    /// The counts of exits and the guest's console output. The output grows to twice the reported
    /// length before its older half is cut off.
    report: Mutex<Report>,
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
        Self { places, attention, has_console, report: Mutex::default() }
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        self.counted().mmio_reads += 1;
        match self.place(address) {
            Some((place, offset)) => place.transport().read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        self.counted().mmio_writes += 1;
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
        self.counted().ports += 1;
        let is_ready = port == SERIAL + LINE_STATUS && self.has_console;
        data.fill(if is_ready { TRANSMITTER_EMPTY } else { 0xff });
    }

    pub(crate) fn port_write(&self, port: u16, data: &[u8]) -> Next {
        let mut report = self.counted();
        report.ports += 1;
        if port == SERIAL && self.has_console {
            report.console.extend(data);
            if report.console.len() > 2 * CONSOLE_BYTES_MAX {
                report.shorten();
            }
        }
        let is_reset = port == KEYBOARD_COMMAND && data.first() == Some(&KEYBOARD_RESET);
        if is_reset { Next::Reset } else { Next::Run }
    }

    pub(crate) fn count_other(&self) {
        self.counted().others += 1;
    }

    pub(crate) fn report(&self) -> Report {
        let mut report = self.counted();
        report.shorten();
        report.clone()
    }

    fn counted(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, address: u64) -> Option<(&Place, u64)> {
        let offset = address.checked_sub(DEVICES)?;
        let index = usize::try_from(offset / DEVICE_BYTES).ok()?;
        Some((self.places.get(index)?, offset % DEVICE_BYTES))
    }
}

impl Report {
    /// Drops all but the end of the console's output.
    fn shorten(&mut self) {
        self.console.drain(..self.console.len().saturating_sub(CONSOLE_BYTES_MAX));
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
