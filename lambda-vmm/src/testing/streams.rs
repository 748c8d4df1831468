//! Packets of a guest and acts of the host, from bytes, for fuzzing. It exists in such builds alone.

use crate::devices::vsock::packet::{HOST_CID, Header, Key, STREAM};
use crate::devices::vsock::streams::{Action, BUFFER_BYTES, Streams};

/// Carries out the acts that the bytes are, and checks the bounds after each.
pub(crate) fn act(bytes: &[u8]) {
    let mut streams = Streams::new(3);
    for act in bytes.chunks(8) {
        let mut act = act.to_vec();
        act.resize(8, 0);
        let [kind, guest, host, operation, flags, buffer, forwarded, length] = act[..] else {
            return;
        };
        let key = Key { host_port: u32::from(host % 8), guest_port: u32::from(guest % 8) };
        let length = usize::from(length) * 300;
        match kind % 8 {
            0..=3 => {
                if !streams.has_room() {
                    assert!(streams.is_talking(), "what waits can be sent");
                    while streams.next_packet().is_some() {}
                }
                let header = Header {
                    source_cid: 3 + u64::from(kind == 0xff),
                    target_cid: HOST_CID,
                    source_port: key.guest_port,
                    target_port: key.host_port,
                    length: u32::try_from(length).unwrap_or_default(),
                    kind: STREAM + u16::from(kind == 0xfe),
                    operation: u16::from(operation % 9),
                    flags: u32::from(flags),
                    buffer_bytes: u32::from(buffer) << 12,
                    forwarded: u32::from(forwarded) << 8,
                };
                streams.handle(&header, &vec![0; length]);
            }
            4 => {
                let _key = streams.connect(key.guest_port);
            }
            5 => streams.taken(key, length),
            6 => streams.host_ended(key),
            _ => {
                let credit = streams.credit(key).min(length);
                if credit > 0 {
                    streams.data_packet(key, u32::try_from(credit).unwrap_or_default());
                }
                let _packet = streams.next_packet();
            }
        }
        let mut actions = 0;
        while let Some(action) = streams.poll() {
            actions += 1;
            match action {
                Action::Offer(key) if operation & 0x40 == 0 => streams.accept(key),
                Action::Offer(key) => streams.refuse(key),
                _ => {}
            }
        }
        assert!(actions <= 2, "{actions} actions");
        assert!(streams.data(key).len() <= BUFFER_BYTES as usize);
    }
}
