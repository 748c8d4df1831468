//! Signatures after that of the request: chunks of a body, a trailer, events of a stream. Each
//! signature includes the one before. Pure.

use std::fmt;
use std::time::SystemTime;

use hmac_sha256::Hash;

use super::{Key, Signature, Signer, canonical_headers, hex};
use crate::timestamp;

/// Signs the chunks of a body that is sent with `aws-chunked` encoding.
///
/// The request must have been signed with [`super::Payload::Chunks`]. Its signed headers must
/// include `content-encoding: aws-chunked` and `x-amz-decoded-content-length`.
///
/// A chunk's signature has [`Chunks::SIGNATURE_BYTES`] bytes. If the request was signed by
/// Signature Version 4a, it has [`Chunks::SIGNATURE_BYTES_V4A`] bytes, of which unused ones are
/// `*`.
pub struct Chunks {
    key: Key,
    algorithm: &'static str,
    date: String,
    scope: String,
    previous: String,
}

impl fmt::Debug for Chunks {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Chunks {
    /// The length of a chunk's signature by Signature Version 4, in bytes.
    pub const SIGNATURE_BYTES: u64 = 64;
    /// The length of a chunk's signature by Signature Version 4a, in bytes.
    pub const SIGNATURE_BYTES_V4A: u64 = 144;

    /// Returns the state after the request that `signer` signed; the first chunk comes next.
    #[must_use]
    pub fn new(signer: &Signer<'_>, of_request: &Signature) -> Self {
        let date = timestamp::compact(signer.time);
        let (key, scope) = (signer.key(&date), signer.scope(&date));
        let (algorithm, previous) = (signer.algorithm(), of_request.signature.clone());
        Self { key, algorithm, date, scope, previous }
    }

    /// Returns an encoded chunk: its length, its signature, its bytes. The last chunk must be
    /// empty.
    #[must_use]
    pub fn chunk(&mut self, bytes: &[u8]) -> Vec<u8> {
        let parts = [hex(&Hash::hash(b"")), hex(&Hash::hash(bytes))];
        let signature = self.sign("PAYLOAD", &parts);
        let mut sent = format!("{:x};chunk-signature={signature}\r\n", bytes.len()).into_bytes();
        sent.extend_from_slice(bytes);
        sent.extend_from_slice(b"\r\n");
        sent
    }

    /// Returns the encoded end of a body with a trailer, such as `x-amz-checksum-crc32c`: the empty
    /// chunk, the trailer and its signature.
    #[must_use]
    pub fn trailer(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut sent = self.chunk(b"");
        // The trailer takes the place of the empty line after the last chunk.
        sent.truncate(sent.len() - 2);
        let mut canonical = String::new();
        for (name, value) in canonical_headers(headers) {
            canonical.push_str(&format!("{name}:{value}\n"));
            sent.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        let parts = [hex(&Hash::hash(canonical.as_bytes()))];
        let signature = self.sign("TRAILER", &parts);
        sent.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n\r\n").as_bytes());
        sent
    }

    /// Returns the `content-length` of the request: the total length of the chunks of a body that
    /// is cut every `chunk_bytes`, including the last, empty chunk.
    #[must_use]
    pub fn encoded_bytes(body_bytes: u64, chunk_bytes: u64) -> u64 {
        Self::encoded_bytes_with(body_bytes, chunk_bytes, Self::SIGNATURE_BYTES)
    }

    /// Returns the same for signatures of `signature_bytes` bytes.
    #[must_use]
    pub fn encoded_bytes_with(body_bytes: u64, chunk_bytes: u64, signature_bytes: u64) -> u64 {
        let of_chunk = |bytes: u64| {
            let digits = u64::try_from(format!("{bytes:x}").len()).unwrap_or(16);
            digits + 17 + signature_bytes + 2 + bytes + 2
        };
        let chunk_bytes = chunk_bytes.max(1);
        let (whole, rest) = (body_bytes / chunk_bytes, body_bytes % chunk_bytes);
        let rest = if rest > 0 { of_chunk(rest) } else { 0 };
        whole.saturating_mul(of_chunk(chunk_bytes)).saturating_add(rest + of_chunk(0))
    }

    /// Signs the next part, and returns its signature as it is sent.
    fn sign(&mut self, kind: &str, parts: &[String]) -> String {
        let text = format!(
            "{}-{kind}\n{}\n{}\n{}\n{}",
            self.algorithm,
            self.date,
            self.scope,
            self.previous,
            parts.join("\n")
        );
        self.previous = hex(&self.key.sign(&text));
        // ECDSA signatures vary in length, so they are padded.
        match self.key {
            Key::Hmac(_) => self.previous.clone(),
            #[cfg(feature = "sigv4a")]
            Key::Ecdsa(_) => format!("{:*<144}", self.previous),
        }
    }
}

/// Signs the events of a stream (`application/vnd.amazon.eventstream`), such as audio for
/// transcription.
///
/// The request must have been signed with [`super::Payload::Events`].
pub struct Events<'a> {
    signer: Signer<'a>,
    previous: String,
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("region", &self.signer.region).finish_non_exhaustive()
    }
}

impl<'a> Events<'a> {
    /// Returns the state after the request that `signer` signed; the first event comes next.
    #[must_use]
    pub fn new(signer: Signer<'a>, of_request: &Signature) -> Self {
        Self { signer, previous: of_request.signature.clone() }
    }

    /// Returns the encoded event that carries `message`, with its time and signature. `message` is
    /// an encoded event, or empty at the end of the stream.
    #[must_use]
    pub fn event(&mut self, time: SystemTime, message: &[u8]) -> Vec<u8> {
        let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        let mut date_header = header(":date", 8);
        date_header.extend_from_slice(&millis.to_be_bytes());
        let date = timestamp::compact(time);
        let text = format!(
            "{}-PAYLOAD\n{date}\n{}\n{}\n{}\n{}",
            self.signer.algorithm(),
            self.signer.scope(&date),
            self.previous,
            hex(&Hash::hash(&date_header)),
            hex(&Hash::hash(message))
        );
        let signature = self.signer.key(&date).sign(&text);
        self.previous = hex(&signature);
        let mut headers = date_header;
        headers.extend_from_slice(&header(":chunk-signature", 6));
        headers.extend_from_slice(&u16::try_from(signature.len()).unwrap_or(0).to_be_bytes());
        headers.extend_from_slice(&signature);
        encoded(&headers, message)
    }
}

/// Returns the start of an event's header: the length of the name, the name, the type.
fn header(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(kind);
    bytes
}

/// Encodes an event: lengths, their checksum, headers, payload, checksum of all.
fn encoded(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut event = Vec::with_capacity(16 + headers.len() + payload.len());
    event.extend_from_slice(&length(16 + headers.len() + payload.len()));
    event.extend_from_slice(&length(headers.len()));
    event.extend_from_slice(&crc32(&event).to_be_bytes());
    event.extend_from_slice(headers);
    event.extend_from_slice(payload);
    event.extend_from_slice(&crc32(&event).to_be_bytes());
    event
}

/// Returns the CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_lengths() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        // 65,536 bytes and 1,024 bytes in chunks of 64 KiB, as the S3 reference counts them.
        assert_eq!(Chunks::encoded_bytes(66_560, 65_536), 66_824);
    }
}
