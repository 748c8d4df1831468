//! The streams between guest and host as a state machine without I/O: packets of the guest come in,
//! packets for the guest and [`Action`]s on sockets go out. Every buffer and list is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::packet::{HOST_CID, Header, Key, RECEIVES_NO_MORE, SENDS_NO_MORE, STREAM, operation};

/// What the owner of the sockets must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The guest asks for a stream. Answer with [`Streams::accept`] or [`Streams::refuse`].
    Offer(Key),
    /// The guest has accepted a stream that the host asked for.
    Opened(Key),
    /// There is data for the host in [`Streams::data`], or [`Streams::is_at_end`] has changed.
    Deliver(Key),
    /// The stream is gone: close its socket.
    Close(Key),
}

/// All streams of one guest.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    cid: u64,
    streams: BTreeMap<Key, Stream>,
    /// Keys of streams that have a packet without data to send.
    talking: BTreeSet<Key>,
    /// Resets for streams that do not exist.
    resets: VecDeque<Key>,
    actions: VecDeque<Action>,
    next_port: u32,
}

#[derive(Debug, Default)]
struct Stream {
    phase: Phase,
    /// Received from the guest, not yet taken by the host.
    data: VecDeque<u8>,
    /// Bytes that the host has taken, modulo 2^32.
    forwarded: u32,
    /// `forwarded` as the guest knows it.
    announced: u32,
    /// Bytes sent to the guest, modulo 2^32.
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
    /// The guest sends no more, or takes no more.
    guest_ended: bool,
    guest_deaf: bool,
    /// The host sends no more.
    host_ended: bool,
    /// Whether the guest has been told so.
    host_end_told: bool,
    wants_credit: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// The guest asked, and the owner has not answered yet.
    #[default]
    Offered,
    /// Accepted, and the guest has not been told yet.
    Accepted,
    /// The host asked.
    Requested {
        told: bool,
    },
    Open,
}

impl Streams {
    pub(crate) fn new(cid: u32) -> Self {
        Self { cid: u64::from(cid), next_port: FIRST_HOST_PORT, ..Self::default() }
    }

    /// Returns whether a packet of the guest can be handled: its answer, if any, must fit in the
    /// list of those that wait for the guest's buffers.
    pub(crate) fn has_room(&self) -> bool {
        self.resets.len() < RESETS_MAX
    }

    /// Handles a packet of the guest. `data` has the length that the header says.
    pub(crate) fn handle(&mut self, header: &Header, data: &[u8]) {
        let key = Key { host_port: header.target_port, guest_port: header.source_port };
        let is_ours = header.target_cid == HOST_CID && header.source_cid == self.cid;
        if !is_ours || header.kind != STREAM {
            return self.reject(key, header);
        }
        let Some(stream) = self.streams.get_mut(&key) else {
            if header.operation != operation::REQUEST || self.streams.len() >= STREAMS_MAX {
                return self.reject(key, header);
            }
            self.streams.insert(key, Stream::new(Phase::Offered, header));
            return self.actions.push_back(Action::Offer(key));
        };
        stream.guest_buffer = header.buffer_bytes;
        stream.guest_forwarded = header.forwarded;
        let is_open = matches!(stream.phase, Phase::Open | Phase::Accepted);
        match header.operation {
            operation::RESPONSE if matches!(stream.phase, Phase::Requested { .. }) => {
                stream.phase = Phase::Open;
                self.actions.push_back(Action::Opened(key));
            }
            operation::DATA if is_open && !stream.guest_ended => {
                // The guest may not send more than the credit that it was given.
                if data.len() > stream.room() {
                    return self.abort(key);
                }
                stream.data.extend(data);
                self.actions.push_back(Action::Deliver(key));
            }
            operation::SHUTDOWN if is_open => {
                stream.guest_deaf |= header.flags & RECEIVES_NO_MORE != 0;
                if header.flags & SENDS_NO_MORE != 0 && !stream.guest_ended {
                    stream.guest_ended = true;
                    self.actions.push_back(Action::Deliver(key));
                }
            }
            operation::CREDIT_UPDATE if is_open => {}
            operation::CREDIT_REQUEST if is_open => {
                stream.wants_credit = true;
                self.talking.insert(key);
            }
            operation::RESET => {
                self.talking.remove(&key);
                self.streams.remove(&key);
                self.actions.push_back(Action::Close(key));
            }
            // Anything else is against the protocol: the stream ends.
            _ => self.abort(key),
        }
    }

    /// Returns the next action on a socket.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Accepts an offered stream.
    pub(crate) fn accept(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(&key).filter(|it| it.phase == Phase::Offered) {
            stream.phase = Phase::Accepted;
            self.talking.insert(key);
        }
    }

    /// Refuses an offered stream, or ends any other: the guest gets a reset.
    pub(crate) fn refuse(&mut self, key: Key) {
        if self.streams.remove(&key).is_some() {
            self.talking.remove(&key);
            self.resets.push_back(key);
        }
    }

    /// Asks the guest for a stream to one of its ports. Returns `None` if there are too many.
    pub(crate) fn connect(&mut self, guest_port: u32) -> Option<Key> {
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let key = (0..=STREAMS_MAX).find_map(|_| {
            let key = Key { host_port: self.next_port, guest_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            (!self.streams.contains_key(&key)).then_some(key)
        })?;
        let phase = Phase::Requested { told: false };
        self.streams.insert(key, Stream::new(phase, &Header::default()));
        self.talking.insert(key);
        Some(key)
    }

    /// Returns the data of a stream that the host has not taken yet.
    pub(crate) fn data(&self, key: Key) -> &[u8] {
        self.streams.get(&key).map_or(&[], |stream| stream.data.as_slices().0)
    }

    /// The host has taken `count` bytes of [`Self::data`].
    pub(crate) fn taken(&mut self, key: Key, count: usize) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let count = count.min(stream.data.len());
        stream.data.drain(..count);
        stream.forwarded = stream.forwarded.wrapping_add(u32::try_from(count).unwrap_or(0));
        if stream.forwarded.wrapping_sub(stream.announced) >= BUFFER_BYTES / 2 {
            stream.wants_credit = true;
            self.talking.insert(key);
        }
        self.end_if_done(key);
    }

