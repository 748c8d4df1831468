//! The thread that carries packets from the VPC to sandboxes.

use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::{Shared, Way};
use crate::guard::ends;
use crate::linux::tun::{FRAME_MAX, HEADER};

/// Delivers packets until the card is stopped.
pub(super) fn run(shared: &Shared, stop: &EventFd) {
    let start = Instant::now();
    let mut frame = vec![0; FRAME_MAX];
    #[cfg(feature = "wireguard")]
    let mut out = crate::session::Datagrams::default();
    loop {
        let mut wait = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.tun.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted call has set no events; the next read finds nothing.
        let _ = poll(&mut wait, PollTimeout::NONE);
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
                #[cfg(feature = "wireguard")]
                Some(Way::Sealed(peer)) => peer.carry(frame, &mut out),
                None => {}
            }
        }
    }
}

/// The most frames between two checks whether the card is stopped.
const BATCH: usize = 64;
