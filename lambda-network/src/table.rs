//! A worker's sandboxes behind one card: their devices' descriptors, by address.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Step, Stepped as _};
use crate::linux::tun::Tun;
use crate::rate::{Bucket, Rates};
use crate::rules::Refusal;

/// A sandbox. It is identified by the descriptor of its device.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) address: Ipv4Addr,
    pub(crate) tun: Tun,
    up: Mutex<Bucket>,
    down: Mutex<Bucket>,
    pub(crate) traffic: Traffic,
}

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) up_bytes: AtomicU64,
    pub(crate) down_bytes: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Seat {
    pub(crate) fn new(address: Ipv4Addr, tun: Tun, rates: Rates) -> Self {
        Self {
            address,
            tun,
            up: Mutex::new(Bucket::new(rates.up_bytes_per_second)),
            down: Mutex::new(Bucket::new(rates.down_bytes_per_second)),
            traffic: Traffic::default(),
        }
    }

    pub(crate) fn up(&self) -> MutexGuard<'_, Bucket> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a frame to the sandbox. If its device has no room, the frame is dropped, as on any
    /// link.
    pub(crate) fn deliver(&self, now: Duration, frame: &[u8]) -> Result<(), Refusal> {
        let passes =
            self.down.lock().unwrap_or_else(PoisonError::into_inner).take(now, frame.len());
        if !passes {
            self.traffic.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Rate);
        }
        if self.tun.write(frame).is_ok() {
            self.traffic.down_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// All sandboxes of one worker behind one card.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) epoll: Epoll,
    stop: EventFd,
    seats: RwLock<HashMap<Ipv4Addr, Arc<Seat>>>,
}

impl Table {
    pub(crate) fn new() -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).step(Step::Register)?;
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .step(Step::Register)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).step(Step::Register)?;
        Ok(Self { epoll, stop, seats: RwLock::default() })
    }

    pub(crate) fn insert(&self, seat: Arc<Seat>) -> Result<(), Error> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(seat.address.to_bits()));
        self.write().insert(seat.address, Arc::clone(&seat));
        if let Err(error) = self.epoll.add(&seat.tun, event) {
            self.write().remove(&seat.address);
            return Err(error).step(Step::Register);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, seat: &Seat) {
        self.forget(seat);
        self.write().remove(&seat.address);
    }

    /// Starts or stops waiting for packets of a sandbox.
    pub(crate) fn listen(&self, seat: &Seat, on: bool) {
        let flags = if on { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        let mut event = EpollEvent::new(flags, u64::from(seat.address.to_bits()));
        // Fails if the sandbox was detached in the meantime.
        let _ = self.epoll.modify(&seat.tun, &mut event);
    }

    /// Removes a sandbox's descriptor from the wait.
    pub(crate) fn forget(&self, seat: &Seat) {
        // Fails if the sandbox was detached in the meantime.
        let _ = self.epoll.delete(&seat.tun);
    }

    pub(crate) fn seat(&self, address: Ipv4Addr) -> Option<Arc<Seat>> {
        self.seats.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// Wakes the thread that waits for these descriptors, so that it ends.
    pub(crate) fn stop(&self) {
        // The counter is far below its maximum, so the write does not block.
        let _ = self.stop.write(1);
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Ipv4Addr, Arc<Seat>>> {
        self.seats.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoll key of the descriptor that stops the thread. Keys of sandboxes are 32-bit addresses.
pub(crate) const STOP: u64 = u64::MAX;
