//! Property tests of the streams: a good guest and a good host exchange data in any order of
//! events; a bad guest sends any packets.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::devices::vsock::packet::*;
use crate::devices::vsock::streams::*;

/// What happens next between a good guest and a good host.
#[derive(Debug, Clone)]
enum Event {
    GuestConnects(u32),
    GuestSends(u32, usize),
    GuestTakes(u32, usize),
    GuestEnds(u32),
    GuestResets(u32),
    /// The guest has buffers for so many packets.
    GuestReceives(usize),
    HostConnects(u32),
    HostSends(u32, usize),
    HostTakes(u32, usize),
    HostEnds(u32),
}

/// One stream as both sides see it.
#[derive(Debug, Default)]
struct Side {
    key: Option<Key>,
    guest_open: bool,
    guest_ended: bool,
    guest_sent: u32,
    /// Credit of the guest: the host's buffer, and what the host has taken.
    host_forwarded: u32,
    /// Received by the guest, and taken by its program.
    guest_received: u32,
    guest_taken: u32,
    host_open: bool,
    host_ended: bool,
    host_sent: u32,
    host_taken: u32,
    closed: bool,
}

/// The guest's buffer of a stream.
const GUEST_BUFFER: u32 = 10_000;

#[derive(Debug)]
struct World {
    streams: Streams,
    sides: BTreeMap<u32, Side>,
}

impl World {
    fn packet(&mut self, guest_port: u32, operation: u16, flags: u32, data: &[u8]) {
        let side = self.sides.entry(guest_port).or_default();
        let host_port = side.key.map_or(guest_port, |key| key.host_port);
        let header = Header {
            source_cid: 3,
            target_cid: HOST_CID,
            source_port: guest_port,
            target_port: host_port,
            length: u32::try_from(data.len()).unwrap(),
            kind: STREAM,
            operation,
            flags,
            buffer_bytes: GUEST_BUFFER,
            forwarded: side.guest_taken,
        };
        self.streams.handle(&header, data);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.streams.poll() {
            match action {
                Action::Offer(key) => {
                    let side = self.sides.get_mut(&key.guest_port).unwrap();
                    side.key = Some(key);
                    side.host_open = true;
                    self.streams.accept(key);
                }
                Action::Opened(key) => {
                    self.sides.get_mut(&key.guest_port).unwrap().host_open = true
                }
                Action::Deliver(key) => {
                    assert!(self.streams.data(key).len() <= BUFFER_BYTES as usize);
                }
                Action::Close(key) => self.sides.get_mut(&key.guest_port).unwrap().closed = true,
            }
        }
    }

    /// The guest takes packets out of the receive queue.
    fn receive(&mut self, packets: usize) {
        for _ in 0..packets {
            let Some(header) = self.streams.next_packet() else { return };
            self.act();
            self.hear(&header);
        }
    }

    fn hear(&mut self, header: &Header) {
        assert_eq!((header.source_cid, header.target_cid), (HOST_CID, 3));
        let port = header.target_port;
        let side = self.sides.get_mut(&port).unwrap();
        side.host_forwarded = header.forwarded;
        match header.operation {
            operation::RESPONSE => side.guest_open = true,
            operation::REQUEST => {
                side.guest_open = true;
                self.packet(port, operation::RESPONSE, 0, &[]);
            }
            operation::DATA => {
                side.guest_received = side.guest_received.wrapping_add(header.length);
                let kept = side.guest_received - side.guest_taken;
                assert!(kept <= GUEST_BUFFER, "the guest's buffer overflows: {kept}");
            }
            operation::RESET => {
                side.guest_open = false;
                side.closed = true;
            }
            operation::SHUTDOWN => assert!(side.host_ended),
            operation::CREDIT_UPDATE | operation::CREDIT_REQUEST => {}
            other => panic!("{other}"),
        }
    }

