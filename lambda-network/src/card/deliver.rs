//! The thread that carries packets from the VPC to sandboxes.

use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::{Shared, Way};
#[cfg(feature = "wireguard")]
use crate::fair_queue::FairQueue;
use crate::guard::ends;
use crate::linux::tun::{FRAME_MAX, HEADER};

/// Delivers packets until the card is stopped. Sandboxes of other machines take turns, since
/// encryption is slower than what the kernel hands over.
pub(super) fn run(shared: &Shared, stop: &EventFd) {
    let start = Instant::now();
    let mut frame = vec![0; FRAME_MAX];
    #[cfg(feature = "wireguard")]
    let mut sealing = Sealing::default();
    loop {
        let mut wait = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.tun.as_fd(), PollFlags::POLLIN),
        ];
        #[cfg(feature = "wireguard")]
        let timeout = if sealing.next(shared) { PollTimeout::ZERO } else { PollTimeout::NONE };
        #[cfg(not(feature = "wireguard"))]
        let timeout = PollTimeout::NONE;
        // An interrupted call has set no events; the next read finds nothing.
        let _ = poll(&mut wait, timeout);
        let ended = |it: &PollFd<'_>| {
            it.revents().is_some_and(|it| it.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL))
        };
        if wait[0].any().unwrap_or(true) || ended(&wait[1]) {
            return;
        }
        for _ in 0..BATCH {
            let Ok(length) = shared.tun.read(&mut frame) else { break };
            let Some(frame) = frame.get_mut(..length) else { break };
            let Ok(ends) = ends(frame.get(HEADER..).unwrap_or_default()) else { continue };
            match shared.way(ends.destination) {
                Some(Way::Direct(table)) => {
                    if let Some(seat) = table.seat(ends.destination) {
                        // A packet over the sandbox's rate is already counted there.
                        let _ = seat.deliver(start.elapsed(), frame);
                    }
                }
                // A frame without room is dropped, as on any link.
                #[cfg(feature = "wireguard")]
                Some(Way::Sealed(_)) => drop(sealing.waiting.push(ends.destination, frame)),
                None => {}
            }
        }
    }
}

/// The frames that wait for encryption.
#[cfg(feature = "wireguard")]
#[derive(Default)]
struct Sealing {
    waiting: FairQueue,
    out: crate::session::Datagrams,
}

#[cfg(feature = "wireguard")]
impl Sealing {
    /// Sends one frame. Returns whether there was one.
    fn next(&mut self, shared: &Shared) -> bool {
        let Some((sandbox, mut frame)) = self.waiting.pop() else { return false };
        // The sandbox's worker may have gone meanwhile.
        if let Some(Way::Sealed(peer)) = shared.way(sandbox) {
            peer.carry(&mut frame, &mut self.out);
        }
        true
    }
}

/// The most frames between two checks whether the card is stopped.
const BATCH: usize = 64;
