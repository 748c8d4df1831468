//! The fill level of a card, by the connections that the kernel tracks for it and by its sandboxes.

use std::fs;
use std::os::fd::AsFd as _;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::{CardEvent, Shared};

/// Checks the card every 250 ms until it is stopped, on a thread in its namespace.
pub(super) fn watch(shared: &Shared, stop: &EventFd, observer: &dyn Fn(CardEvent)) {
    let limits = &shared.spec.limits;
    let ports = u32::from(limits.ports.end() - limits.ports.start()) + 1;
    let connections_max = limits.connections_max.min(ports);
    loop {
        let mut wait = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        // An interrupted call has set no events, and counts as a timeout.
        let _ = poll(&mut wait, PollTimeout::from(250_u8));
        if wait[0].any().unwrap_or(true) {
            return;
        }
        // On failure the addresses rest until the next attempt.
        drop(shared.forget());
        let link = shared.spec.link.device();
        if if_nametoindex(link).is_err() && !shared.cut.swap(true, Ordering::Relaxed) {
            observer(CardEvent::Gone);
        }
        let connections = connections().unwrap_or(0);
        let sandboxes = shared.sandboxes_at_most();
        let shares = [
            (u64::from(connections), u64::from(connections_max)),
            (sandboxes as u64, limits.sandboxes_max as u64),
        ];
        let gone = std::mem::take(&mut *shared.gone.lock().unwrap_or_else(PoisonError::into_inner));
        gone.into_iter().for_each(|worker| observer(CardEvent::WorkerGone(worker)));
        let was = shared.full.load(Ordering::Relaxed);
        let is = is_full(was, &shares);
        if is != was {
            shared.full.store(is, Ordering::Relaxed);
            observer(if is { CardEvent::Full } else { CardEvent::Room });
        }
    }
}

/// Returns the number of connections tracked in the calling thread's namespace.
fn connections() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?.trim().parse().ok()
}

/// Returns whether a card is full, from the used part of each limit. Two thresholds keep the state
/// from flapping.
fn is_full(was: bool, shares: &[(u64, u64)]) -> bool {
    let percent = if was { 60 } else { 80 };
    shares.iter().any(|(used, max)| used * 100 >= max * percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_full_at_four_fifths_and_has_room_below_three() {
        assert!(!is_full(false, &[(79, 100), (0, 1)]));
        assert!(is_full(false, &[(80, 100), (0, 1)]));
        assert!(is_full(false, &[(0, 100), (1, 1)]));
        assert!(is_full(true, &[(60, 100), (0, 1)]));
        assert!(!is_full(true, &[(59, 100), (0, 1)]));
    }
}
