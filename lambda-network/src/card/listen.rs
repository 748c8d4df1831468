//! A card's end of the sessions with workers on other machines.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn};
use boringtun::x25519;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::{Card, Shared, TUN, Way, WorkerId};
use crate::coalesce::Coalescer;
use crate::error::{Error, Step, Stepped as _};
use crate::guard::{check_leased, ends};
use crate::key::{Identity, PublicKey};
use crate::lease::Block;
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::tun::HEADER;
use crate::linux::udp::Wire;
use crate::offload::segment;
use crate::probe;
use crate::remote::{BATCH, DATAGRAMS_MAX};
use crate::session::{Datagrams, Session};
use crate::share::Shares;

/// What a worker needs to connect to a card. Plain data without secrets, which the caller sends to
/// the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a message, made and read on different machines")]
pub struct Admission {
    /// The card's public key.
    pub card: PublicKey,
    /// The address on which the card listens.
    pub endpoint: SocketAddr,
    /// The first block of addresses for the worker's sandboxes.
    pub block: Block,
    /// The largest packet through the tunnel that the card accepts, in bytes. The worker finds out
    /// whether its path carries it.
    pub mtu: u16,
}

/// The card's socket and its workers on other machines.
#[derive(Debug)]
pub(crate) struct Listener {
    wire: Wire,
    identity: Identity,
    public: x25519::PublicKey,
    limiter: Limiter,
    mtu: u16,
    start: Instant,
    workers: RwLock<Workers>,
    /// The number of refused packets: unreadable, or from an address that is not leased to the
    /// worker.
    pub(crate) refused: AtomicU64,
    /// The number of frames that were dropped because their sandbox floods.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Workers {
    by_key: BTreeMap<PublicKey, WorkerId>,
    by_id: BTreeMap<WorkerId, Arc<Peer>>,
}

/// Limits handshakes from unknown senders. A wrapper, since the library's type has no `Debug`.
struct Limiter(Arc<RateLimiter>);

impl std::fmt::Debug for Limiter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Limiter")
    }
}

/// A worker on another machine.
#[derive(Debug)]
pub(crate) struct Peer {
    worker: WorkerId,
    key: PublicKey,
    listener: Arc<Listener>,
    session: Mutex<Session>,
    /// The address from which the worker last sent something authentic.
    from: Mutex<Option<SocketAddr>>,
    /// When it was last heard, in milliseconds since the listener's start. Initially the time of
    /// its admission.
    heard: AtomicU64,
}

impl Card {
    /// Listens for workers on other machines, on a UDP socket that stays in the namespace in which
    /// it was bound.
    ///
    /// `underlay_mtu` is the largest packet between the machines, in bytes. Packets through the
    /// tunnel are 80 bytes smaller, or smaller still if a worker's path carries less.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the card already listens or `underlay_mtu` is not between
    /// 1,280 and 9,000; else an error that names the failed step.
    pub fn listen(
        &mut self,
        socket: UdpSocket,
        identity: Identity,
        underlay_mtu: u16,
    ) -> Result<(), Error> {
        if !(1280..=9000).contains(&underlay_mtu) {
            let reason = "not between 1,280 and 9,000";
            return Err(Error::invalid("underlay_mtu", underlay_mtu, reason));
        }
        let mtu = self.shared.spec.mtu.min(underlay_mtu - OVERHEAD);
        let public = x25519::PublicKey::from(identity.public().to_bytes());
        let listener = Arc::new(Listener {
            wire: Wire::new(socket).step(Step::OpenSocket)?,
            limiter: Limiter(Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND))),
            identity,
            public,
            mtu,
            start: Instant::now(),
            workers: RwLock::default(),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        if self.shared.listener.set(Arc::clone(&listener)).is_err() {
            return Err(Error::invalid("socket", "a second one", "the card listens already"));
        }
        // The card's kernel then answers packets that are too large for the tunnel (RFC 1191).
        namespace::within(&self.namespace, || {
            let netlink = Netlink::open().step(Step::MakeTun)?;
            let index = if_nametoindex(TUN).step(Step::FindDevice)?;
            netlink.set_mtu(index, mtu).step(Step::MakeTun)
        })?;
        self.run("card-up", move |shared, stop| run(&shared, &listener, &stop))
    }

