//! The socket device (virtio 1.2, section 5.10) in user space. Each stream of the guest is one end
//! of a socket pair. The other end belongs to the host's program.

pub(crate) mod packet;
pub(crate) mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::packet::{HEADER_BYTES, Header, Key};
use self::streams::{Action, Streams};
use super::{Chain, Device, QUEUE_SIZE, Rings};
use crate::memory::Memory;
use crate::poll::Poll;

/// Hands a new stream to the host's program.
pub(crate) trait Offer: Send + fmt::Debug {
    /// Makes a pair of non-blocking sockets, gives one to the host's program for `port`, and
    /// returns the other. Returns `None` if the host's program takes none.
    fn offer(&mut self, port: u32) -> Option<OwnedFd>;
}

/// The device.
#[derive(Debug)]
pub(crate) struct Vsock {
    config: [u8; 8],
    streams: Streams,
    sockets: BTreeMap<Key, Socket>,
    keys: BTreeMap<u32, Key>,
    next_token: u32,
    /// Streams whose sockets may have data for the guest, in the order of their turns.
    readable: VecDeque<Key>,
    /// The guest has given no buffers.
    is_starved: bool,
    /// The guest must be told that all its streams are gone.
    reset_due: bool,
    poll: Poll,
    offers: Box<dyn Offer>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Socket {
    file: File,
    token: u32,
    interest: EpollFlags,
    is_shut_down: bool,
}

impl Vsock {
    pub(crate) fn new(cid: u32, poll: Poll, offers: Box<dyn Offer>) -> Self {
        Self {
            config: u64::from(cid).to_le_bytes(),
            streams: Streams::new(cid),
            sockets: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_token: 0,
            readable: VecDeque::new(),
            is_starved: false,
            reset_due: false,
            poll,
            offers,
            buffer: vec![0; HEADER_BYTES + PACKET_BYTES_MAX],
        }
    }

    /// Connects a non-blocking socket of the host's to a port of the guest. Returns the token to be
    /// given to [`Device::ready`], or `None` if there are too many streams.
    pub(crate) fn connect(&mut self, guest_port: u32, socket: OwnedFd) -> Option<u32> {
        let key = self.streams.connect(guest_port)?;
        Some(self.add(key, socket))
    }

    fn add(&mut self, key: Key, socket: OwnedFd) -> u32 {
        // Tokens of closed streams are used again after 2^32 streams.
        while self.keys.contains_key(&self.next_token) {
            self.next_token = self.next_token.wrapping_add(1);
        }
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        self.keys.insert(token, key);
        let file = File::from(socket);
        let socket = Socket { file, token, interest: EpollFlags::empty(), is_shut_down: false };
        self.sockets.insert(key, socket);
        self.watch(key);
        token
    }

    fn close(&mut self, key: Key) {
        if let Some(socket) = self.sockets.remove(&key) {
            self.keys.remove(&socket.token);
            self.poll.set(socket.file.as_fd(), socket.token, socket.interest, EpollFlags::empty());
        }
    }

    /// Sets which events of a socket wake the device: data for a guest that can take it, and room
    /// for data of the guest.
    fn watch(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !self.is_starved && self.streams.credit(key) > 0);
        interest.set(EpollFlags::EPOLLOUT, !self.streams.data(key).is_empty());
        self.poll.set(socket.file.as_fd(), socket.token, socket.interest, interest);
        socket.interest = interest;
    }

    /// Handles packets of the guest. Returns whether some wait for room for their answers.
    fn transmit(&mut self, rings: &mut Rings<'_>) -> bool {
        while self.streams.has_room() {
            let Some(chain) = rings.next(TRANSMIT) else { return false };
            let head = chain.head_index();
            // A packet that is cut or too long is dropped.
            if let Some((header, length)) = self.packet(chain, rings.memory()) {
                self.streams.handle(&header, &self.buffer[..length]);
                self.act();
                self.watch(Key { host_port: header.target_port, guest_port: header.source_port });
            }
            rings.give(TRANSMIT, head, 0);
        }
        true
    }

