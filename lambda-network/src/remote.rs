//! A worker's end of the session with a card on another machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::coalesce::Coalescer;
use crate::forward::Carry;
use crate::guard::ends;
use crate::linux::udp::Wire;
use crate::offload::segment;
use crate::probe;
use crate::session::{Datagrams, HANDSHAKE_MAX, Session};
use crate::share::Shares;
use crate::table::Table;

/// A connection to a card on another machine.
#[derive(Debug)]
pub(crate) struct Remote {
    wire: Wire,
    card: SocketAddr,
    session: Mutex<Session>,
    start: Instant,
    /// When the card was last heard, in milliseconds since `start`; 0 is never.
    heard: AtomicU64,
    gone: AtomicBool,
    /// The largest answered probe, in bytes; 0 is none.
    largest: AtomicU16,
}

impl Remote {
    pub(crate) fn new(wire: Wire, card: SocketAddr, session: Session) -> Self {
        let (heard, gone) = (AtomicU64::new(0), AtomicBool::new(false));
        let (session, start) = (Mutex::new(session), Instant::now());
        Self { wire, card, session, start, heard, gone, largest: AtomicU16::new(0) }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the handshake, if none is under way.
    pub(crate) fn begin(&self) {
        let mut out = Datagrams::default();
        self.session().begin(&mut out);
        self.wire.send(&out, self.card);
    }

    /// Returns the largest packet that the path carries in both directions, at most `max`, and
    /// `max` if the card answers no probe, as a card of another implementation may not. Blocks for
    /// one round trip if the path carries `max`, else for some 0.3 s.
    pub(crate) fn probe(&self, source: Ipv4Addr, max: u16) -> u16 {
        for round in 0..PROBES {
            // First the largest alone: it nearly always passes.
            let count = if round == 0 { 1 } else { usize::MAX };
            for size in probe::sizes(max).take(count) {
                let mut out = Datagrams::default();
                self.session().seal(&probe::request(source, size), &mut out);
                self.wire.send_whole(&out, self.card);
            }
            let end = Instant::now() + PROBE_WAIT;
            while Instant::now() < end {
                if self.largest.load(Ordering::Relaxed) == max {
                    return max;
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
        match self.largest.load(Ordering::Relaxed) {
            0 => max,
            largest => largest.min(max),
        }
    }

    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns `true` once, when the card has sent nothing authentic for [`SILENCE`].
    fn has_just_gone(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        let silent = heard > 0 && self.now().saturating_sub(heard) > SILENCE;
        silent && !self.gone.swap(true, Ordering::Relaxed)
    }

    /// Delivers packets from the card to the worker's sandboxes, until `stop` is signalled.
    pub(crate) fn receive(&self, table: &Table, stop: &EventFd) {
        let mut bytes = vec![0; DATAGRAMS_MAX];
        let mut plain = vec![0; DATAGRAMS_MAX];
        let mut out = Datagrams::default();
        let mut coalescer = Coalescer::default();
        let mut shares = Shares::default();
        loop {
            let mut wait = [
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.wire.as_fd(), PollFlags::POLLIN),
            ];
            // An interrupted call has set no events; the next receive finds nothing.
            let _ = poll(&mut wait, PollTimeout::NONE);
            if wait[0].any().unwrap_or(true) {
                return;
            }
            let now = self.start.elapsed();
            shares.renew();
            let mut deliver = |frame: &[u8]| deliver(table, &mut shares, now, frame);
            for _ in 0..BATCH {
                let Ok(received) = self.wire.receive(&mut bytes) else { break };
                if received.from != self.card {
                    continue;
                }
                let mut session = self.session();
                for datagram in bytes[..received.length].chunks(received.size) {
                    match session.open(self.card.ip(), datagram, &mut plain, &mut out) {
                        Ok(packet) => {
                            self.heard.store(self.now().max(1), Ordering::Relaxed);
                            let Some(packet) = packet else { continue };
                            if let Some(size) = probe::answered(packet) {
                                self.largest.fetch_max(size, Ordering::Relaxed);
                            } else {
                                coalescer.add(packet, &mut deliver);
                            }
                        }
                        Err(_) => continue,
                    }
                }
                drop(session);
                if !out.lengths.is_empty() {
                    self.wire.send(&out, self.card);
                    out.clear();
                }
            }
            coalescer.flush(&mut deliver);
        }
    }
}

fn deliver(table: &Table, shares: &mut Shares, now: Duration, frame: &[u8]) {
    let Ok(ends) = ends(frame.get(crate::linux::tun::HEADER..).unwrap_or_default()) else { return };
    if !shares.take(ends.destination) {
        return;
    }
    if let Some(seat) = table.seat(ends.destination) {
        // A packet over the sandbox's rate is already counted there.
        let _ = seat.deliver(now, frame);
    }
}

/// Encrypts frames of sandboxes and sends them.
pub(crate) struct Sealed<F> {
    remote: Arc<Remote>,
    out: Datagrams,
    on_gone: F,
}

impl<F: Fn() + Send> Sealed<F> {
    pub(crate) fn new(remote: Arc<Remote>, on_gone: F) -> Self {
        Self { remote, out: Datagrams::default(), on_gone }
    }
}

impl<F: Fn() + Send> Carry for Sealed<F> {
    fn carry(&mut self, frame: &mut [u8]) {
        let mut session = self.remote.session();
        // The kernel makes no malformed frame; one is dropped.
        let _ = segment(frame, |packet| session.seal(packet, &mut self.out));
        drop(session);
        if self.out.bytes.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.out.lengths.is_empty() {
            self.remote.wire.send(&self.out, self.remote.card);
            self.out.clear();
        }
    }

    fn tick(&mut self) {
        self.remote.session().tick(&mut self.out);
        self.flush();
        if self.remote.has_just_gone() {
            (self.on_gone)();
        }
    }
}

/// The card counts as gone after this many milliseconds without a datagram. Each side sends one at
/// least every second.
pub(crate) const SILENCE: u64 = 3_000;
/// Rounds of probes of the path, and the wait after each.
const PROBES: u32 = 3;
const PROBE_WAIT: Duration = Duration::from_millis(100);
/// The size of the receive buffer, in bytes.
pub(crate) const DATAGRAMS_MAX: usize = 65_536 + HANDSHAKE_MAX;
/// The size at which a batch is sent before it is complete, in bytes.
const BATCH_BYTES: usize = 60_000;
/// Receive calls between two checks whether to stop.
pub(crate) const BATCH: usize = 32;