    /// Admits a worker and leases it a block of addresses. A worker that is already admitted loses
    /// its session and addresses first.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Full`] if all blocks are leased, and [`Error::Invalid`] if the card does
    /// not listen.
    pub fn admit(&self, worker: PublicKey) -> Result<Admission, Error> {
        let listener = self.listener()?;
        self.dismiss(worker);
        let endpoint = listener.wire.local().step(Step::OpenSocket)?;
        let mut workers = listener.workers();
        let id = self.shared.enroll(|id| {
            let limiter = Some(Arc::clone(&listener.limiter.0));
            let session = Session::new(&listener.identity, worker, id.0, limiter);
            let peer = Arc::new(Peer {
                worker: id,
                key: worker,
                listener: Arc::clone(listener),
                session: Mutex::new(session),
                from: Mutex::default(),
                heard: AtomicU64::new(listener.now()),
            });
            workers.by_id.insert(id, Arc::clone(&peer));
            workers.by_key.insert(worker, id);
            Way::Sealed(peer)
        })?;
        drop(workers);
        match self.shared.lease(id) {
            Ok(block) => {
                let card = listener.identity.public();
                Ok(Admission { card, endpoint, block, mtu: listener.mtu })
            }
            Err(error) => {
                self.dismiss(worker);
                Err(error)
            }
        }
    }

    /// Leases another block of addresses to an admitted worker.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Full`] if all blocks are leased, and [`Error::Gone`] if the worker is not
    /// admitted.
    pub fn lease(&self, worker: PublicKey) -> Result<Block, Error> {
        let id = self.listener()?.workers().by_key.get(&worker).copied().ok_or(Error::Gone)?;
        self.shared.lease(id)
    }

    /// Ends a worker's session and takes back its addresses.
    pub fn dismiss(&self, worker: PublicKey) {
        if let Some(listener) = self.shared.listener.get() {
            listener.dismiss(&self.shared, worker);
        }
    }

    /// Returns how many datagrams and packets were refused: forged, replayed, from unknown senders,
    /// or from an address that is not leased to the worker.
    #[must_use]
    pub fn refused_packets(&self) -> u64 {
        self.shared.listener.get().map_or(0, |it| it.refused.load(Ordering::Relaxed))
    }

    /// Returns how many frames of workers were dropped because their sandbox sent more than the
    /// card can forward.
    #[must_use]
    pub fn dropped_frames(&self) -> u64 {
        self.shared.listener.get().map_or(0, |it| it.dropped.load(Ordering::Relaxed))
    }

    fn listener(&self) -> Result<&Arc<Listener>, Error> {
        let unset = Error::invalid("socket", "none", "the card does not listen");
        self.shared.listener.get().ok_or(unset)
    }
}

impl Listener {
    fn workers(&self) -> std::sync::RwLockWriteGuard<'_, Workers> {
        self.workers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn dismiss(&self, shared: &Shared, worker: PublicKey) {
        let mut workers = self.workers();
        if let Some(id) = workers.by_key.remove(&worker) {
            workers.by_id.remove(&id);
            shared.dismiss(id);
        }
    }

    /// Returns the worker to whose session a datagram belongs.
    fn peer(&self, datagram: &[u8], from: SocketAddr) -> Option<Arc<Peer>> {
        let receiver = match Tunn::parse_incoming_packet(datagram).ok()? {
            Packet::HandshakeInit(hello) => {
                // A handshake of an unknown sender costs one check, and above the rate limit
                // nothing more.
                let mut cookie = [0; COOKIE];
                let verified = self.limiter.0.verify_packet(Some(from.ip()), datagram, &mut cookie);
                match verified {
                    Ok(_) => {}
                    Err(boringtun::noise::TunnResult::WriteToNetwork(cookie)) => {
                        let mut out = Datagrams::default();
                        out.bytes.extend_from_slice(cookie);
                        out.lengths.push(cookie.len());
                        self.wire.send(&out, from);
                        return None;
                    }
                    Err(_) => return None,
                }
                let secret = self.identity.secret();
                let half = parse_handshake_anon(&secret, &self.public, &hello).ok()?;
                let key = PublicKey::from_bytes(half.peer_static_public);
                let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
                let id = workers.by_key.get(&key)?;
                return workers.by_id.get(id).cloned();
            }
            Packet::HandshakeResponse(it) => it.receiver_idx,
            Packet::PacketCookieReply(it) => it.receiver_idx,
            Packet::PacketData(it) => it.receiver_idx,
        };
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.by_id.get(&WorkerId(receiver >> 8)).cloned()
    }
}