    /// Reads a packet of the guest. Its data lies at the start of the buffer, with this length.
    fn packet(&mut self, chain: Chain<'_>, memory: &Memory) -> Option<(Header, usize)> {
        let mut reader = chain.reader::<()>(memory).ok()?;
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header).ok()?;
        let header = Header::parse(&header).ok()?;
        let length = usize::try_from(header.length).ok().filter(|it| *it <= PACKET_BYTES_MAX)?;
        reader.read_exact(&mut self.buffer[..length]).ok()?;
        Some((header, length))
    }

    /// Carries out what the streams ask for.
    fn act(&mut self) {
        while let Some(action) = self.streams.poll() {
            match action {
                Action::Offer(key) => match self.offers.offer(key.host_port) {
                    Some(socket) => {
                        self.streams.accept(key);
                        self.add(key, socket);
                    }
                    None => self.streams.refuse(key),
                },
                Action::Opened(key) => self.watch(key),
                Action::Deliver(key) => self.deliver(key),
                Action::Close(key) => self.close(key),
            }
        }
    }

    /// Writes data of the guest to the host's socket, as much as it takes.
    fn deliver(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        loop {
            let data = self.streams.data(key);
            if data.is_empty() {
                break;
            }
            match (&socket.file).write(data) {
                Ok(count) => self.streams.taken(key, count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The host's program has closed its end.
                Err(_) => {
                    self.streams.refuse(key);
                    return self.close(key);
                }
            }
        }
        if self.streams.is_at_end(key) && !socket.is_shut_down {
            socket.is_shut_down = true;
            // A socket whose other end is closed cannot be shut down, which changes nothing.
            let _is_done = shutdown(socket.file.as_raw_fd(), Shutdown::Write).is_ok();
        }
        // Data that ends the stream may be the last one.
        self.streams.taken(key, 0);
    }

    /// Fills the guest's buffers: first with packets without data, then with data of the sockets,
    /// a packet of each in turn.
    fn receive(&mut self, rings: &mut Rings<'_>) {
        loop {
            let key = if self.streams.is_talking() {
                None
            } else if let Some(key) = self.readable.pop_front() {
                if self.streams.credit(key) == 0 {
                    self.watch(key);
                    continue;
                }
                Some(key)
            } else {
                return;
            };
            let Some(chain) = rings.next(RECEIVE) else {
                self.readable.extend(key);
                return self.starve(true);
            };
            let head = chain.head_index();
            let Ok(mut writer) = chain.writer::<()>(rings.memory()) else {
                rings.give(RECEIVE, head, 0);
                self.readable.extend(key);
                continue;
            };
            let space = writer.available_bytes();
            if space <= HEADER_BYTES {
                // The driver gave a buffer that holds no packet.
                rings.is_broken = true;
                return;
            }
            let packet = match key {
                None => self.streams.next_packet().map(|header| (header, 0)),
                Some(key) => self.read(key, space - HEADER_BYTES),
            };
            let Some((header, length)) = packet else {
                rings.put_back(RECEIVE);
                self.act();
                continue;
            };
            self.buffer[..HEADER_BYTES].copy_from_slice(&header.bytes());
            let bytes = &self.buffer[..HEADER_BYTES + length];
            let written = writer.write_all(bytes).map_or(0, |()| bytes.len());
            rings.give(RECEIVE, head, u32::try_from(written).unwrap_or(0));
            self.act();
            self.watch(Key { host_port: header.source_port, guest_port: header.target_port });
        }
    }

    /// Reads data of a socket for the guest into the buffer, behind the place of the header.
    fn read(&mut self, key: Key, space: usize) -> Option<(Header, usize)> {
        let socket = self.sockets.get_mut(&key)?;
        let room = space.min(self.streams.credit(key)).min(PACKET_BYTES_MAX);
        match (&socket.file).read(&mut self.buffer[HEADER_BYTES..HEADER_BYTES + room]) {
            Ok(0) => self.streams.host_ended(key),
            Ok(count) => {
                self.readable.push_back(key);
                let header = self.streams.data_packet(key, u32::try_from(count).unwrap_or(0));
                return Some((header, count));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.readable.push_back(key),
            Err(_) => {
                self.streams.refuse(key);
                self.close(key);
                return None;
            }
        }
        self.watch(key);
        None
    }

    /// Leaves data in the sockets while the guest has no buffers.
    fn starve(&mut self, is_starved: bool) {
        if self.is_starved != is_starved {
            self.is_starved = is_starved;
            let keys: Vec<Key> = self.sockets.keys().copied().collect();
            keys.into_iter().for_each(|key| self.watch(key));
        }
    }

    fn serve(&mut self, rings: &mut Rings<'_>) {
        loop {
            let waits = self.transmit(rings);
            self.receive(rings);
            if !waits || !self.streams.has_room() {
                return;
            }
        }
    }

    /// Tells the guest that its streams are gone (section 5.10.6.7), once it gives a buffer.
    fn tell_reset(&mut self, rings: &mut Rings<'_>) {
        if !self.reset_due {
            return;
        }
        if let Some(chain) = rings.next(EVENTS) {
            let head = chain.head_index();
            let event = TRANSPORT_RESET.to_le_bytes();
            let writer = chain.writer::<()>(rings.memory());
            let is_written = writer.is_ok_and(|mut writer| writer.write_all(&event).is_ok());
            rings.give(EVENTS, head, if is_written { 4 } else { 0 });
            self.reset_due = !is_written;
        }
    }
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn notify(&mut self, queue: usize, rings: &mut Rings<'_>) {
        match queue {
            EVENTS => self.tell_reset(rings),
            RECEIVE => {
                self.starve(false);
                self.serve(rings);
            }
            _ => self.serve(rings),
        }
    }

    fn ready(&mut self, token: u32, rings: &mut Rings<'_>) {
        if let Some(key) = self.keys.get(&token).copied() {
            self.deliver(key);
            self.act();
            if self.streams.credit(key) > 0 && !self.readable.contains(&key) {
                self.readable.push_back(key);
            }
            self.watch(key);
        }
        self.serve(rings);
    }

    /// Packets that the guest sent before the snapshot belong to streams that are gone.
    fn resume(&mut self, rings: &mut Rings<'_>) {
        while let Some(chain) = rings.next(TRANSMIT) {
            rings.give(TRANSMIT, chain.head_index(), 0);
        }
        self.reset_due = true;
        self.tell_reset(rings);
    }

    fn reset(&mut self) {
        while let Some(key) = self.sockets.keys().next().copied() {
            self.close(key);
        }
        self.streams.clear();
        self.readable.clear();
        self.is_starved = false;
        self.reset_due = false;
    }
}

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const EVENTS: usize = 2;
/// The largest amount of data in one packet.
const PACKET_BYTES_MAX: usize = 64 * 1024;
const TRANSPORT_RESET: u32 = 0;
