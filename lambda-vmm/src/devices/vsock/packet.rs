//! The header of vsock packets (virtio 1.2, section 5.10.6), in its binary form.

/// The address of a stream: the host's port and the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
}

/// The operations of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source_cid: u64,
    pub(crate) target_cid: u64,
    pub(crate) source_port: u32,
    pub(crate) target_port: u32,
    pub(crate) length: u32,
    pub(crate) kind: u16,
    /// `None` for a number that no operation has.
    pub(crate) operation: Option<Operation>,
    pub(crate) flags: u32,
    /// The size of the sender's buffer for this stream.
    pub(crate) buffer_bytes: u32,
    /// How many bytes of this stream the sender has taken out of its buffer, modulo 2^32.
    pub(crate) forwarded: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            source_cid: long(0),
            target_cid: long(8),
            source_port: word(16),
            target_port: word(20),
            length: word(24),
            kind: half(28),
            operation: match half(30) {
                1 => Some(Operation::Request),
                2 => Some(Operation::Response),
                3 => Some(Operation::Reset),
                4 => Some(Operation::Shutdown),
                5 => Some(Operation::Data),
                6 => Some(Operation::CreditUpdate),
                7 => Some(Operation::CreditRequest),
                _ => None,
            },
            flags: word(32),
            buffer_bytes: word(36),
            forwarded: word(40),
        }
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER_BYTES] {
        let operation: u16 = match self.operation {
            None => 0,
            Some(Operation::Request) => 1,
            Some(Operation::Response) => 2,
            Some(Operation::Reset) => 3,
            Some(Operation::Shutdown) => 4,
            Some(Operation::Data) => 5,
            Some(Operation::CreditUpdate) => 6,
            Some(Operation::CreditRequest) => 7,
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.target_cid.to_le_bytes());
        let words = [
            (16, self.source_port),
            (20, self.target_port),
            (24, self.length),
            (28, u32::from(self.kind) | u32::from(operation) << 16),
            (32, self.flags),
            (36, self.buffer_bytes),
            (40, self.forwarded),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The length of a header.
pub(crate) const HEADER_BYTES: usize = 44;
/// The kind of streams.
pub(crate) const STREAM: u16 = 1;
/// The host's address.
pub(crate) const HOST_CID: u64 = 2;
/// Flags of [`Operation::Shutdown`].
pub(crate) const RECEIVES_NO_MORE: u32 = 1;
pub(crate) const SENDS_NO_MORE: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_of_a_known_operation_survives(mut bytes: [u8; 32], rest: [u8; 12]) {
            bytes[30] = bytes[30] % 7 + 1;
            bytes[31] = 0;
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::parse(&all).bytes(), all);
        }
    }
}