    fn carry_out(&mut self, event: &Event) {
        match *event {
            Event::GuestConnects(port) => {
                if !self.sides.contains_key(&port) {
                    self.packet(port, operation::REQUEST, 0, &[]);
                }
            }
            Event::GuestSends(port, count) => {
                let Some(side) = self.sides.get_mut(&port) else { return };
                if !side.guest_open || side.guest_ended || side.closed {
                    return;
                }
                let credit = BUFFER_BYTES - (side.guest_sent - side.host_forwarded);
                let count = u32::try_from(count).unwrap().min(credit).min(65_536);
                let data: Vec<u8> = (side.guest_sent..side.guest_sent + count).map(byte).collect();
                side.guest_sent += count;
                self.packet(port, operation::DATA, 0, &data);
                assert!(!self.sides[&port].closed, "a good guest is not cut off");
            }
            Event::GuestTakes(port, count) => {
                let Some(side) = self.sides.get_mut(&port) else { return };
                let kept = side.guest_received - side.guest_taken;
                side.guest_taken += u32::try_from(count).unwrap().min(kept);
                if side.guest_open && !side.closed {
                    self.packet(port, operation::CREDIT_UPDATE, 0, &[]);
                }
            }
            Event::GuestEnds(port) => {
                let Some(side) = self.sides.get_mut(&port) else { return };
                if side.guest_open && !side.closed {
                    side.guest_ended = true;
                    self.packet(port, operation::SHUTDOWN, SENDS_NO_MORE, &[]);
                }
            }
            Event::GuestResets(port) => {
                if self.sides.get(&port).is_some_and(|side| side.guest_open && !side.closed) {
                    self.packet(port, operation::RESET, 0, &[]);
                    assert!(self.sides[&port].closed);
                }
            }
            Event::GuestReceives(packets) => self.receive(packets),
            Event::HostConnects(port) => {
                if !self.sides.contains_key(&port) {
                    let key = self.streams.connect(port);
                    self.sides.insert(port, Side { key, ..Side::default() });
                }
            }
            Event::HostSends(port, count) => {
                let Some(side) = self.sides.get_mut(&port) else { return };
                let Some(key) = side.key.filter(|_| !side.closed && !side.host_ended) else {
                    return;
                };
                let count = count.min(self.streams.credit(key));
                if count > 0 {
                    side.host_sent += u32::try_from(count).unwrap();
                    let header = self.streams.data_packet(key, u32::try_from(count).unwrap());
                    self.hear(&header);
                }
            }
            Event::HostTakes(port, count) => self.take(port, count),
            Event::HostEnds(port) => {
                let Some(side) = self.sides.get_mut(&port) else { return };
                if let Some(key) = side.key.filter(|_| side.host_open && !side.closed) {
                    side.host_ended = true;
                    self.streams.host_ended(key);
                }
            }
        }
    }

    /// The host takes data, and checks it.
    fn take(&mut self, port: u32, count: usize) {
        let Some(side) = self.sides.get_mut(&port) else { return };
        let Some(key) = side.key else { return };
        let data = self.streams.data(key);
        let count = count.min(data.len());
        for value in &data[..count] {
            assert_eq!(*value, byte(side.host_taken), "order and content");
            side.host_taken += 1;
        }
        self.streams.taken(key, count);
        self.act();
    }

    /// Lets everything go on to its end.
    fn drain(&mut self) {
        for _ in 0..200 {
            self.receive(1000);
            let ports: Vec<u32> = self.sides.keys().copied().collect();
            for port in ports {
                self.take(port, usize::MAX);
                self.carry_out(&Event::GuestTakes(port, 1 << 30));
            }
        }
    }
}