    /// All data of a stream was taken, and the guest had ended it: returns whether the socket's
    /// writing side should be shut down.
    pub(crate) fn is_at_end(&self, key: Key) -> bool {
        self.streams.get(&key).is_some_and(|it| it.guest_ended && it.data.is_empty())
    }

    /// Returns how many bytes the guest can take of a stream. It is 0 for one that is not open.
    pub(crate) fn credit(&self, key: Key) -> usize {
        self.streams.get(&key).map_or(0, Stream::credit)
    }

    /// The host sends no more.
    pub(crate) fn host_ended(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(&key).filter(|it| !it.host_ended) {
            stream.host_ended = true;
            self.talking.insert(key);
        }
    }

    /// Returns whether there is a packet without data for the guest.
    pub(crate) fn is_talking(&self) -> bool {
        !self.resets.is_empty() || !self.talking.is_empty()
    }

    /// Returns the next packet without data for the guest.
    pub(crate) fn next_packet(&mut self) -> Option<Header> {
        if let Some(key) = self.resets.pop_front() {
            return Some(self.header(key, operation::RESET, 0, 0));
        }
        loop {
            let key = *self.talking.first()?;
            let Some(stream) = self.streams.get_mut(&key) else {
                self.talking.remove(&key);
                continue;
            };
            let Some(operation) = stream.next_operation() else {
                self.talking.remove(&key);
                self.end_if_done(key);
                continue;
            };
            let flags = if operation == operation::SHUTDOWN { SENDS_NO_MORE } else { 0 };
            return Some(self.header(key, operation, flags, 0));
        }
    }

    /// Returns the header of a packet with `length` bytes of data, at most the stream's credit.
    pub(crate) fn data_packet(&mut self, key: Key, length: u32) -> Header {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.sent = stream.sent.wrapping_add(length);
        }
        self.header(key, operation::DATA, 0, length)
    }

    /// Forgets all streams: the guest has reset the device. Their sockets are to be closed.
    pub(crate) fn clear(&mut self) {
        *self = Self { cid: self.cid, next_port: self.next_port, ..Self::default() };
    }

    fn header(&mut self, key: Key, operation: u16, flags: u32, length: u32) -> Header {
        let forwarded = self.streams.get_mut(&key).map_or(0, |stream| {
            stream.announced = stream.forwarded;
            stream.wants_credit = false;
            stream.forwarded
        });
        Header {
            source_cid: HOST_CID,
            target_cid: self.cid,
            source_port: key.host_port,
            target_port: key.guest_port,
            length,
            kind: STREAM,
            operation,
            flags,
            buffer_bytes: BUFFER_BYTES,
            forwarded,
        }
    }

    /// A packet for no stream is answered by a reset, unless it is one.
    fn reject(&mut self, key: Key, header: &Header) {
        if header.operation != operation::RESET && self.has_room() {
            self.resets.push_back(key);
        }
    }

    /// Ends a stream on both sides.
    fn abort(&mut self, key: Key) {
        self.refuse(key);
        self.actions.push_back(Action::Close(key));
    }

    /// Ends a stream on both sides once neither sends any more and all data was taken.
    fn end_if_done(&mut self, key: Key) {
        let is_done = self.streams.get(&key).is_some_and(|stream| {
            let guest_done = stream.guest_ended && stream.data.is_empty();
            guest_done && (stream.host_end_told || stream.guest_deaf)
        });
        if is_done {
            self.abort(key);
        }
    }
}

impl Stream {
    fn new(phase: Phase, header: &Header) -> Self {
        Self {
            phase,
            guest_buffer: header.buffer_bytes,
            guest_forwarded: header.forwarded,
            ..Self::default()
        }
    }

    /// Returns how many bytes the guest may still send.
    fn room(&self) -> usize {
        (BUFFER_BYTES as usize).saturating_sub(self.data.len())
    }

    /// Returns how many bytes the guest takes.
    fn credit(&self) -> usize {
        if self.phase != Phase::Open || self.host_ended || self.guest_deaf {
            return 0;
        }
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(in_flight) as usize
    }

    fn next_operation(&mut self) -> Option<u16> {
        match self.phase {
            Phase::Accepted => {
                self.phase = Phase::Open;
                Some(operation::RESPONSE)
            }
            Phase::Requested { told: false } => {
                self.phase = Phase::Requested { told: true };
                Some(operation::REQUEST)
            }
            Phase::Open if self.host_ended && !self.host_end_told => {
                self.host_end_told = true;
                Some(operation::SHUTDOWN)
            }
            Phase::Open if self.wants_credit => Some(operation::CREDIT_UPDATE),
            _ => None,
        }
    }
}

/// The largest number of streams of a guest.
pub(crate) const STREAMS_MAX: usize = 1024;
/// The size of the host's buffer for each stream.
pub(crate) const BUFFER_BYTES: u32 = 256 * 1024;
/// The largest number of resets for unknown streams that wait for the guest's buffers.
const RESETS_MAX: usize = 256;
/// The first port of streams that the host asks for.
const FIRST_HOST_PORT: u32 = 1 << 30;
