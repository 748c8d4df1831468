//! The header of vsock packets (virtio 1.2, section 5.10.6).

use crate::Error;
use crate::wire::{Reader, Wire, Writer, structures};

/// The address of a stream: the host's port and the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
}

/// A packet's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source_cid: u64,
    pub(crate) target_cid: u64,
    pub(crate) source_port: u32,
    pub(crate) target_port: u32,
    pub(crate) length: u32,
    pub(crate) kind: u16,
    pub(crate) operation: u16,
    pub(crate) flags: u32,
    /// The size of the sender's buffer for this stream.
    pub(crate) buffer_bytes: u32,
    /// How many bytes of this stream the sender has taken out of its buffer, modulo 2^32.
    pub(crate) forwarded: u32,
}

structures! {
    Header {
        source_cid, target_cid, source_port, target_port, length, kind, operation, flags,
        buffer_bytes, forwarded,
    }
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
        Self::read(&mut Reader::new(bytes, "a packet"))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        out.finish()
    }
}

/// The operations of packets.
pub(crate) mod operation {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const RESPONSE: u16 = 2;
    pub(crate) const RESET: u16 = 3;
    pub(crate) const SHUTDOWN: u16 = 4;
    pub(crate) const DATA: u16 = 5;
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// The length of a header.
pub(crate) const HEADER_BYTES: usize = 44;
/// The kind of streams.
pub(crate) const STREAM: u16 = 1;
/// The host's address.
pub(crate) const HOST_CID: u64 = 2;
/// Flags of [`operation::SHUTDOWN`].
pub(crate) const RECEIVES_NO_MORE: u32 = 1;
pub(crate) const SENDS_NO_MORE: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_its_binary_form(first: [u8; 32], rest: [u8; 12]) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&first);
            all[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::parse(&all).unwrap().bytes(), all);
        }
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let header = Header { length: 7, kind: STREAM, operation: 5, ..Header::default() };
        let bytes = header.bytes();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(bytes[24..32], [7, 0, 0, 0, 1, 0, 5, 0]);
    }
}
