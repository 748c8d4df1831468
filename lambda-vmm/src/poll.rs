//! Readiness of descriptors: one epoll instance, and the part of it that belongs to a device.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{During, Error};

/// What a readiness event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The control socket.
    Control,
    /// Another thread has asked for attention.
    Attention,
    /// The driver has notified a queue of a device.
    Queue {
        /// The device's number.
        device: u8,
        /// The queue's number.
        queue: u16,
    },
    /// A descriptor that a device watches.
    Device {
        /// The device's number.
        device: u8,
        /// The device's name for the descriptor.
        token: u32,
    },
}

/// The epoll descriptor that all devices share.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<Epoll>);

/// The descriptors that one device watches.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    readiness: Readiness,
    device: u8,
}

impl Readiness {
    pub(crate) fn new() -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        Ok(Self(Arc::new(epoll.during("create an epoll instance")?)))
    }

    /// Watches a descriptor for data until it is closed.
    pub(crate) fn add(&self, file: BorrowedFd<'_>, source: Source) -> Result<(), Error> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, source.number());
        self.0.add(file, event).during("watch a descriptor")
    }

    /// Appends the sources that are ready to `ready`. With `waits`, waits until there is one.
    pub(crate) fn wait(&self, ready: &mut Vec<Source>, waits: bool) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 32];
        let timeout = if waits { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = match self.0.wait(&mut events, timeout) {
            Err(nix::Error::EINTR) => 0,
            other => other.during("wait for descriptors")?,
        };
        ready.extend(events.iter().take(count).map(|event| Source::of_number(event.data())));
        Ok(())
    }

    pub(crate) fn of_device(&self, device: u8) -> Poll {
        Poll { readiness: self.clone(), device }
    }
}

impl Poll {
    /// Changes the events that wake the device for a descriptor. A descriptor without interest is
    /// not watched at all: its end would otherwise wake the device again and again.
    pub(crate) fn set(&self, file: impl AsFd, token: u32, from: EpollFlags, to: EpollFlags) {
        if from == to {
            return;
        }
        let source = Source::Device { device: self.device, token };
        let mut event = EpollEvent::new(to, source.number());
        let epoll = &self.readiness.0;
        let done = if from.is_empty() {
            epoll.add(file, event)
        } else if to.is_empty() {
            epoll.delete(file)
        } else {
            epoll.modify(file, &mut event)
        };
        // Only a lack of kernel memory can fail here: the descriptor is open and its state known.
        // The device then hears nothing of this descriptor until its interest changes.
        let _is_done = done.is_ok();
    }
}

impl Source {
    fn number(self) -> u64 {
        match self {
            Self::Control => 0,
            Self::Attention => 1 << 56,
            Self::Queue { device, queue } => 2 << 56 | u64::from(device) << 48 | u64::from(queue),
            Self::Device { device, token } => 3 << 56 | u64::from(device) << 48 | u64::from(token),
        }
    }

    fn of_number(number: u64) -> Self {
        let [_, _, _, _, _, _, device, class] = number.to_le_bytes();
        let [a, b, c, d, ..] = number.to_le_bytes();
        let token = u32::from_le_bytes([a, b, c, d]);
        match class {
            0 => Self::Control,
            1 => Self::Attention,
            2 => Self::Queue { device, queue: u16::from_le_bytes([a, b]) },
            _ => Self::Device { device, token },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_its_number() {
        let sources = [
            Source::Control,
            Source::Attention,
            Source::Queue { device: 7, queue: 2 },
            Source::Device { device: 255, token: u32::MAX },
        ];
        for source in sources {
            assert_eq!(Source::of_number(source.number()), source);
        }
    }
}