fn byte(position: u32) -> u8 {
    u8::try_from(position % 251).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let port = || 1..5_u32;
    let count = || prop_oneof![0..100_usize, 0..70_000_usize];
    prop_oneof![
        2 => port().prop_map(Event::GuestConnects),
        2 => port().prop_map(Event::HostConnects),
        4 => (port(), count()).prop_map(|(port, count)| Event::GuestSends(port, count)),
        2 => (port(), count()).prop_map(|(port, count)| Event::GuestTakes(port, count)),
        4 => (port(), count()).prop_map(|(port, count)| Event::HostSends(port, count)),
        4 => (port(), count()).prop_map(|(port, count)| Event::HostTakes(port, count)),
        6 => (0..6_usize).prop_map(Event::GuestReceives),
        1 => port().prop_map(Event::GuestEnds),
        1 => port().prop_map(Event::HostEnds),
        1 => port().prop_map(Event::GuestResets),
    ]
}

fn cases() -> ProptestConfig {
    let cases = if test_support::long() { 100_000 } else { 1_000 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    /// All data arrives once and in order, no buffer overflows, credit comes back, and a stream
    /// that both sides have ended is gone.
    #[test]
    fn good_streams_lose_nothing(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World { streams: Streams::new(3), sides: BTreeMap::new() };
        events.iter().for_each(|event| world.carry_out(event));
        world.drain();
        for (port, side) in &world.sides {
            if side.closed {
                continue;
            }
            prop_assert_eq!(side.guest_sent, side.host_taken, "port {}", port);
            prop_assert_eq!(side.host_sent, side.guest_received, "port {}", port);
            prop_assert!(!(side.guest_ended && side.host_ended), "port {} is still there", port);
            if side.guest_open && !side.host_ended {
                prop_assert!(side.guest_sent - side.host_forwarded <= BUFFER_BYTES / 2);
                prop_assert_eq!(world.streams.credit(side.key.unwrap()), GUEST_BUFFER as usize);
            }
        }
    }

    /// Whatever a guest sends, the number of streams, the data kept of each and the packets that
    /// wait are bounded, and each action names a stream of its own.
    #[test]
    fn bad_packets_keep_nothing_without_bound(
        packets in prop::collection::vec(
            (0..4_u32, 0..4_u32, 0..9_u16, 0..4_u32, any::<u32>(), any::<u32>(), 0..80_000_usize),
            0..400,
        ),
        takes: bool,
    ) {
        let mut streams = Streams::new(3);
        for (guest_port, host_port, operation, flags, buffer_bytes, forwarded, length) in packets {
            if !streams.has_room() {
                prop_assert!(streams.is_talking());
                while streams.next_packet().is_some() {}
            }
            let header = Header {
                source_cid: 3,
                target_cid: HOST_CID,
                source_port: guest_port,
                target_port: host_port,
                length: u32::try_from(length).unwrap(),
                kind: STREAM,
                operation,
                flags,
                buffer_bytes,
                forwarded,
            };
            streams.handle(&header, &vec![0; length]);
            let key = Key { host_port, guest_port };
            let mut actions = 0;
            while let Some(action) = streams.poll() {
                actions += 1;
                if let Action::Offer(key) = action {
                    streams.accept(key);
                }
            }
            prop_assert!(actions <= 2);
            prop_assert!(streams.data(key).len() <= BUFFER_BYTES as usize);
            if takes {
                streams.taken(key, length);
            }
        }
    }
}

#[test]
fn a_guest_has_at_most_1024_streams() {
    let mut streams = Streams::new(3);
    let request = |port| Header {
        source_cid: 3,
        target_cid: HOST_CID,
        source_port: port,
        target_port: 1,
        kind: STREAM,
        operation: operation::REQUEST,
        ..Header::default()
    };
    for port in 0..2000 {
        if streams.has_room() {
            streams.handle(&request(port), &[]);
        }
    }
    let mut offers = 0;
    while let Some(action) = streams.poll() {
        assert!(matches!(action, Action::Offer(_)));
        offers += 1;
    }
    assert_eq!(offers, STREAMS_MAX);
    assert!(streams.connect(5).is_none());
    // Every stream ends with the device.
    streams.clear();
    assert!(streams.connect(5).is_some());
}
