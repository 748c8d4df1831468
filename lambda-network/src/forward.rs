//! The thread that carries packets from a worker's sandboxes towards a card.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollTimeout};

use crate::card::Shared;
use crate::guard::check_outgoing;
use crate::linux::tun::{FRAME_MAX, HEADER};
use crate::rules::Rules;
use crate::table::{STOP, Seat, Table};

/// Carries frames of sandboxes to a card.
pub(crate) trait Carry: Send {
    /// Carries one frame, which has passed the worker's checks.
    fn carry(&mut self, frame: &mut [u8]);
    /// Sends what was kept for a larger batch. Called before the thread waits.
    fn flush(&mut self);
    /// Does periodic work. Called at least every [`TICK`].
    fn tick(&mut self);
}

/// Carries frames to a card of this process: each is written to the card's device as a whole.
pub(crate) struct Direct {
    card: Weak<Shared>,
    held: Option<Arc<Shared>>,
}

impl Direct {
    pub(crate) fn new(card: Weak<Shared>) -> Self {
        Self { card, held: None }
    }
}

impl Carry for Direct {
    fn carry(&mut self, frame: &mut [u8]) {
        if self.held.is_none() {
            self.held = self.card.upgrade();
        }
        if let Some(card) = &self.held {
            card.accept_local(frame);
        }
    }

    fn flush(&mut self) {
        self.held = None;
    }

    fn tick(&mut self) {}
}

/// Forwards frames until the table is stopped.
pub(crate) fn run(table: &Table, rules: Rules, carry: &mut dyn Carry) {
    let start = Instant::now();
    let mut events = [EpollEvent::empty(); 64];
    let mut frame = vec![0; FRAME_MAX];
    let mut paused: Vec<(Duration, Arc<Seat>)> = Vec::new();
    let mut ticked = Duration::ZERO;
    loop {
        let now = start.elapsed();
        resume(table, &mut paused, now);
        if now >= ticked + TICK {
            carry.tick();
            ticked = now;
        }
        let due = paused.iter().map(|(due, _)| due.saturating_sub(now)).min();
        let timeout = due.map_or(TICK, |due| due.clamp(Duration::from_millis(1), TICK));
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::ZERO);
        let count = match table.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            // The descriptor belongs to the table: only a bug can invalidate it.
            Err(error) => panic!("epoll_wait: {error}"),
        };
        for event in events.iter().take(count) {
            if event.data() == STOP {
                return;
            }
            let address = u32::try_from(event.data()).map(Ipv4Addr::from_bits);
            let Some(seat) = address.ok().and_then(|address| table.seat(address)) else { continue };
            serve(table, rules, &seat, &mut frame, carry, start, &mut paused);
        }
        carry.flush();
    }
}

/// Forwards what one sandbox sends, at most [`SHARE`] frames or [`SHARE_BYTES`] and one frame, so
/// that a busy sandbox does not delay the others.
fn serve(
    table: &Table,
    rules: Rules,
    seat: &Arc<Seat>,
    frame: &mut [u8],
    carry: &mut dyn Carry,
    start: Instant,
    paused: &mut Vec<(Duration, Arc<Seat>)>,
) {
    let mut bytes = 0;
    for _ in 0..SHARE {
        if bytes >= SHARE_BYTES {
            return;
        }
        let now = start.elapsed();
        let wait = seat.up().wait_for_largest(now);
        if wait > Duration::ZERO {
            table.listen(seat, false);
            paused.push((now + wait.min(TICK), Arc::clone(seat)));
            return;
        }
        let length = match seat.tun.read(frame) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            // The device is gone. Remove its descriptor, which epoll would otherwise report for
            // ever.
            Err(_) => return table.forget(seat),
        };
        bytes += length;
        let Some(whole) = frame.get_mut(..length) else { continue };
        let packet = whole.get(HEADER..).unwrap_or_default();
        if check_outgoing(rules, packet, seat.address).is_err() {
            seat.traffic.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        seat.up().take(now, length);
        seat.traffic.up_bytes.fetch_add(length as u64, Ordering::Relaxed);
        carry.carry(whole);
    }
}

fn resume(table: &Table, paused: &mut Vec<(Duration, Arc<Seat>)>, now: Duration) {
    paused.retain(|(due, seat)| {
        let wait = *due > now;
        if !wait {
            table.listen(seat, true);
        }
        wait
    });
}

/// The period of [`Carry::tick`].
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// The most frames of one sandbox before the next one's turn.
const SHARE: usize = 16;
/// The most bytes of one sandbox before the next one's turn: some 0.3 ms with encryption.
const SHARE_BYTES: usize = 128 << 10;