impl Peer {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn from(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encrypts a frame and sends it to the worker.
    pub(super) fn carry(&self, frame: &mut [u8], out: &mut Datagrams) {
        let Some(to) = *self.from() else { return };
        let mut session = self.session();
        // The kernel makes no malformed frame; one is dropped.
        let _ = segment(frame, |packet| session.seal(packet, out));
        drop(session);
        self.listener.wire.send(out, to);
        out.clear();
    }
}

/// Carries packets from workers into the card until the card is stopped.
fn run(shared: &Shared, listener: &Listener, stop: &EventFd) {
    let mut bytes = vec![0; DATAGRAMS_MAX];
    let mut plain = vec![0; DATAGRAMS_MAX];
    let mut out = Datagrams::default();
    let mut coalescer = Coalescer::default();
    let mut ticked = 0;
    let mut shares = Shares::default();
    let deliver = |shares: &mut Shares, frame: &[u8]| {
        let ends = ends(frame.get(HEADER..).unwrap_or_default());
        if ends.is_ok_and(|ends| shares.take(ends.source)) {
            shared.accept_local(frame);
        } else {
            listener.dropped.fetch_add(1, Ordering::Relaxed);
        }
    };
    loop {
        let mut wait = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.wire.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted call has set no events, and counts as a timeout.
        let _ = poll(&mut wait, PollTimeout::from(TICK_MILLIS));
        if wait[0].any().unwrap_or(true) {
            return;
        }
        shares.renew();
        for _ in 0..BATCH {
            let Ok(received) = listener.wire.receive(&mut bytes) else { break };
            // All datagrams of one call come from one sender, so nearly always from one worker and
            // one source address.
            let mut known = Known::default();
            for datagram in bytes[..received.length].chunks(received.size) {
                let peer = known.peer(datagram, || listener.peer(datagram, received.from));
                let packet = peer.as_ref().and_then(|peer| {
                    peer.session().open(received.from.ip(), datagram, &mut plain, &mut out).ok()
                });
                let (Some(peer), Some(packet)) = (&peer, packet) else {
                    listener.refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                if !known.authentic {
                    // Only authentic datagrams update the worker's address.
                    *peer.from() = Some(received.from);
                    peer.heard.store(listener.now(), Ordering::Relaxed);
                    known.authentic = true;
                }
                if !out.lengths.is_empty() {
                    listener.wire.send(&out, received.from);
                    out.clear();
                }
                let Some(packet) = packet else { continue };
                let leased = |source| known.leased(source, || shared.holder(source), peer.worker);
                if check_leased(shared.spec.rules, packet, leased).is_err() {
                    listener.refused.fetch_add(1, Ordering::Relaxed);
                } else if let Some(answer) = probe::answer(packet) {
                    peer.session().seal(&answer, &mut out);
                    listener.wire.send_whole(&out, received.from);
                    out.clear();
                } else {
                    coalescer.add(packet, |frame| deliver(&mut shares, frame));
                }
            }
        }
        coalescer.flush(|frame| deliver(&mut shares, frame));
        let now = listener.now();
        if now - ticked >= u64::from(TICK_MILLIS) {
            ticked = now;
            tick(shared, listener, now, &mut out);
        }
    }
}

/// What the datagrams of one receive call have in common.
#[derive(Default)]
struct Known {
    peer: Option<(u32, Arc<Peer>)>,
    authentic: bool,
    source: Option<Ipv4Addr>,
}

impl Known {
    fn peer(
        &mut self,
        datagram: &[u8],
        find: impl FnOnce() -> Option<Arc<Peer>>,
    ) -> Option<Arc<Peer>> {
        let receiver = match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::PacketData(data)) => Some(data.receiver_idx >> 8),
            _ => None,
        };
        if let Some((_, peer)) = self.peer.as_ref().filter(|(it, _)| Some(*it) == receiver) {
            return Some(Arc::clone(peer));
        }
        *self = Self::default();
        let peer = find()?;
        self.peer = receiver.map(|it| (it, Arc::clone(&peer)));
        Some(peer)
    }

    fn leased(
        &mut self,
        source: Ipv4Addr,
        find: impl FnOnce() -> Option<WorkerId>,
        worker: WorkerId,
    ) -> bool {
        if self.source != Some(source) {
            self.source = (find() == Some(worker)).then_some(source);
        }
        self.source.is_some()
    }
}

/// Does the periodic work of each session, and dismisses silent workers.
fn tick(shared: &Shared, listener: &Listener, now: u64, out: &mut Datagrams) {
    listener.limiter.0.reset_count();
    let workers = listener.workers.read().unwrap_or_else(PoisonError::into_inner);
    let peers: Vec<_> = workers.by_id.values().cloned().collect();
    drop(workers);
    for peer in peers {
        if now.saturating_sub(peer.heard.load(Ordering::Relaxed)) > WORKER_SILENCE {
            listener.dismiss(shared, peer.key);
            shared.gone.lock().unwrap_or_else(PoisonError::into_inner).push(peer.key);
            continue;
        }
        let Some(to) = *peer.from() else { continue };
        peer.session().tick(out);
        listener.wire.send(out, to);
        out.clear();
    }
}

/// The most that WireGuard and the outer headers (with IPv6) add to a packet, in bytes.
const OVERHEAD: u16 = 80;
/// The rate of handshakes above which a sender must first prove its address by a cookie.
const HANDSHAKES_PER_SECOND: u64 = 200;
/// The size of a cookie reply, in bytes.
const COOKIE: usize = 64;
const TICK_MILLIS: u16 = 250;
/// A worker's lease ends after this many milliseconds without a datagram. A worker sends one at
/// least every second.
const WORKER_SILENCE: u64 = 10_000;
