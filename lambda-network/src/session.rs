//! One end of a WireGuard session between a worker and a card, without I/O: packets in, datagrams
//! out, and the reverse.
//!
//! The library that implements the protocol reads the clock itself, for its timers and for the time
//! stamp of handshakes.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};

use crate::key::{Identity, PublicKey};

/// Datagrams to send to one destination, in order.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lengths: Vec<usize>,
}

impl Datagrams {
    fn push(&mut self, write: impl FnOnce(&mut [u8]) -> usize, room: usize) {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let length = write(&mut self.bytes[start..]);
        self.bytes.truncate(start + length);
        if length > 0 {
            self.lengths.push(length);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
    }
}

/// One end of a session.
pub(crate) struct Session(Tunn);

impl Session {
    /// Returns one end of a session. `index`, below 2^24, identifies the session on this side.
    pub(crate) fn new(
        own: &Identity,
        other: PublicKey,
        index: u32,
        limiter: Option<Arc<RateLimiter>>,
    ) -> Self {
        let other = other.to_bytes().into();
        Self(Tunn::new(own.secret(), other, None, Some(KEEPALIVE_SECONDS), index, limiter))
    }

    /// Begins a handshake, if none is under way.
    pub(crate) fn begin(&mut self, out: &mut Datagrams) {
        let write = |room: &mut [u8]| written(&self.0.format_handshake_initiation(room, false));
        out.push(write, HANDSHAKE_MAX);
    }

    /// Encrypts a packet. Until the handshake is complete, up to 256 packets are queued.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut Datagrams) {
        let room = (packet.len() + OVERHEAD).max(HANDSHAKE_MAX);
        out.push(|room| written(&self.0.encapsulate(packet, room)), room);
    }

    /// Decrypts a datagram into `plain`, which must be at least as large. Returns the packet, or
    /// `None` for a protocol message.
    pub(crate) fn open<'a>(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        plain: &'a mut [u8],
        out: &mut Datagrams,
    ) -> Result<Option<&'a [u8]>, Unreadable> {
        // For an empty datagram the library would return a packet of its queue.
        if datagram.is_empty() || plain.len() < datagram.len().max(HANDSHAKE_MAX) {
            return Err(Unreadable);
        }
        match self.0.decapsulate(Some(from), datagram, plain) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                return Ok(Some(packet));
            }
            TunnResult::Done => return Ok(None),
            TunnResult::Err(_) => return Err(Unreadable),
            TunnResult::WriteToNetwork(answer) => out.push(
                |room| {
                    room.copy_from_slice(answer);
                    room.len()
                },
                answer.len(),
            ),
        }
        // A handshake is complete: send the queued packets.
        loop {
            let before = out.lengths.len();
            let write = |room: &mut [u8]| written(&self.0.decapsulate(None, &[], room));
            out.push(write, QUEUED_MAX);
            if out.lengths.len() == before {
                return Ok(None);
            }
        }
    }

    /// Does the periodic work: handshakes, keepalives, the end of old keys.
    pub(crate) fn tick(&mut self, out: &mut Datagrams) {
        let mut expired = false;
        let write = |room: &mut [u8]| match self.0.update_timers(room) {
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                expired = true;
                0
            }
            result => written(&result),
        };
        out.push(write, HANDSHAKE_MAX);
        if expired {
            self.begin(out);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Session")
    }
}

/// A datagram is forged, replayed, damaged, or of another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

fn written(result: &TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(datagram) => datagram.len(),
        _ => 0,
    }
}

/// Both sides send at least this often, so that each notices when the other is gone.
const KEEPALIVE_SECONDS: u16 = 1;
/// The bytes that encryption adds to a packet.
const OVERHEAD: usize = 32;
/// The longest handshake message, in bytes.
pub(crate) const HANDSHAKE_MAX: usize = 148;
/// The longest queued packet after encryption, in bytes: devices have no larger ones.
const QUEUED_MAX: usize = 65_535 + OVERHEAD;

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        worker: Session,
        card: Session,
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn pair() -> Pair {
        let (worker, card) = (Identity::from_bytes([1; 32]), Identity::from_bytes([2; 32]));
        Pair {
            worker: Session::new(&worker, card.public(), 1, None),
            card: Session::new(&card, worker.public(), 2, None),
        }
    }

    fn each(out: &Datagrams) -> Vec<Vec<u8>> {
        let mut rest = &out.bytes[..];
        out.lengths
            .iter()
            .map(|length| {
                let (datagram, after) = rest.split_at(*length);
                rest = after;
                datagram.to_vec()
            })
            .collect()
    }

    fn open(session: &mut Session, datagram: &[u8]) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut plain, mut out) = (vec![0; 2048], Datagrams::default());
        let packet = session.open(HERE, datagram, &mut plain, &mut out).unwrap();
        (packet.map(<[u8]>::to_vec), each(&out))
    }

    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend_from_slice(b"MARKER");
        packet[3] = u8::try_from(packet.len()).unwrap();
        packet
    }

    /// Sends one packet through a new pair of sessions. Returns the datagrams between them.
    fn first_packet(pair: &mut Pair) -> Vec<Vec<u8>> {
        let mut out = Datagrams::default();
        pair.worker.seal(&packet(), &mut out);
        let hello = each(&out);
        let (_, answer) = open(&mut pair.card, &hello[0]);
        let (_, queued) = open(&mut pair.worker, &answer[0]);
        let mut arrived = Vec::new();
        for datagram in &queued {
            arrived.extend(open(&mut pair.card, datagram).0);
        }
        assert_eq!(arrived, [packet()]);
        [hello, answer, queued].concat()
    }

    #[test]
    fn what_waited_for_the_handshake_arrives_and_is_not_seen_on_the_wire() {
        let wire = first_packet(&mut pair()).concat();
        assert!(!wire.windows(6).any(|it| it == b"MARKER"));
    }

    #[test]
    fn replays_and_forgeries_are_not_read() {
        let mut pair = pair();
        let wire = first_packet(&mut pair);
        let (mut plain, mut out) = (vec![0; 2048], Datagrams::default());
        for (index, datagram) in wire.iter().enumerate() {
            let replay = pair.card.open(HERE, datagram, &mut plain, &mut out);
            assert_eq!(replay, Err(Unreadable), "{index}");
        }
        out.clear();
        pair.worker.seal(&packet(), &mut out);
        let right = each(&out).remove(0);
        for at in 0..right.len() {
            let mut forged = right.clone();
            forged[at] ^= 0x40;
            assert_eq!(
                pair.card.open(HERE, &forged, &mut plain, &mut out),
                Err(Unreadable),
                "{at}"
            );
        }
        for length in 0..right.len() {
            let cut = &right[..length];
            assert_eq!(
                pair.card.open(HERE, cut, &mut plain, &mut out),
                Err(Unreadable),
                "{length}"
            );
        }
        assert_eq!(open(&mut pair.card, &right).0, Some(packet()));
    }

    #[test]
    fn another_worker_is_not_read() {
        let mut pair = pair();
        first_packet(&mut pair);
        let other = Identity::from_bytes([3; 32]);
        let card = Identity::from_bytes([2; 32]).public();
        let mut out = Datagrams::default();
        Session::new(&other, card, 1, None).begin(&mut out);
        let mut plain = vec![0; 2048];
        let refused = pair.card.open(HERE, &each(&out)[0], &mut plain, &mut Datagrams::default());
        assert_eq!(refused, Err(Unreadable));
    }
}
